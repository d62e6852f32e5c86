"""The dispatcher's rounds: what is claimed, what is published, what comes back, and what is explained."""

from __future__ import annotations

import threading
import time
from datetime import timedelta
from typing import Any

import pytest
from django.db import OperationalError, connection, connections

from dispatch import broker_probe
from dispatch.blockers import unblocked
from dispatch.broker.memory import MemoryBroker
from dispatch.claiming import Claiming
from dispatch.conf import DispatchSettings
from dispatch.dispatcher import Dispatcher
from dispatch.why import blockers_of
from tasks_app import lifecycle
from tasks_app.messages.execution import queue_for
from tasks_app.models import Queue, Task, TaskRun
from tasks_app.states import RunStatus
from tests.integration.domain import LATER, NOW, AWorker, FixedClock, a_run_in, a_task, claimed, status_of, submitted
from workers_app.models import Worker

pytestmark = pytest.mark.django_db


class Bench:
    """A dispatcher on a broker in memory."""

    def __init__(self, **settings: Any) -> None:
        self.broker = MemoryBroker()
        self.clock = FixedClock()
        self.dispatcher = Dispatcher(self.clock, self.broker, DispatchSettings(**settings))

    def tick(self) -> Any:
        return self.dispatcher.tick(self.clock.now())

    def published(self, task_type: str = "default") -> list[int]:
        return [message.run_id for message in self.broker.queues.get(queue_for(task_type), ())]


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture
def reachable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker_probe, "unreachable", lambda: None)


def codes(run_id: int) -> list[str]:
    return [reason.code for reason in blockers_of(TaskRun.objects.select_related("task").get(pk=run_id), NOW)]


# -- claims -----------------------------------------------------------------------------------------------------------


def test_due_runs_are_published_as_far_as_there_is_credit_best_first(bench: Bench):
    AWorker(slots=2)
    low, high = submitted(count=3, priority=1), submitted(count=3, priority=8)
    assert bench.tick().published == 4
    assert bench.published() == [*high, low[0]]
    assert [status_of(pk) for pk in low] == ["DISPATCHED", "PENDING", "PENDING"]


def test_nothing_is_claimed_without_a_worker(bench: Bench):
    submitted()
    assert bench.tick().claimed == 0


def test_each_task_type_has_its_own_credit(bench: Bench):
    AWorker(slots=1, task_types=("a",))
    AWorker(slots=2, task_types=("b",))
    for kind in "ab":
        submitted(a_task(task_type=kind), count=9)
    bench.tick()
    assert (len(bench.published("a")), len(bench.published("b"))) == (2, 4)


def test_slots_of_draining_and_lost_workers_are_no_credit(bench: Bench):
    over, leaving, told = AWorker(), AWorker(), AWorker()
    over.over()
    leaving.incarnation.draining = True
    leaving.incarnation.save()
    Worker.objects.filter(pk=told.name).update(draining_since=NOW)
    submitted()
    assert bench.tick().claimed == 0


def test_runs_that_are_not_due_or_whose_task_is_paused_or_deleted_stay(bench: Bench):
    AWorker(slots=9)
    [later] = submitted(due_at=LATER)
    paused, deleted = a_task(), a_task()
    [held], [gone], [free] = submitted(paused), submitted(deleted), submitted()
    Task.objects.filter(pk=paused.pk).update(paused_at=NOW)
    Task.objects.filter(pk=deleted.pk).update(deleted_at=NOW)
    bench.tick()
    assert bench.published() == [free]
    assert [status_of(pk) for pk in (later, held, gone)] == ["PENDING"] * 3


def test_a_run_that_becomes_due_is_waited_for_to_the_millisecond(bench: Bench):
    AWorker()
    submitted(due_at=NOW + timedelta(milliseconds=40))
    assert bench.tick().wait_seconds == pytest.approx(0.041, abs=0.002)


def test_a_task_type_without_a_queue_row_gets_one(bench: Bench):
    AWorker()
    [run_id] = submitted()
    Queue.objects.all().delete()
    bench.tick()
    assert bench.published() == [run_id]


def test_a_round_takes_no_more_than_its_batch_and_says_that_there_is_more():
    AWorker(slots=50)
    submitted(count=30)
    bench = Bench(claim_batch_max=10)
    assert (bench.tick().claimed, bench.tick().claimed) == (10, 10)
    assert bench.tick().wait_seconds == 0.0


def test_a_run_without_a_message_ends_as_failed_and_the_others_go_out(bench: Bench):
    AWorker()
    odd, good = submitted(a_task(executor="nonsense"))[0], submitted()[0]
    bench.tick()
    assert bench.published() == [good]
    run = TaskRun.objects.get(pk=odd)
    assert run.status == "FAILED"
    assert "nonsense" in run.error_message


# -- the broker on bad days -------------------------------------------------------------------------------------------


def test_what_the_broker_does_not_take_is_pending_again_with_no_attempt_used(bench: Bench):
    AWorker()
    [run_id] = submitted()
    bench.broker.away = True
    assert bench.tick().returned == 1
    run = TaskRun.objects.get(pk=run_id)
    assert (run.status, run.attempt, run.token) == ("PENDING", 1, None)


def test_while_the_broker_is_away_nothing_is_claimed_and_afterwards_everything(bench: Bench):
    AWorker()
    [run_id] = submitted()
    bench.broker.away = True
    bench.tick()
    before = TaskRun.objects.get(pk=run_id).dispatch_count
    for _ in range(5):
        assert bench.tick().claimed == 0
    assert TaskRun.objects.get(pk=run_id).dispatch_count == before
    bench.broker.away = False
    wait_for(lambda: bench.tick().published == 1)


def test_a_message_that_got_through_without_its_confirm_starts_nothing(bench: Bench):
    worker = AWorker()
    [run_id] = submitted()
    bench.broker.deaf = True
    bench.tick()
    [message] = bench.broker.queues[queue_for("default")]
    [answer] = lifecycle.permit(
        [lifecycle.PermitAsk(message.run_id, message.token, message.token)], worker.holder, now=NOW
    )
    assert isinstance(answer, lifecycle.Refused)
    assert status_of(run_id) == "PENDING"


def test_a_queue_that_takes_nothing_does_not_hold_up_the_others(bench: Bench):
    AWorker(slots=4, task_types=("bad", "good"))
    [bad] = submitted(a_task(task_type="bad"))
    good = submitted(a_task(task_type="good"), count=2)
    bench.broker.unroutable.add(queue_for("bad"))
    bench.tick()
    assert (bench.published("good"), status_of(bad)) == (good, "PENDING")
    more = submitted(a_task(task_type="good"))
    assert bench.tick().claimed == 1
    assert bench.published("good") == [*good, *more]
    bench.broker.unroutable.clear()
    wait_for(lambda: bench.tick().published == 1)


def test_what_cannot_be_taken_back_now_is_taken_back_later(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    AWorker()
    [run_id] = submitted()
    bench.broker.away = True
    real = lifecycle.unpublish

    def away(*_: Any, **__: Any) -> Any:
        raise OperationalError("away")

    monkeypatch.setattr("dispatch.dispatcher.lifecycle.unpublish", away)
    with pytest.raises(OperationalError):
        bench.tick()
    assert status_of(run_id) == "DISPATCHED"
    monkeypatch.setattr("dispatch.dispatcher.lifecycle.unpublish", real)
    bench.tick()
    assert status_of(run_id) == "PENDING"


def test_a_round_that_fails_does_not_end_the_loop(monkeypatch: pytest.MonkeyPatch):
    bench = Bench()
    rounds = []

    def failing(_now: Any) -> Any:
        rounds.append(1)
        if len(rounds) == 3:
            bench.dispatcher.stop()
        raise OperationalError("away") if len(rounds) % 2 else RuntimeError("defect")

    monkeypatch.setattr(bench.dispatcher, "tick", failing)
    monkeypatch.setattr("dispatch.dispatcher.connection.close", lambda: None)
    bench.dispatcher.run()
    assert len(rounds) == 3


def wait_for(condition: Any, seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# -- several dispatchers ----------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
@pytest.mark.postgresql_only
def test_two_dispatchers_never_spend_the_same_credit_or_claim_a_run_twice():
    AWorker(slots=10)
    submitted(count=200)
    taken: list[int] = []
    errors: list[BaseException] = []
    start = threading.Barrier(3)

    def dispatch() -> None:
        try:
            claiming = Claiming(batch_max=500, per_slot_max=64, permit_within=timedelta(seconds=60))
            start.wait()
            for _ in range(20):
                taken.extend(run.id for run in claiming.round(NOW, 0.0).claimed)
        except BaseException as error:
            errors.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=dispatch) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(taken) == len(set(taken)) == 20


@pytest.mark.django_db(transaction=True)
@pytest.mark.postgresql_only
def test_a_dispatcher_that_stands_still_in_its_transaction_holds_up_no_other_queue():
    AWorker(slots=2, task_types=("a", "b"))
    for kind in "ab":
        submitted(a_task(task_type=kind))
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        from django.db import transaction

        with transaction.atomic():
            Queue.objects.select_for_update().get(pk="a")
            held.set()
            done.wait(10)
        connection.close()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(10)
    claiming = Claiming(batch_max=500, per_slot_max=64, permit_within=timedelta(seconds=60))
    found = claiming.round(NOW, 0.0)
    done.set()
    thread.join()
    assert [run.task_type for run in found.claimed] == ["b"]
    assert found.contended


def a_claiming() -> Claiming:
    return Claiming(batch_max=500, per_slot_max=64, permit_within=timedelta(seconds=60))


def test_what_was_due_last_time_is_looked_at_together_with_what_is_due_now():
    AWorker(slots=9, task_types=("a", "b"))
    claiming = a_claiming()
    first = submitted(a_task(task_type="a"))
    assert [run.id for run in claiming.round(NOW, 0.0, expecting=True).claimed] == first
    assert claiming.round(NOW, 0.0, expecting=True).claimed == [], "the guess was wrong, nothing is due"
    known, other = submitted(a_task(task_type="a")), submitted(a_task(task_type="b"))
    found = claiming.round(NOW, 0.0, expecting=True)
    assert sorted(run.id for run in found.claimed) == sorted([*known, *other])
    assert not found.contended


@pytest.mark.django_db(transaction=True)
@pytest.mark.postgresql_only
def test_a_guessed_queue_that_somebody_else_serves_is_left_to_them():
    AWorker(slots=9, task_types=("a",))
    claiming = a_claiming()
    submitted(a_task(task_type="a"))
    claiming.round(NOW, 0.0)
    submitted(a_task(task_type="a"))
    other = connections["default"].copy()
    try:
        other.set_autocommit(False)
        with other.cursor() as cursor:
            cursor.execute("SELECT 1 FROM tasks_app_queue WHERE name = 'a' FOR UPDATE")
        found = claiming.round(NOW, 0.0, expecting=True)
        assert found.claimed == []
        assert found.contended
    finally:
        other.close()


@pytest.mark.postgresql_only
class TestAtOnce:
    """A rung dispatcher claims for the credit that its last look left, before it looks again."""

    def served(self, slots: int = 2) -> Claiming:
        AWorker(slots=slots, task_types=("a",))
        claiming = a_claiming()
        submitted(a_task(task_type="a"))
        assert len(claiming.round(NOW, 0.0).claimed) == 1
        return claiming

    def test_what_is_due_is_taken_for_the_credit_that_is_left_and_no_more_than_one_a_slot(self):
        claiming = self.served(slots=2)
        new = submitted(a_task(task_type="a"), count=5)
        assert [run.id for run in claiming.at_once(NOW)] == new[:2], "of two for each slot one is out"
        assert claiming.at_once(NOW) == [], "no credit is left, as far as it knows"
        assert {status_of(pk) for pk in new[:2]} == {"DISPATCHED"}

    def test_the_next_look_counts_what_was_taken(self):
        claiming = self.served(slots=1)
        [first] = submitted(a_task(task_type="a"))
        assert [run.id for run in claiming.at_once(NOW)] == [first]
        assert claiming.round(NOW, 0.0, expecting=True).claimed == []
        submitted(a_task(task_type="a"))
        assert claiming.at_once(NOW) == [], "two messages are out for one slot"

    def test_a_look_that_finds_nothing_due_finds_credit_again(self):
        claiming = self.served(slots=1)
        [first] = submitted(a_task(task_type="a"))
        claiming.at_once(NOW)
        TaskRun.objects.exclude(pk=first).delete()
        assert claiming.round(NOW, 0.0, expecting=True).claimed == []
        [more] = submitted(a_task(task_type="a"))
        assert [run.id for run in claiming.at_once(NOW)] == [more]

    def test_nothing_is_guessed_before_the_first_look_and_a_wrong_guess_takes_nothing(self):
        AWorker(slots=9, task_types=("a",))
        claiming = a_claiming()
        known = submitted(a_task(task_type="a"))
        assert claiming.at_once(NOW) == []
        assert [run.id for run in claiming.round(NOW, 0.0).claimed] == known
        assert claiming.at_once(NOW) == []
        later = submitted(a_task(task_type="a"))
        assert [run.id for run in claiming.at_once(NOW)] == later

    def test_a_paused_task_a_queue_that_is_left_out_and_a_later_time_are_kept_back(self):
        claiming = self.served()
        paused = a_task(task_type="a")
        submitted(paused)
        Task.objects.filter(pk=paused.pk).update(paused_at=NOW)
        submitted(a_task(task_type="a"), due_at=LATER)
        assert claiming.at_once(NOW) == []
        submitted(a_task(task_type="a"))
        assert claiming.at_once(NOW, without=["a"]) == []

    def test_a_rung_dispatcher_publishes_it_and_the_rest_of_the_credit_after_it(self, bench: Bench):
        AWorker(slots=2)
        first = submitted()
        bench.tick()
        bench.dispatcher._rung = True
        low, high = submitted(count=4, priority=5), submitted(count=1, priority=9)
        tick = bench.tick()
        new = bench.published()[len(first) :]
        assert new[:2] == low[:2], "of the priority that was served last"
        assert new[2:] == high, "and the rest of the credit for the best"
        assert tick.claimed == tick.published == 3


@pytest.fixture
def bell():
    from dispatch.doorbell import Doorbell

    bell = Doorbell()
    yield bell
    bell.close()


@pytest.mark.django_db(transaction=True)
@pytest.mark.postgresql_only
def test_a_submission_wakes_a_waiting_dispatcher_at_once(bell):
    assert bell.wait(10), "rings once when it listens"
    assert not bell.wait(0.01)
    began = time.monotonic()
    submitted()
    assert bell.wait(5)
    assert time.monotonic() - began < 2
    assert not bell.wait(0.01), "heard once"


@pytest.mark.django_db(transaction=True)
@pytest.mark.postgresql_only
def test_a_bell_that_is_cut_off_rings_and_listens_again(bell):
    bell.wait(10)
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(%s)", [bell._connection.info.backend_pid])
    lost = bell._connection
    deadline = time.monotonic() + 10
    while bell._connection in (lost, None) and time.monotonic() < deadline:
        bell.wait(0.05)
    assert not bell.wait(0.01)
    submitted()
    assert bell.wait(5)


def test_a_bell_is_rung_by_hand_from_another_thread(bell):
    bell.wait(0.01)
    threading.Timer(0.05, bell.ring).start()
    began = time.monotonic()
    while not bell.wait(5) and time.monotonic() - began < 10:
        pass
    assert time.monotonic() - began < 5


# -- why --------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("reachable")
class TestWhy:
    def test_each_blocker_keeps_back_what_it_explains_and_explains_what_it_keeps_back(self):
        AWorker(slots=9)
        paused, deleted = a_task(), a_task()
        runs = {
            "free": submitted()[0], "not_due": submitted(due_at=LATER)[0], "task_paused": submitted(paused)[0],
            "task_deleted": submitted(deleted)[0],
        }  # fmt: skip
        Task.objects.filter(pk=paused.pk).update(paused_at=NOW, paused_by="ada", pause_reason="month end")
        Task.objects.filter(pk=deleted.pk).update(deleted_at=NOW)
        kept = set(runs.values()) - set(unblocked(TaskRun.objects.pending(), NOW).values_list("pk", flat=True))
        assert kept == {runs["not_due"], runs["task_paused"], runs["task_deleted"]}
        for code, run_id in runs.items():
            assert codes(run_id) == ([] if code == "free" else [code])
        [pause] = blockers_of(TaskRun.objects.get(pk=runs["task_paused"]), NOW)
        assert (pause.holder, pause.since) == ("ada", NOW)
        assert "month end" in pause.text

    def test_no_worker_and_draining_workers_are_told_apart(self):
        [run_id] = submitted()
        assert codes(run_id) == ["no_worker"]
        worker = AWorker()
        Worker.objects.filter(pk=worker.name).update(draining_since=NOW)
        [reason] = blockers_of(TaskRun.objects.get(pk=run_id), NOW)
        assert (reason.code, reason.holder) == ("no_worker", worker.name)

    def test_taken_slots_name_what_runs_longest(self):
        worker = AWorker(slots=1)
        task = a_task(name="the long one")
        worker.permitted(*claimed(*submitted(task)))
        [run_id] = submitted()
        [reason] = blockers_of(TaskRun.objects.get(pk=run_id), NOW)
        assert (reason.code, reason.holder) == ("no_slot", "the long one")

    def test_several_reasons_are_all_told(self):
        task = a_task()
        [run_id] = submitted(task, due_at=LATER)
        Task.objects.filter(pk=task.pk).update(paused_at=NOW)
        assert codes(run_id) == ["not_due", "task_paused", "no_worker"]

    def test_a_run_at_the_broker_says_so_and_one_that_runs_or_ended_has_no_reason(self):
        assert codes(a_run_in(RunStatus.DISPATCHED).pk) == ["at_broker"]
        assert codes(a_run_in(RunStatus.RUNNING).pk) == []
        assert codes(a_run_in(RunStatus.COMPLETED).pk) == []

    def test_a_due_run_that_nobody_takes_asks_for_a_dispatcher(self):
        AWorker()
        [run_id] = submitted(due_at=NOW - timedelta(minutes=1))
        assert codes(run_id) == ["no_dispatcher"]


def test_a_broker_that_does_not_answer_is_a_reason(settings: Any):
    settings.BROKER_URL = "amqp://guest:secret@127.0.0.1:1//"
    AWorker()
    [run_id] = submitted()
    [reason] = blockers_of(TaskRun.objects.get(pk=run_id), NOW)
    assert (reason.code, reason.holder) == ("broker_away", "127.0.0.1:1")
