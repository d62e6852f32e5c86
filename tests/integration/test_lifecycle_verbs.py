"""The contract of the lifecycle's verbs, on SQLite and on PostgreSQL: what moves, and what is refused."""

from __future__ import annotations

from datetime import timedelta
from uuid import uuid4

import pytest
from django.db import IntegrityError, transaction

from tasks_app import lifecycle, services
from tasks_app.lifecycle import HandBack, PermitAsk, Permitted, Refused
from tasks_app.lifecycle.recede import Held
from tasks_app.models import RunEvent, TaskRun, TaskRunAttempt
from tasks_app.states import FINAL, Outcome, RunStatus
from tests.integration.domain import (
    LATER,
    NOW,
    AWorker,
    a_finish,
    a_run_in,
    a_task,
    claimed,
    running,
    status_of,
    submitted,
)

pytestmark = pytest.mark.django_db

S = RunStatus
WITHIN = timedelta(seconds=60)


def events_of(run_id: int) -> list[str]:
    return list(RunEvent.objects.filter(run_id=run_id).order_by("id").values_list("kind", flat=True))


# -- submit ---------------------------------------------------------------------------------------------------------


def test_submitted_runs_are_pending_in_the_order_given_with_the_tasks_settings():
    task = a_task(priority=7, max_retries=4, timeout_seconds=9)
    ids = lifecycle.submit(
        [lifecycle.NewRun(task, {"n": n}, NOW, priority=None if n else 2) for n in range(3)], now=NOW
    )
    runs = [TaskRun.objects.get(pk=pk) for pk in ids]
    assert [run.parameters for run in runs] == [{"n": 0}, {"n": 1}, {"n": 2}]
    assert [run.priority for run in runs] == [2, 7, 7]
    assert {(run.status, run.attempt, run.max_retries, run.timeout_seconds) for run in runs} == {("PENDING", 1, 4, 9)}


def test_a_triggered_run_is_told_as_it_was_written():
    task = a_task(name="told", max_retries=2, priority=7)
    told = services.trigger(task, parameters_over={"kwargs": {"a": ["ä", 1.5]}}, lane="x", by="ada", priority=3)
    written = TaskRun.objects.get(pk=told.pk)
    names = [field.attname for field in TaskRun._meta.concrete_fields]
    assert {name: getattr(told, name) for name in names} == {name: getattr(written, name) for name in names}
    assert told.task == task
    told.delete()
    assert not TaskRun.objects.filter(pk=written.pk).exists()


def test_runs_of_a_transaction_that_rolls_back_do_not_exist():
    task = a_task()

    def fail_after_submitting() -> None:
        with transaction.atomic():
            submitted(task)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_after_submitting()
    assert TaskRun.objects.filter(task=task).count() == 0


# -- claim ----------------------------------------------------------------------------------------------------------


def test_claim_gives_each_run_a_token_of_its_own_and_a_time_limit_best_first():
    task = a_task()
    low = submitted(task, priority=1)
    high = submitted(task, priority=9, count=2)
    runs = claimed(*low, *high)
    assert [run.id for run in runs] == [*high, *low]
    rows = {row.pk: row for row in TaskRun.objects.filter(pk__in=[*low, *high])}
    assert all(rows[run.id].token == run.token for run in runs)
    assert len({run.token for run in runs}) == 3
    assert {(r.status, r.dispatch_count, r.permit_by) for r in rows.values()} == {("DISPATCHED", 1, NOW + WITHIN)}


@pytest.mark.parametrize("status", [s for s in S if s is not S.PENDING])
def test_claim_takes_nothing_that_is_not_pending(status: RunStatus):
    run = a_run_in(status)
    assert claimed(run.pk) == []
    assert status_of(run.pk) == status.value


# -- permit ---------------------------------------------------------------------------------------------------------


def test_permit_moves_to_running_and_carries_the_authoritative_facts():
    worker = AWorker()
    [run] = claimed(*submitted(a_task(timeout_seconds=30, parameters={"function": "a.b"})))
    [permit] = worker.permitted(run, now=LATER)
    row = TaskRun.objects.get(pk=run.id)
    assert permit.parameters == {"function": "a.b"}
    assert permit.deadline_at == row.deadline_at == LATER + timedelta(seconds=30)
    assert (row.status, row.worker_id, row.incarnation_id, row.nonce) == (
        "RUNNING", worker.name, worker.incarnation.pk, permit.nonce,
    )  # fmt: skip


def test_asking_again_with_the_same_nonce_gives_the_same_answer():
    worker = AWorker()
    [run] = claimed(*submitted())
    ask = PermitAsk(run.id, run.token, uuid4())
    [first] = lifecycle.permit([ask], worker.holder, now=NOW)
    [second] = lifecycle.permit([ask], worker.holder, now=LATER)
    assert isinstance(first, Permitted)
    assert second == first


def test_a_duplicated_delivery_with_another_nonce_is_refused():
    worker = AWorker()
    [run] = claimed(*submitted())
    [first] = worker.permit(run)
    [second] = worker.permit(run)
    assert isinstance(first, Permitted)
    assert isinstance(second, Refused)
    assert second.reason == "stale"


def test_one_of_two_deliveries_in_the_same_batch_is_permitted():
    worker = AWorker()
    [run] = claimed(*submitted())
    answers = worker.permit(run, run)
    assert sorted(type(answer).__name__ for answer in answers) == ["Permitted", "Refused"]
    assert TaskRun.objects.get(pk=run.id).nonce in {a.nonce for a in answers if isinstance(a, Permitted)}


def test_many_permits_are_answered_in_the_order_asked():
    worker = AWorker()
    runs = claimed(*submitted(count=5))
    backwards = runs[::-1]
    assert [permit.run_id for permit in worker.permitted(*backwards)] == [run.id for run in backwards]


def test_a_permit_with_an_old_token_is_refused():
    worker = AWorker()
    [run_id] = submitted()
    [old] = claimed(run_id)
    lifecycle.unpublish([(old.id, old.token)], now=NOW, reason="test")
    [new] = claimed(run_id)
    [answer] = worker.permit(old)
    assert isinstance(answer, Refused)
    assert answer.reason == "stale"
    assert status_of(run_id) == "DISPATCHED"
    worker.permitted(new)


def test_a_permit_for_an_unknown_run_is_refused():
    [run] = claimed(*submitted())
    [answer] = AWorker().permit(run._replace(id=run.id + 1000))
    assert isinstance(answer, Refused)
    assert answer.reason == "unknown"


def test_no_permit_is_given_after_a_cancel():
    [run] = claimed(*submitted())
    lifecycle.cancel([run.id], by="me", now=NOW)
    [answer] = AWorker().permit(run)
    assert isinstance(answer, Refused)
    assert answer.reason == "cancelled"


def test_no_permit_is_given_to_an_incarnation_whose_lease_is_over():
    worker = AWorker()
    [run] = claimed(*submitted())
    worker.over()
    [answer] = worker.permit(run)
    assert isinstance(answer, Refused)
    assert answer.reason == "lease_over"
    assert status_of(run.id) == "DISPATCHED"


def test_asking_again_is_refused_when_the_lease_was_judged_over_in_between():
    worker = AWorker()
    [run] = claimed(*submitted())
    ask = PermitAsk(run.id, run.token, uuid4())
    [first] = lifecycle.permit([ask], worker.holder, now=NOW)
    assert isinstance(first, Permitted)
    worker.over()
    [again] = lifecycle.permit([ask], worker.holder, now=NOW)
    assert again == Refused(run.id, ask.nonce, "lease_over")
    assert status_of(run.id) == "RUNNING"  # to be ended by the reaper


def test_a_permit_asked_again_after_a_cancel_says_that_a_stop_is_wanted():
    worker = AWorker()
    [run] = claimed(*submitted())
    ask = PermitAsk(run.id, run.token, uuid4())
    lifecycle.permit([ask], worker.holder, now=NOW)
    lifecycle.cancel([run.id], by="me", now=NOW)
    [again] = lifecycle.permit([ask], worker.holder, now=NOW)
    assert isinstance(again, Permitted)
    assert again.stop_reason == "cancel"


@pytest.mark.parametrize("status", [s for s in S if s is not S.DISPATCHED])
def test_no_permit_from_any_state_but_dispatched(status: RunStatus):
    run = a_run_in(status)
    ask = PermitAsk(run.pk, run.token or uuid4(), uuid4())
    [answer] = lifecycle.permit([ask], AWorker().holder, now=NOW)
    assert isinstance(answer, Refused)
    assert status_of(run.pk) == status.value


# -- finish ---------------------------------------------------------------------------------------------------------


def test_a_finish_ends_the_run_and_writes_the_attempt_and_the_event():
    permit = running()
    result = lifecycle.finish(
        [a_finish(permit, result_json='{"n": 1}', duration_ms=12, started_at=NOW, ended_at=NOW)], now=LATER
    )
    run = TaskRun.objects.get(pk=permit.run_id)
    attempt = TaskRunAttempt.objects.get(run=run)
    assert [end.next.status for end in result.ended] == [S.COMPLETED]
    assert (run.status, run.result, run.completed_at, run.execution_duration_ms) == ("COMPLETED", {"n": 1}, NOW, 12)
    assert (attempt.number, attempt.status, attempt.token, attempt.nonce) == (
        1,
        "COMPLETED",
        permit.token,
        permit.nonce,
    )
    assert events_of(run.pk) == ["attempt_ended"]


def test_the_same_finish_twice_changes_nothing_the_second_time():
    permit = running()
    lifecycle.finish([a_finish(permit)], now=NOW)
    again = lifecycle.finish([a_finish(permit, Outcome.FAILED)], now=LATER)
    assert len(again.stale) == 1
    assert TaskRunAttempt.objects.filter(run_id=permit.run_id).count() == 1
    assert status_of(permit.run_id) == "COMPLETED"


def test_two_finishes_of_one_attempt_in_a_batch_count_once():
    permit = running()
    result = lifecycle.finish([a_finish(permit), a_finish(permit, Outcome.FAILED)], now=NOW)
    assert (len(result.ended), len(result.stale)) == (1, 1)
    assert status_of(permit.run_id) == "COMPLETED"


@pytest.mark.parametrize("wrong", ["token", "attempt", "nonce", "run"])
def test_a_finish_with_something_wrong_is_stale(wrong: str):
    permit = running()
    report = a_finish(
        permit,
        **({"token": uuid4()} if wrong == "token" else {}),
        **({"nonce": uuid4()} if wrong == "nonce" else {}),
    )
    if wrong == "attempt":
        report = type(report)(permit.run_id, 2, permit.token, Outcome.COMPLETED)
    if wrong == "run":
        report = type(report)(permit.run_id + 1000, 1, permit.token, Outcome.COMPLETED)
    assert lifecycle.finish([report], now=NOW).stale == [report]
    assert status_of(permit.run_id) == "RUNNING"


def test_a_finish_with_the_right_token_counts_when_the_database_forgot_the_permit():
    [run] = claimed(*submitted())
    report = lifecycle.Finished(
        run.id, 1, run.token, Outcome.COMPLETED, nonce=uuid4(), worker_id="w", incarnation_id=uuid4()
    )
    assert len(lifecycle.finish([report], now=NOW).ended) == 1
    assert TaskRun.objects.get(pk=run.id).worker_id == "w"


@pytest.mark.parametrize("status", [s for s in S if s not in {S.DISPATCHED, S.RUNNING}])
def test_a_finish_moves_nothing_that_is_not_in_flight(status: RunStatus):
    run = a_run_in(status)
    before = TaskRun.objects.values().get(pk=run.pk)
    report = lifecycle.Finished(run.pk, run.attempt, run.token or uuid4(), Outcome.COMPLETED, nonce=run.nonce)
    assert lifecycle.finish([report], now=LATER).stale == [report]
    assert TaskRun.objects.values().get(pk=run.pk) == before


def test_a_failed_attempt_is_tried_again_later_with_nothing_left_of_the_old_holder():
    permit = running(max_retries=1, retry_delay_seconds=10)
    lifecycle.finish([a_finish(permit, Outcome.FAILED, error_message="no")], now=NOW)
    run = TaskRun.objects.get(pk=permit.run_id)
    assert (run.status, run.attempt, run.token, run.nonce, run.incarnation_id, run.worker_id) == (
        "PENDING", 2, None, None, None, "",
    )  # fmt: skip
    assert NOW <= run.due_at <= NOW + timedelta(seconds=10)
    assert TaskRunAttempt.objects.get(run=run).status == "FAILED"


def test_retry_after_decides_the_delay():
    permit = running(max_retries=1)
    lifecycle.finish([a_finish(permit, Outcome.FAILED, retry_after_seconds=77.0)], now=NOW)
    assert TaskRun.objects.get(pk=permit.run_id).due_at == NOW + timedelta(seconds=77)


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.TIMEOUT, Outcome.LOST])
def test_without_retries_left_the_outcome_is_final(outcome: Outcome):
    permit = running(max_retries=0)
    lifecycle.finish([a_finish(permit, outcome)], now=NOW)
    assert status_of(permit.run_id) == outcome.value


def test_a_cancel_that_was_asked_for_wins_over_a_retry():
    permit = running(max_retries=5)
    lifecycle.cancel([permit.run_id], by="me", now=NOW)
    lifecycle.finish([a_finish(permit, Outcome.FAILED)], now=NOW)
    assert status_of(permit.run_id) == "CANCELLED"
    assert TaskRunAttempt.objects.get(run_id=permit.run_id).status == "CANCELLED"


def test_a_body_that_completed_in_spite_of_a_cancel_is_completed():
    permit = running()
    lifecycle.cancel([permit.run_id], by="me", now=NOW)
    lifecycle.finish([a_finish(permit)], now=NOW)
    assert status_of(permit.run_id) == "COMPLETED"


def test_a_run_that_takes_workers_down_is_quarantined_and_goes_on_after_release():
    worker = AWorker()
    [run_id] = submitted(a_task(max_retries=9, quarantine_after=2))
    for _ in range(2):
        [permit] = worker.permitted(*claimed(run_id))
        lifecycle.finish([a_finish(permit, Outcome.LOST)], now=NOW)
    run = TaskRun.objects.get(pk=run_id)
    assert (run.status, run.crash_count, run.attempt, run.completed_at) == ("QUARANTINED", 2, 3, None)
    assert lifecycle.release([run_id], by="me", now=NOW) == [run_id]
    run.refresh_from_db()
    assert (run.status, run.crash_count, run.attempt) == ("PENDING", 0, 3)


# -- going back -----------------------------------------------------------------------------------------------------


def test_what_was_not_published_is_pending_again_at_the_same_attempt():
    runs = claimed(*submitted(count=3))
    moved = lifecycle.unpublish([(run.id, run.token) for run in runs], now=NOW, reason="no confirm")
    rows = TaskRun.objects.filter(pk__in=moved)
    assert {(r.status, r.attempt, r.token, r.permit_by) for r in rows} == {("PENDING", 1, None, None)}
    assert len(rows) == 3


def test_a_delivery_that_holds_a_permit_is_handed_back_by_its_nonce_alone():
    permit = running()
    wrong = HandBack(permit.run_id, permit.token, uuid4(), "drain")
    without = HandBack(permit.run_id, permit.token, None, "drain")
    assert lifecycle.hand_back([wrong, without], now=NOW) == []
    assert lifecycle.hand_back([HandBack(permit.run_id, permit.token, permit.nonce, "drain")], now=NOW) == [
        permit.run_id
    ]
    run = TaskRun.objects.get(pk=permit.run_id)
    assert (run.status, run.attempt, run.incarnation_id) == ("PENDING", 1, None)
    assert not TaskRunAttempt.objects.filter(run=run).exists()


def test_handing_back_a_run_that_is_to_be_cancelled_cancels_it():
    permit = running()
    lifecycle.cancel([permit.run_id], by="me", now=NOW)
    lifecycle.hand_back([HandBack(permit.run_id, permit.token, permit.nonce, "drain")], now=NOW)
    run = TaskRun.objects.get(pk=permit.run_id)
    assert (run.status, run.completed_at) == ("CANCELLED", NOW)


def test_handing_back_with_a_wrong_token_or_twice_moves_nothing():
    [run] = claimed(*submitted())
    assert lifecycle.hand_back([HandBack(run.id, uuid4(), None, "x")], now=NOW) == []
    twice = [HandBack(run.id, run.token, None, "x")] * 2
    assert lifecycle.hand_back(twice, now=NOW) == [run.id]
    assert events_of(run.id) == ["handed_back"]


@pytest.mark.parametrize("status", [s for s in S if s not in {S.DISPATCHED, S.RUNNING}])
def test_nothing_is_handed_back_that_is_not_in_flight(status: RunStatus):
    run = a_run_in(status)
    assert lifecycle.hand_back([HandBack(run.pk, run.token or uuid4(), run.nonce, "x")], now=NOW) == []
    assert status_of(run.pk) == status.value


# -- the worker's lists ---------------------------------------------------------------------------------------------


def held(permit: Permitted) -> Held:
    return Held(permit.run_id, permit.attempt, permit.token, permit.nonce)


def test_a_permit_that_the_database_forgot_is_given_again_when_the_worker_holds_it():
    worker = AWorker()
    [run] = claimed(*submitted())
    answered = Held(run.id, run.attempt, run.token, uuid4())
    said = lifecycle.reassert(worker.holder, [answered], [], [], now=NOW)
    row = TaskRun.objects.get(pk=run.id)
    assert said.void == set()
    assert (row.status, row.nonce, row.incarnation_id) == ("RUNNING", answered.nonce, worker.incarnation.pk)


def test_a_registered_nonce_proves_no_permit():
    worker = AWorker()
    [run] = claimed(*submitted())
    lifecycle.reassert(worker.holder, [], [], [uuid4()], now=NOW)
    assert status_of(run.id) == "DISPATCHED"


def test_what_another_worker_holds_is_void():
    mine, other = AWorker(), AWorker()
    [run] = claimed(*submitted())
    [permit] = other.permitted(run)
    stale = Held(run.id, 1, uuid4(), uuid4())
    same_token_other_nonce = Held(run.id, 1, permit.token, uuid4())
    said = lifecycle.reassert(mine.holder, [stale, same_token_other_nonce], [], [], now=NOW)
    assert said.void == {stale.nonce, same_token_other_nonce.nonce}


def test_stops_are_told_a_cancel_before_a_timeout():
    worker = AWorker()
    late, unwanted = running(worker, timeout_seconds=1), running(worker, timeout_seconds=1)
    lifecycle.cancel([unwanted.run_id], by="me", now=NOW)
    lifecycle.request_timeout_stops(now=LATER, grace=timedelta(seconds=1))
    said = lifecycle.reassert(worker.holder, [held(late), held(unwanted)], [], [], now=NOW)
    assert said.stops == {late.nonce: "timeout", unwanted.nonce: "cancel"}


def test_a_finished_attempt_is_recorded_once_its_end_is_written_and_not_before():
    worker = AWorker()
    permit = running(worker)
    assert lifecycle.reassert(worker.holder, [], [held(permit)], [], now=NOW).recorded == set()
    lifecycle.finish([a_finish(permit)], now=NOW)
    assert lifecycle.reassert(worker.holder, [], [held(permit)], [], now=NOW).recorded == {permit.nonce}


def test_a_run_on_no_list_is_named_unknown_unless_a_child_has_registered():
    worker = AWorker()
    permit = running(worker)
    assert [u.run_id for u in lifecycle.reassert(worker.holder, [], [], [], now=NOW).unknown] == [permit.run_id]
    assert lifecycle.reassert(worker.holder, [], [], [permit.nonce], now=NOW).unknown == []


# -- cancel, skip, release --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [S.PENDING, S.DISPATCHED, S.QUARANTINED])
def test_what_does_not_run_is_cancelled_at_once(status: RunStatus):
    run = a_run_in(status)
    assert lifecycle.cancel([run.pk], by="me", now=NOW).cancelled == [run.pk]
    run.refresh_from_db()
    assert (run.status, run.completed_at, run.cancel_requested_by) == ("CANCELLED", NOW, "me")


def test_what_runs_is_asked_to_stop_and_holds_its_slot():
    worker = AWorker()
    permit = running(worker)
    answer = lifecycle.cancel([permit.run_id], by="me", now=NOW)
    again = lifecycle.cancel([permit.run_id], by="you", now=LATER)
    run = TaskRun.objects.get(pk=permit.run_id)
    assert answer.requested == again.requested == [(permit.run_id, worker.name)]
    assert (run.status, run.cancel_requested_by, run.cancel_requested_at) == ("RUNNING", "me", NOW)


@pytest.mark.parametrize("status", sorted(FINAL))
def test_a_final_state_is_never_left_by_any_verb(status: RunStatus):
    run = a_run_in(status)
    before = TaskRun.objects.values().get(pk=run.pk)
    token, nonce = run.token or uuid4(), run.nonce or uuid4()
    assert lifecycle.cancel([run.pk], by="me", now=LATER).stale == [run.pk]
    assert lifecycle.skip([run.pk], reason="x", now=LATER) == []
    assert lifecycle.release([run.pk], by="me", now=LATER) == []
    assert claimed(run.pk) == []
    lifecycle.finish([lifecycle.Finished(run.pk, run.attempt, token, Outcome.FAILED, nonce=nonce)], now=LATER)
    lifecycle.hand_back([HandBack(run.pk, token, nonce, "x")], now=LATER)
    lifecycle.reassert(AWorker().holder, [Held(run.pk, run.attempt, token, nonce)], [], [], now=LATER)
    lifecycle.retract_unpermitted(now=LATER + timedelta(days=1))
    lifecycle.request_timeout_stops(now=LATER + timedelta(days=1), grace=timedelta(0))
    if run.incarnation_id:
        lifecycle.lose([run.incarnation_id], now=LATER)
    assert TaskRun.objects.values().get(pk=run.pk) == before


@pytest.mark.parametrize("status", [s for s in S if s is not S.PENDING])
def test_only_what_is_pending_is_skipped(status: RunStatus):
    run = a_run_in(status)
    assert lifecycle.skip([run.pk], reason="x", now=NOW) == []
    assert status_of(run.pk) == status.value


@pytest.mark.parametrize("status", [s for s in S if s is not S.QUARANTINED])
def test_only_what_is_quarantined_is_released(status: RunStatus):
    run = a_run_in(status)
    assert lifecycle.release([run.pk], by="me", now=NOW) == []
    assert status_of(run.pk) == status.value


def test_unknown_ids_are_stale_for_cancel_and_nothing_for_the_others():
    assert lifecycle.cancel([10**9], by="me", now=NOW).stale == [10**9]
    assert lifecycle.skip([10**9], reason="x", now=NOW) == []
    assert lifecycle.release([10**9], by="me", now=NOW) == []


# -- the reaper's verbs -----------------------------------------------------------------------------------------------


def test_lose_ends_only_what_the_dead_incarnation_holds():
    dead, alive = AWorker(), AWorker()
    lost, kept = running(dead), running(alive)
    dead.over()
    ended = lifecycle.lose([dead.incarnation.pk], now=NOW)
    assert [end.before.id for end in ended] == [lost.run_id]
    assert status_of(kept.run_id) == "RUNNING"
    attempt = TaskRunAttempt.objects.get(run_id=lost.run_id)
    assert (attempt.status, attempt.error_type, attempt.incarnation_id) == ("LOST", "WorkerLost", dead.incarnation.pk)
    assert status_of(lost.run_id) == "PENDING"


def test_lose_takes_at_most_its_limit():
    dead = AWorker()
    for _ in range(3):
        running(dead)
    assert len(lifecycle.lose([dead.incarnation.pk], now=NOW, limit=2)) == 2
    assert len(lifecycle.lose([dead.incarnation.pk], now=NOW, limit=2)) == 1
    assert lifecycle.lose([dead.incarnation.pk], now=NOW, limit=2) == []


def test_an_attempt_that_was_asked_to_stop_for_its_deadline_is_lost_as_a_timeout():
    dead = AWorker()
    permit = running(dead, timeout_seconds=1, max_retries=0)
    lifecycle.request_timeout_stops(now=LATER, grace=timedelta(0))
    lifecycle.lose([dead.incarnation.pk], now=LATER)
    assert status_of(permit.run_id) == "TIMEOUT"


def test_a_lost_attempt_that_was_to_be_cancelled_is_cancelled():
    dead = AWorker()
    permit = running(dead)
    lifecycle.cancel([permit.run_id], by="me", now=NOW)
    lifecycle.lose([dead.incarnation.pk], now=NOW)
    assert status_of(permit.run_id) == "CANCELLED"


def test_a_report_of_a_lost_attempt_comes_too_late():
    dead = AWorker()
    permit = running(dead)
    lifecycle.lose([dead.incarnation.pk], now=NOW)
    assert len(lifecycle.finish([a_finish(permit)], now=LATER).stale) == 1
    assert status_of(permit.run_id) == "PENDING"


def test_what_was_not_permitted_in_time_is_pending_again_and_its_old_message_is_void():
    worker = AWorker()
    [late] = claimed(*submitted())
    [in_time] = claimed(*submitted(), now=LATER)
    assert lifecycle.retract_unpermitted(now=NOW + timedelta(seconds=61)) == [late.id]
    row = TaskRun.objects.get(pk=late.id)
    assert (row.status, row.attempt, row.token) == ("PENDING", 1, None)
    assert status_of(in_time.id) == "DISPATCHED"
    [answer] = worker.permit(late)
    assert isinstance(answer, Refused)


def test_a_permitted_run_is_not_retracted():
    permit = running()
    assert lifecycle.retract_unpermitted(now=NOW + timedelta(days=1)) == []
    assert status_of(permit.run_id) == "RUNNING"


def test_a_stop_is_asked_for_once_after_deadline_and_grace():
    worker = AWorker()
    permit = running(worker, timeout_seconds=10)
    grace = timedelta(seconds=5)
    assert lifecycle.request_timeout_stops(now=NOW + timedelta(seconds=14), grace=grace) == []
    assert lifecycle.request_timeout_stops(now=NOW + timedelta(seconds=16), grace=grace) == [
        (permit.run_id, worker.name)
    ]
    assert lifecycle.request_timeout_stops(now=NOW + timedelta(seconds=17), grace=grace) == []
    assert status_of(permit.run_id) == "RUNNING"


# -- the database agrees ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values",
    [
        {"status": "COMPLETED"},
        {"completed_at": NOW},
        {"status": "DISPATCHED"},
        {"status": "RUNNING", "token": uuid4()},
        {"status": "NONSENSE"},
        {"attempt": 0},
        {"priority": 10},
    ],
)
def test_the_database_refuses_rows_that_the_diagram_does_not_know(values: dict[str, object]):
    [run_id] = submitted()
    with pytest.raises(IntegrityError), transaction.atomic():
        TaskRun.objects.filter(pk=run_id).update(**values)
