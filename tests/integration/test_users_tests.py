"""`dispatch.testing`: what users see of their tasks in one process, with everything real but the boundaries between."""

from __future__ import annotations

import gc
import logging
import os
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from celery import current_app, shared_task, signals
from django.db import transaction

from dispatch import services as dispatch_services
from dispatch.testing import DELIVERIES_MAX, Platform
from tasks_app import results, services
from tasks_app.clock import clock
from tasks_app.definitions import TaskDefinition
from tasks_app.errors import InvalidTask
from tasks_app.models import PoisonReport, ScheduleFire
from workers_app import celery_signals, wiring
from workers_app.celery_app import celery_app
from workers_app.job import current_job
from workers_app.models import Worker

pytest_plugins = ["dispatch.pytest_plugin"]
pytestmark = pytest.mark.django_db

seen: list[Any] = []
#: What a test wants a body to do.
script: list[Any] = []


@shared_task(name="users.add")
def add(a: int, b: int) -> int:
    seen.append(current_job().idempotency_key)
    print(f"adding {a} and {b}")
    logging.getLogger("users").warning("added")
    return a + b


@shared_task(name="users.follow_script")
def follow_script() -> Any:
    step = script.pop(0)
    return step()


@shared_task(name="users.stubborn", bind=True, max_retries=9, default_retry_delay=30)
def stubborn(self: Any) -> str:
    seen.append(current_job().attempt)
    if current_job().attempt < 3:
        raise self.retry(exc=ValueError("not yet"))
    return "at last"


@shared_task(name="users.auto", autoretry_for=(KeyError,), retry_backoff=False, default_retry_delay=7)
def auto() -> int:
    if current_job().attempt == 1:
        raise KeyError("first")
    return current_job().attempt


@pytest.fixture(autouse=True)
def _fresh() -> None:
    seen.clear()
    script.clear()


def failing(text: str = "no luck") -> Any:
    def fail() -> None:
        raise RuntimeError(text)

    return fail


def test_a_run_goes_from_pending_to_completed_with_result_and_log(platform):
    platform.define("sum", "users.add", kwargs={"a": 1, "b": 1})
    run = platform.trigger("sum", {"kwargs": {"b": 2}})
    assert run.status == "PENDING"
    platform.run_until_idle()
    assert (run.status, run.result, run.retry_count, run.outcomes) == ("COMPLETED", 3, 0, ["COMPLETED"])
    assert "adding 1 and 2" in run.log
    assert "added" in run.log
    assert seen == [f"{run.id}:1"]


def test_a_failing_run_is_retried_when_its_wait_is_over_and_not_before(platform):
    script[:] = [failing(), failing(), lambda: "third time"]
    platform.define("odd", "users.follow_script", max_retries=2, retry_delay_seconds=10)
    run = platform.trigger("odd")
    platform.run_until_idle()
    assert (run.status, run.outcomes) == ("PENDING", ["FAILED"])
    platform.advance(9.9)
    assert run.outcomes == ["FAILED"]
    platform.advance(0.1)
    assert run.outcomes == ["FAILED", "FAILED"]
    platform.advance(20)
    assert (run.status, run.result, run.retry_count) == ("COMPLETED", "third time", 2)


def test_a_run_without_retries_left_has_failed_with_its_traceback(platform):
    script[:] = [failing(), failing("for good")]
    platform.define("odd", "users.follow_script", max_retries=1)
    run = platform.finish(platform.trigger("odd"))
    assert (run.status, run.outcomes) == ("FAILED", ["FAILED", "FAILED"])
    assert run.error_message.startswith("RuntimeError: for good")
    assert "Traceback" in run.error_message


def test_celerys_own_retries_become_the_runs(platform):
    platform.define("stubborn", "users.stubborn", max_retries=5)
    platform.define("auto", "users.auto", max_retries=1)
    run, other = platform.trigger("stubborn"), platform.trigger("auto")
    platform.advance(29)
    assert (run.outcomes, other.result) == (["FAILED"], 2)
    assert platform.finish(run).result == "at last"
    assert seen == [1, 2, 3]
    assert platform.now - run.attempts[0].ended_at == timedelta(seconds=60)


def test_a_result_may_hold_any_text_and_fails_no_run(platform):
    script[:] = [lambda: {"body": '{"x": "\\u0000"}', "nul": "a\x00b", "half": "\ud800", "far": "naïve ✓ 列车"}]
    platform.define("odd", "users.follow_script", max_retries=3)
    run = platform.finish(platform.trigger("odd"))
    assert (run.status, run.outcomes, run.error_message) == ("COMPLETED", ["COMPLETED"], "")
    assert run.result == {"body": '{"x": "\\u0000"}', "nul": "a\ufffdb", "half": "?", "far": "naïve ✓ 列车"}
    assert "naïve ✓ 列车" in results.whole(run.id)
    assert not PoisonReport.objects.exists()


def test_a_schedule_fires_at_each_nominal_time_while_time_passes(platform):
    began = platform.now
    platform.define("sum", "users.add", kwargs={"a": 1, "b": 1}, every_seconds=600)
    platform.advance(1800)
    runs = platform.runs("sum")
    assert [run.row.scheduled_at - began for run in runs] == [timedelta(minutes=n) for n in (10, 20, 30)]
    assert {run.status for run in runs} == {"COMPLETED"}
    assert not ScheduleFire.objects.filter(decision="skipped").exists()


def test_time_is_the_tests_own_everywhere_in_this_process(db):
    start = datetime(2031, 1, 1, tzinfo=UTC)
    with Platform(start=start) as platform:
        assert clock.now() == start
        platform.advance(5)
        assert clock.now() == platform.now == start + timedelta(seconds=5)
        with pytest.raises(ValueError, match="does not go back"):
            platform.advance(-1)
    assert clock.now().year != 2031


def test_a_body_that_outlasts_its_timeout_times_out_whether_it_asks_or_not(platform):
    platform.define("slow", "users.follow_script", timeout_seconds=60, max_retries=0)

    def asks() -> None:
        platform.advance(59)
        current_job().check_cancelled()
        platform.advance(2)
        current_job().check_cancelled()

    script[:] = [asks, lambda: platform.advance(61), lambda: platform.advance(59)]
    runs = [platform.finish(platform.trigger("slow")) for _ in range(3)]
    assert [run.status for run in runs] == ["TIMEOUT", "TIMEOUT", "COMPLETED"]


@pytest.mark.django_db(transaction=True)
def test_a_running_body_learns_that_it_was_cancelled(platform):
    platform.define("slow", "users.follow_script")

    def body() -> None:
        current_job().check_cancelled()
        dispatch_services.cancel_run(current_job().run_id, by="a test")
        seen.append(current_job().stop_requested())
        current_job().check_cancelled()

    script[:] = [body]
    run = platform.trigger("slow")
    platform.run_until_idle()
    assert (run.status, run.outcomes, seen) == ("CANCELLED", ["CANCELLED"], ["cancel"])


def test_a_waiting_run_can_be_cancelled_and_never_begins(platform):
    platform.define("sum", "users.add", kwargs={"a": 1, "b": 1})
    run = platform.trigger("sum")
    services.cancel_run(run.id)
    platform.run_until_idle()
    assert (run.status, seen) == ("CANCELLED", [])


def test_runs_that_bodies_and_other_code_submit_are_carried_out_too(platform):
    platform.define("sum", "users.add", kwargs={"a": 1, "b": 1})
    platform.define("parent", "users.follow_script")
    script[:] = [lambda: services.trigger(services.find_task("sum")).pk]
    with transaction.atomic():
        services.trigger(services.find_task("parent"))
    platform.run_until_idle()
    assert [run.status for run in platform.runs()] == ["COMPLETED", "COMPLETED"]
    assert platform.runs("parent")[0].result == platform.runs("sum")[0].id


def test_every_task_type_is_served_unless_the_test_names_them(platform):
    platform.define("a", "users.add", kwargs={"a": 1, "b": 1}, task_type="reports")
    first = platform.trigger("a")
    platform.run_until_idle()
    platform.define("b", "users.add", kwargs={"a": 1, "b": 1}, task_type="mail")
    second = platform.trigger("b")
    platform.run_until_idle()
    assert (first.status, second.status) == ("COMPLETED", "COMPLETED")


def test_without_a_worker_for_its_type_a_run_waits_and_finish_says_so(db):
    with Platform(task_types=["default"]) as platform:
        platform.define("a", "users.add", kwargs={"a": 1, "b": 1}, task_type="reports")
        run = platform.trigger("a")
        with pytest.raises(TimeoutError, match="is PENDING"):
            platform.finish(run)


def test_the_highest_priority_begins_first(platform):
    platform.define("sum", "users.add", kwargs={"a": 1, "b": 1})
    low, high = platform.trigger("sum", priority=1), platform.trigger("sum", priority=9)
    platform.run_until_idle()
    assert seen == [f"{high.id}:1", f"{low.id}:1"]


def test_a_shell_task_runs_for_real(platform):
    services.create_task(
        TaskDefinition(name="echo", executor="shell", parameters={"command": "echo $WORD", "shell": True})
    )
    run = platform.trigger("echo", {"env": {"WORD": "hello"}})
    platform.run_until_idle()
    assert (run.status, run.log) == ("COMPLETED", "hello\n")


def test_a_message_that_was_changed_on_its_way_starts_nothing(platform):
    platform.define("sum", "users.add", kwargs={"a": 1, "b": 1}, max_retries=0)
    run = platform.trigger("sum")
    publish = platform.broker.publish

    def forging(messages):
        for message in messages:
            message.headers["task"] = "users.follow_script"
        return publish(messages)

    platform.broker.publish = forging
    platform.run_until_idle()
    assert (run.status, seen, run.outcomes) == ("DISPATCHED", [], [])
    platform.broker.publish = publish
    platform.finish(run)
    assert (run.status, run.outcomes) == ("COMPLETED", ["COMPLETED"])


def test_a_lost_message_comes_again_and_uses_up_no_attempt(platform):
    platform.define("sum", "users.add", kwargs={"a": 1, "b": 1}, max_retries=0)
    run = platform.trigger("sum")
    take, platform.broker.take = platform.broker.take, lambda: platform.broker.queues.clear() or []
    platform.run_until_idle()
    assert run.status == "DISPATCHED"
    platform.broker.take = take
    assert platform.finish(run).status == "COMPLETED"
    assert (run.retry_count, run.row.dispatch_count) == (0, 2)


def test_a_function_that_does_not_exist_is_refused_when_it_is_defined(platform):
    with pytest.raises(InvalidTask, match=r"users\.add"):
        platform.define("typo", "users.ad")


def test_a_function_that_is_gone_when_its_run_begins_fails_with_a_reason(platform):
    platform.define("gone", "users.add", kwargs={"a": 1, "b": 1}, max_retries=0)
    run = platform.trigger("gone")
    task = current_app.tasks.pop("users.add")
    try:
        platform.run_until_idle()
    finally:
        current_app.tasks["users.add"] = task
    assert run.status == "FAILED"
    assert "'users.add' is not registered" in run.error_message


def test_an_exit_in_a_body_fails_the_run_and_ends_nothing_else(platform):
    script[:] = [lambda: exit(3)]
    platform.define("exits", "users.follow_script", max_retries=0)
    run = platform.trigger("exits")
    platform.run_until_idle()
    assert (run.status, run.error_message) == ("FAILED", "SystemExit: 3")


def test_the_failure_of_a_task_that_a_body_calls_is_not_the_bodys(platform):
    script.extend([lambda: [follow_script.apply().state, "went on"], failing()])
    platform.define("caller", "users.follow_script")
    run = platform.trigger("caller")
    platform.run_until_idle()
    assert (run.status, run.result) == ("COMPLETED", ["FAILURE", "went on"])


def test_a_failed_assertion_of_the_test_in_a_body_is_the_tests(platform):
    script[:] = [lambda: pytest.fail("by the test")]
    platform.define("asserts", "users.follow_script")
    platform.trigger("asserts")
    with pytest.raises(pytest.fail.Exception, match="by the test"):
        platform.run_until_idle()


def test_a_body_cannot_run_its_platform(platform):
    script[:] = [lambda: platform.run_until_idle()]
    platform.define("nested", "users.follow_script", max_retries=0)
    run = platform.trigger("nested")
    platform.run_until_idle()
    assert "a body cannot run the platform" in run.error_message


def test_what_never_comes_to_rest_is_told(platform, monkeypatch):
    monkeypatch.setattr("dispatch.testing.DELIVERIES_MAX", 5)
    assert DELIVERIES_MAX > 1000
    platform.define("chain", "users.follow_script")
    script[:] = [lambda: services.trigger(services.find_task("chain")).pk] * 9
    platform.trigger("chain")
    with pytest.raises(RuntimeError, match="do runs submit runs for ever"):
        platform.run_until_idle()


def test_nothing_of_it_stays_behind(db):
    task = current_app.tasks["users.add"]
    before, open_before = dict(vars(task)), set(os.listdir("/proc/self/fd"))
    assert "replace" not in before
    with Platform() as platform:
        platform.define("sum", "users.add", kwargs={"a": 1, "b": 1})
        platform.finish(platform.trigger("sum"))
        assert "replace" in vars(task)
        assert list(Worker.objects.values_list("name", flat=True)) == ["in-this-process"]
    assert dict(vars(task)) == before
    del platform
    gc.collect()
    assert set(os.listdir("/proc/self/fd")) <= open_before
    assert add(1, 2) == 3
    assert not PoisonReport.objects.exists()


@pytest.mark.parametrize("connected", [True, False], ids=["connected before", "connected by nobody"])
def test_celerys_signals_stay_connected_as_they_were(db, connected):
    used = (signals.task_failure, "task_failure"), (signals.task_retry, "task_retry")
    try:
        for signal, name in used:
            signal.disconnect(dispatch_uid=f"signalbox.{name}")
            if connected:
                signal.connect(getattr(celery_signals, name), weak=False, dispatch_uid=f"signalbox.{name}")
        before = [list(signal.receivers) for signal, _ in used]
        with Platform() as platform:
            script[:] = [failing("by the signal")]
            platform.define("odd", "users.follow_script", max_retries=0)
            assert "Traceback" in platform.finish(platform.trigger("odd")).error_message
        assert [list(signal.receivers) for signal, _ in used] == before
    finally:
        wiring.connect(celery_app())


@pytest.mark.django_db(transaction=True)
def test_it_works_on_committed_rows_as_well(platform):
    platform.define("sum", "users.add", kwargs={"a": 1, "b": 1}, every_seconds=60)
    run = platform.trigger("sum")
    platform.advance(120)
    assert [found.status for found in platform.runs()] == ["COMPLETED"] * 3
    assert run.result == 2
