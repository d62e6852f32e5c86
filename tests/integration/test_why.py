"""What is said first about a run, in every state."""

from datetime import timedelta

import pytest

from dispatch.why import standing_of
from tasks_app import lifecycle
from tasks_app.models import TaskRun
from tasks_app.states import Outcome, RunStatus
from tests.integration.domain import NOW, AWorker, a_finish, a_run_in, a_task, claimed, running, submitted
from workers_app.models import Worker

pytestmark = pytest.mark.django_db


def said(run_id, now=NOW):
    return standing_of(TaskRun.objects.select_related("task").get(pk=run_id), now)


@pytest.mark.parametrize("status", list(RunStatus))
def test_there_is_something_to_say_in_every_state(status):
    reasons = said(a_run_in(status).pk)
    assert reasons
    assert all(reason.code and reason.text for reason in reasons)


def test_a_run_that_nothing_holds_back_is_about_to_start():
    AWorker()
    [run] = submitted()
    assert [reason.code for reason in said(run) if reason.code != "broker_away"] in ([], ["about_to_start"])


def test_a_running_run_names_its_worker_and_its_deadline():
    permit = running(AWorker("w7"))
    [reason] = said(permit.run_id)
    assert "w7" in reason.text
    assert reason.expected_release == permit.deadline_at


def test_a_run_that_is_asked_to_stop_names_who_asked():
    permit = running()
    lifecycle.cancel([permit.run_id], by="ada", now=NOW)
    [reason] = said(permit.run_id)
    assert (reason.holder, reason.since) == ("ada", NOW)
    assert "asked to stop" in reason.text


@pytest.mark.parametrize(
    ("pool", "executor", "stays"),
    [("threads", "python", True), ("solo", "python", True), ("prefork", "python", False), ("threads", "shell", False)],
)
def test_a_run_that_is_asked_to_stop_says_when_its_pool_cannot_kill_it(pool, executor, stays):
    worker = AWorker()
    Worker.objects.filter(pk=worker.name).update(pool=pool)
    parameters = {"argv": ["true"]} if executor == "shell" else {"function": "demo.noop"}
    permit = running(worker, executor=executor, parameters=parameters)
    assert not said(permit.run_id)[0].remedy, "nobody has asked"
    lifecycle.cancel([permit.run_id], by="ada", now=NOW)
    assert ("it returns or the worker's lease is over" in said(permit.run_id)[0].remedy) is stays
    late = running(worker, executor=executor, parameters=parameters, timeout_seconds=1)
    lifecycle.request_timeout_stops(now=NOW + timedelta(seconds=60), grace=timedelta(seconds=5))
    assert ("it returns or the worker's lease is over" in said(late.run_id)[0].remedy) is stays


def failed(**facts):
    permit = running(max_retries=2)
    lifecycle.finish([a_finish(permit, Outcome.FAILED, retryable=False, **facts)], now=NOW)
    return permit.run_id


def test_a_failed_run_says_the_line_of_its_error_that_says_most():
    [reason] = said(failed(error_message="Traceback (most recent call last):\n  File x\nValueError: the reason"))
    assert "ValueError: the reason" in reason.text
    assert "not one that is retried" in reason.remedy


def test_a_failed_run_without_an_error_says_so():
    [reason] = said(failed())
    assert "no reason was given" in reason.text


def test_a_failed_run_that_used_up_its_attempts_says_that():
    permit = running(max_retries=0)
    lifecycle.finish([a_finish(permit, Outcome.FAILED, error_message="boom")], now=NOW)
    [reason] = said(permit.run_id)
    assert reason.remedy == "No retry is left."


def test_a_skipped_run_says_for_what_reason():
    [run] = submitted(a_task())
    lifecycle.skip([run], reason="an earlier one still runs", now=NOW)
    [reason] = said(run)
    assert "an earlier one still runs" in reason.text


def test_a_dispatched_run_waits_at_the_broker():
    [run] = submitted()
    claimed(run)
    [reason] = said(run, NOW + timedelta(seconds=1))
    assert reason.code in {"at_broker", "broker_away"}
