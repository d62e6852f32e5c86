"""The reaper: what it ends, takes back and stops, and what it leaves alone."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.db import OperationalError

from dispatch import control
from dispatch.broker.memory import MemoryBroker
from dispatch.conf import DispatchSettings
from dispatch.missing import MissingMessages
from dispatch.reaper import Reaper
from tasks_app import lifecycle
from tasks_app.messages.execution import queue_for
from tasks_app.models import TaskRun, TaskRunAttempt
from tests.integration.domain import LATER, NOW, AWorker, FixedClock, a_task, claimed, running, status_of, submitted
from workers_app.models import WorkerIncarnation

pytestmark = pytest.mark.django_db


class Bench:
    """A reaper with a tick of one second on a clock that the test moves."""

    def __init__(self, **settings: Any) -> None:
        self.at = 1000.0
        self.reaper = Reaper(
            FixedClock(), DispatchSettings(reaper_tick_seconds=1.0, **settings), monotonic=lambda: self.at
        )

    def tick(self, times: int = 1, *, renewing: AWorker | None = None) -> None:
        for _ in range(times):
            self.at += 1.0
            if renewing is not None:
                incarnation = WorkerIncarnation.objects.get(pk=renewing.incarnation.pk)
                WorkerIncarnation.objects.filter(pk=incarnation.pk).update(counter=incarnation.counter + 1)
            self.reaper.tick(NOW)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    sent: list[Any] = []
    monkeypatch.setattr(control, "_send", sent.extend)
    return sent


def is_over(worker: AWorker) -> bool:
    return WorkerIncarnation.objects.get(pk=worker.incarnation.pk).over_at is not None


def test_a_worker_that_stops_renewing_loses_its_attempts_after_its_lease_and_not_before():
    bench, worker = Bench(), AWorker(lease_seconds=10)
    permit = running(worker)
    bench.tick(10)
    assert not is_over(worker)
    assert status_of(permit.run_id) == "RUNNING"
    bench.tick()
    assert is_over(worker)
    assert status_of(permit.run_id) == "PENDING"
    assert TaskRunAttempt.objects.get(run_id=permit.run_id).status == "LOST"


def test_a_worker_that_renews_keeps_its_attempts():
    bench, worker = Bench(), AWorker(lease_seconds=3)
    permit = running(worker)
    bench.tick(30, renewing=worker)
    assert status_of(permit.run_id) == "RUNNING"


def test_a_renewal_between_the_read_and_the_verdict_saves_the_worker(monkeypatch: pytest.MonkeyPatch):
    bench, worker = Bench(), AWorker(lease_seconds=3)
    bench.tick(3)
    observe = bench.reaper._watch.observe

    def renewed_meanwhile(*args: Any, **kwargs: Any) -> Any:
        over = observe(*args, **kwargs)
        WorkerIncarnation.objects.filter(pk=worker.incarnation.pk).update(counter=99)
        return over

    monkeypatch.setattr(bench.reaper._watch, "observe", renewed_meanwhile)
    bench.tick()
    assert not is_over(worker)


def test_a_database_outage_grants_everybody_a_full_lease(monkeypatch: pytest.MonkeyPatch):
    bench, worker = Bench(), AWorker(lease_seconds=5)
    bench.tick(5)
    bench.reaper._watch.interrupted()
    bench.tick(5)
    assert not is_over(worker)
    bench.tick()
    assert is_over(worker)


def test_a_failed_round_is_an_interruption_and_does_not_end_the_thread(monkeypatch: pytest.MonkeyPatch):
    bench = Bench()
    interrupted: list[int] = []
    monkeypatch.setattr(bench.reaper._watch, "interrupted", lambda: interrupted.append(1))
    monkeypatch.setattr("dispatch.reaper.connection.close", lambda: None)

    def failing(_now: Any) -> None:
        if len(interrupted) == 2:
            bench.reaper._stopping.set()
        raise OperationalError("away")

    monkeypatch.setattr(bench.reaper, "tick", failing)
    monkeypatch.setattr(bench.reaper._stopping, "wait", lambda _seconds: None)
    bench.reaper._loop()
    assert len(interrupted) == 3


def test_an_attempt_of_an_incarnation_that_does_not_exist_is_lost():
    bench = Bench()
    permit = running()
    TaskRun.objects.filter(pk=permit.run_id).update(incarnation_id=uuid4())
    bench.tick()
    assert status_of(permit.run_id) == "PENDING"


def test_attempts_of_a_worker_that_said_goodbye_are_lost_at_once():
    bench, worker = Bench(), AWorker()
    permit = running(worker)
    worker.over()
    bench.tick()
    assert status_of(permit.run_id) == "PENDING"


def test_two_reapers_end_an_attempt_once():
    one, two = Bench(), Bench()
    worker = AWorker(lease_seconds=3)
    permit = running(worker)
    for _ in range(6):
        one.tick()
        two.tick()
    assert TaskRunAttempt.objects.filter(run_id=permit.run_id).count() == 1
    assert TaskRun.objects.get(pk=permit.run_id).attempt == 2


def test_a_message_that_led_to_no_permit_in_time_is_sent_again():
    bench = Bench()
    [run] = claimed(*submitted(), now=NOW - timedelta(seconds=61))
    bench.tick()
    row = TaskRun.objects.get(pk=run.id)
    assert (row.status, row.attempt) == ("PENDING", 1)


def test_what_runs_past_its_deadline_is_asked_to_stop_and_its_worker_is_told(told: list[Any]):
    bench, worker = Bench(deadline_grace_seconds=5), AWorker()
    [run] = claimed(*submitted(a_task(timeout_seconds=10)))
    worker.permitted(run, now=NOW - timedelta(seconds=16))
    bench.tick(2)
    assert told == [(worker.name, "task.control.cancel", {"runs": [{"run_id": run.id}]})]
    row = TaskRun.objects.get(pk=run.id)
    assert (row.status, row.stop_reason) == ("RUNNING", "timeout")


def test_control_messages_to_a_broker_that_is_away_are_given_up_quickly(settings: Any):
    settings.BROKER_URL = "amqp://guest:guest@127.0.0.1:1//"
    control.cancel({"w": [1]})
    control.drain("w")
    control.resume("w")


# -- messages that the broker lost -----------------------------------------------------------------------------------


@pytest.fixture
def broker() -> MemoryBroker:
    return MemoryBroker()


def old_claim() -> Any:
    [run] = claimed(*submitted(), now=NOW - timedelta(seconds=6))
    return run


def test_a_message_that_an_emptied_broker_lost_is_sent_again_at_the_second_look(broker: MemoryBroker):
    AWorker()
    missing, run = MissingMessages(broker), old_claim()
    assert missing.take_back(NOW) == []
    assert missing.take_back(NOW) == [run.id]
    assert TaskRun.objects.get(pk=run.id).attempt == 1


@pytest.mark.parametrize("reason", ["waits at the broker", "young", "no slot is free", "no worker", "look failed"])
def test_a_message_is_left_alone_while_there_is_an_innocent_explanation(broker: MemoryBroker, reason: str):
    if reason != "no worker":
        worker = AWorker(slots=1)
        if reason == "no slot is free":
            running(worker)
    missing = MissingMessages(broker)
    run = claimed(*submitted())[0] if reason == "young" else old_claim()
    if reason == "waits at the broker":
        broker.queues[queue_for("default")] = [object()]  # type: ignore[assignment,list-item]
    missing.take_back(NOW)
    if reason == "look failed":
        missing.forget()
    assert missing.take_back(NOW) == []
    assert status_of(run.id) == "DISPATCHED"


def test_a_reaper_whose_broker_is_away_does_its_other_work(broker: MemoryBroker):
    broker.away = True
    AWorker()
    run = old_claim()
    late = claimed(*submitted(), now=NOW - timedelta(seconds=61))[0]
    reaper = Reaper(FixedClock(), DispatchSettings(), broker=broker)
    reaper.tick(NOW)
    reaper.tick(LATER - timedelta(seconds=30))
    assert (status_of(run.id), status_of(late.id)) == ("DISPATCHED", "PENDING")
    assert lifecycle.retract_unpermitted(now=NOW) == []
