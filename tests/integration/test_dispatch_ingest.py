"""The ingest: twice, in any order, poisoned or with the database away, the rows say what the workers said."""

from __future__ import annotations

import itertools
import json
import random
from typing import Any
from uuid import uuid4

import pytest
from django.db import DataError, OperationalError, connection

from dispatch.broker.memory import MemoryBroker
from dispatch.conf import DispatchSettings
from dispatch.ingest import applying
from dispatch.ingest.ingest import Ingest
from tasks_app import lifecycle
from tasks_app.conf import conf as tasks_conf
from tasks_app.lifecycle import Permitted
from tasks_app.messages.reports import Batch, pack
from tasks_app.messages.signing import KeyRing
from tasks_app.models import PoisonReport, RunEvent, RunLogChunk, TaskRun, TaskRunAttempt
from tasks_app.states import Outcome
from tests.integration.domain import NOW, AWorker, FixedClock, a_finish, claimed, running, status_of, submitted
from workers_app.models import Worker

pytestmark = pytest.mark.django_db

AT = NOW.timestamp()


class Bench:
    """An ingest with a broker in memory, and a worker that reports to it."""

    def __init__(self) -> None:
        self.broker = MemoryBroker()
        self.ingest = Ingest(FixedClock(), self.broker, DispatchSettings())
        self.ring = KeyRing(tasks_conf().signing_keys, tasks_conf().signing_key_id)
        self.worker = AWorker()

    def send(self, *reports: dict[str, Any]) -> None:
        headers, body = pack(Batch(self.worker.name, str(self.worker.incarnation.pk), list(reports)), self.ring)
        self.broker.put_report("status.update", headers, body)

    def heartbeat(self, **body: Any) -> None:
        data = json.dumps({"v": 1, "worker_id": self.worker.name} | body).encode()
        headers = {"key_id": self.ring.active, "signature": self.ring.sign(data)}
        self.broker.put_report("worker.heartbeat", headers, data)

    def step(self) -> int:
        return self.ingest.step(0.0)

    def permitted(self, count: int = 1) -> list[Permitted]:
        return self.worker.permitted(*claimed(*submitted(count=count)))


@pytest.fixture
def bench() -> Bench:
    return Bench()


def finish(permit: Permitted, outcome: str = "COMPLETED", **changes: Any) -> dict[str, Any]:
    return {
        "kind": "finish", "run": permit.run_id, "attempt": permit.attempt, "token": str(permit.token),
        "nonce": str(permit.nonce), "outcome": outcome, "started_at": AT, "ended_at": AT, "duration_ms": 5,
        "result": '{"n":1}', "error_type": "", "error_message": "", "retryable": True, "retry_after": None,
        "counts_as_crash": False,
    } | changes  # fmt: skip


def log(permit: Permitted, seq: int, text: str = "line\n", **changes: Any) -> dict[str, Any]:
    return {
        "kind": "log", "run": permit.run_id, "attempt": permit.attempt, "token": str(permit.token), "seq": seq,
        "stream": "stdout", "text": text, "at": AT,
    } | changes  # fmt: skip


def progress(permit: Permitted, seq: int, percent: float) -> dict[str, Any]:
    return {
        "kind": "progress", "run": permit.run_id, "attempt": permit.attempt, "token": str(permit.token), "seq": seq,
        "percent": percent, "message": f"{percent} %", "at": AT,
    }  # fmt: skip


def snapshot() -> dict[str, Any]:
    """Everything that reports may change."""
    return {
        "runs": list(TaskRun.objects.order_by("id").values()),
        "attempts": list(
            TaskRunAttempt.objects.order_by("run_id", "number").values("run_id", "number", "status", "token")
        ),
        "chunks": list(
            RunLogChunk.objects.order_by("run_id", "attempt", "seq").values("run_id", "attempt", "seq", "text")
        ),
        "events": sorted(RunEvent.objects.values_list("run_id", "kind", "attempt")),
    }


def test_reports_of_all_kinds_are_applied_and_acknowledged(bench: Bench):
    [permit] = bench.permitted()
    bench.send(log(permit, 1, "a"), progress(permit, 1, 40.0), log(permit, 2, "b"))
    bench.step()
    run = TaskRun.objects.get(pk=permit.run_id)
    assert (run.progress["percent"], run.progress["message"]) == (40.0, "40.0 %")
    bench.send(finish(permit))
    bench.step()
    run.refresh_from_db()
    assert (run.status, run.result) == ("COMPLETED", {"n": 1})
    assert "".join(RunLogChunk.objects.order_by("seq").values_list("text", flat=True)) == "ab"
    assert bench.broker.unacknowledged == []


def test_the_same_batch_twice_changes_nothing_the_second_time(bench: Bench):
    permits = bench.permitted(5)
    reports = [r for p in permits for r in (log(p, 1), progress(p, 3, 50.0), finish(p))]
    bench.send(*reports)
    bench.step()
    before = snapshot()
    bench.send(*reports)
    bench.send(*reports, *reports)
    bench.step()
    assert snapshot() == before


def test_reports_in_any_order_and_any_batches_come_to_the_same(bench: Bench):
    results = []
    for seed in range(12):
        chance = random.Random(seed)
        permits = bench.permitted(3)
        reports = [
            r
            for p in permits
            for r in (log(p, 1, "a"), log(p, 2, "b"), progress(p, 1, 10.0), progress(p, 2, 90.0), finish(p))
        ]  # fmt: skip
        reports += chance.sample(reports, 6)
        chance.shuffle(reports)
        while reports:
            size = chance.randint(1, 6)
            bench.send(*reports[:size])
            del reports[:size]
            if chance.random() < 0.5:
                bench.step()
        bench.step()
        ids = [p.run_id for p in permits]
        results.append(
            (
                list(TaskRun.objects.filter(pk__in=ids).values_list("status", "attempt")),
                list(RunLogChunk.objects.filter(run_id__in=ids).order_by("run_id", "seq").values_list("seq", "text")),
                TaskRunAttempt.objects.filter(run_id__in=ids).count(),
            )
        )
    assert all(result == results[0] for result in results)
    assert results[0][0] == [("COMPLETED", 1)] * 3


def test_a_retry_and_late_reports_of_the_attempt_before_do_not_mix(bench: Bench):
    [first] = bench.permitted()
    bench.send(finish(first, "FAILED", retry_after=0.0), log(first, 1, "first"))
    bench.step()
    [second] = bench.worker.permitted(*claimed(first.run_id))
    bench.send(log(first, 2, "late"), progress(first, 9, 99.0), finish(first, "COMPLETED"), log(second, 1, "second"))
    bench.step()
    run = TaskRun.objects.get(pk=first.run_id)
    assert (run.status, run.attempt, run.progress) == ("RUNNING", 2, None)
    # The late line belongs to an attempt that was real: it is kept with it.
    assert sorted(RunLogChunk.objects.values_list("attempt", "text")) == [(1, "first"), (1, "late"), (2, "second")]


def test_output_and_progress_with_a_token_that_was_never_current_are_refused(bench: Bench):
    [permit] = bench.permitted()
    stale = str(uuid4())
    bench.send(
        log(permit, 1) | {"token": stale}, progress(permit, 1, 5.0) | {"token": stale},
        log(permit, 2, run=permit.run_id + 999),
        finish(permit, token=stale),
    )  # fmt: skip
    bench.step()
    assert RunLogChunk.objects.count() == 0
    run = TaskRun.objects.get(pk=permit.run_id)
    assert (run.status, run.progress) == ("RUNNING", None)
    assert PoisonReport.objects.count() == 0


def test_the_newest_progress_wins_whatever_comes_last(bench: Bench):
    [permit] = bench.permitted()
    for seqs in ([3, 1, 2], [2], [5, 4], [1], [4]):
        bench.send(*[progress(permit, seq, seq * 10.0) for seq in seqs])
        bench.step()
    assert TaskRun.objects.get(pk=permit.run_id).progress["percent"] == 50.0


def test_what_was_given_up_before_it_began_is_pending_again(bench: Bench):
    [run] = claimed(*submitted())
    bench.send({"kind": "hand_back", "run": run.id, "token": str(run.token), "nonce": None, "reason": "draining"})
    bench.step()
    assert status_of(run.id) == "PENDING"


def test_bad_reports_are_set_aside_and_everything_else_goes_on(bench: Bench):
    permits = bench.permitted(2)
    bench.send(finish(permits[0]), finish(permits[0], run="x"))
    bench.broker.put_report("status.update", {}, b'{"v": 1}')
    bench.broker.put_report("status.update", {}, b"\xff\x00" * 100_000)
    bench.broker.put_report("worker.heartbeat", {}, b"nonsense")
    bench.send(finish(permits[1]))
    bench.step()
    assert [status_of(p.run_id) for p in permits] == ["COMPLETED"] * 2
    assert PoisonReport.objects.count() == 4
    assert all(len(poison.body.encode()) < 17_000 for poison in PoisonReport.objects.all())
    assert bench.broker.unacknowledged == []


def test_the_one_report_that_the_database_refuses_is_found_by_halving(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    permits = bench.permitted(9)
    poisoned = permits[6].run_id
    real = applying.lifecycle.finish

    def refusing(reports: Any, *, now: Any) -> Any:
        if any(report.run_id == poisoned for report in reports):
            raise DataError("this one")
        return real(reports, now=now)

    monkeypatch.setattr(applying.lifecycle, "finish", refusing)
    bench.send(*[finish(permit) for permit in permits])
    bench.step()
    assert [status_of(p.run_id) for p in permits] == [
        "RUNNING" if p.run_id == poisoned else "COMPLETED" for p in permits
    ]
    [poison] = PoisonReport.objects.all()
    assert str(poisoned) in poison.body
    assert "this one" in poison.error


@pytest.mark.django_db(transaction=True)
def test_while_the_database_is_away_nothing_is_acknowledged_and_then_everything_is_applied(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
):
    [permit] = bench.permitted()
    real, failures = applying.lifecycle.finish, itertools.count(1)

    def away(reports: Any, *, now: Any) -> Any:
        if next(failures) <= 3:
            assert len(bench.broker.unacknowledged) == 1
            raise OperationalError("the connection is closed")
        return real(reports, now=now)

    monkeypatch.setattr(applying.lifecycle, "finish", away)
    bench.send(finish(permit))
    bench.step()
    assert status_of(permit.run_id) == "COMPLETED"
    assert PoisonReport.objects.count() == 0
    assert bench.broker.unacknowledged == []


@pytest.mark.django_db(transaction=True)
def test_an_ingest_that_is_stopped_while_the_database_is_away_acknowledges_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
):
    [permit] = bench.permitted()

    def away(*_: Any, **__: Any) -> Any:
        bench.ingest.stop()
        raise OperationalError("the connection is closed")

    monkeypatch.setattr(applying.lifecycle, "finish", away)
    bench.send(finish(permit))
    assert bench.step() == 0
    assert len(bench.broker.unacknowledged) == 1


def test_heartbeats_reach_the_workers_row_and_an_unknown_worker_is_no_error(bench: Bench):
    bench.heartbeat(
        slots=4, in_flight=1, cpu_percent=12.5, memory_rss_bytes=10**10, functions=["a.b"], task_types=["default"]
    )
    bench.heartbeat(worker_id="nobody", slots=4)
    bench.heartbeat(slots="many", in_flight=-1, cpu_percent=float("inf"), functions="x", worker_id="odd\x00one")
    bench.step()
    worker = Worker.objects.get(name=bench.worker.name)
    assert (worker.max_concurrent_tasks, worker.current_task_count, worker.load_percentage) == (4, 1, 25.0)
    assert (worker.cpu_percent, worker.memory_rss_bytes, worker.functions) == (12.5, 10**10, ["a.b"])
    assert worker.last_heartbeat == NOW
    assert PoisonReport.objects.count() == 0


def test_an_older_heartbeat_that_comes_late_changes_nothing(bench: Bench):
    bench.heartbeat(at=AT - 5, in_flight=1, slots=2)
    bench.step()
    bench.heartbeat(at=AT - 50, in_flight=2, slots=2)
    bench.step()
    assert Worker.objects.get(name=bench.worker.name).current_task_count == 1


def test_large_results_and_nul_bytes_are_stored_as_what_can_be_stored(bench: Bench):
    permits = bench.permitted(3)
    bench.send(
        finish(permits[0], result=json.dumps("x" * 1_100_000)),
        finish(permits[1], result='"\\u0000"'),
        finish(permits[2], "FAILED", error_message="a\x00b", retryable=False),
        log(permits[2], 1, "a\x00b\ud800"),
    )
    bench.step()
    runs = [TaskRun.objects.get(pk=p.run_id) for p in permits]
    assert runs[0].result == {"truncated": True, "bytes": 1_100_002}
    assert runs[1].result == "\ufffd"
    assert runs[2].error_message == "a\ufffdb"
    assert RunLogChunk.objects.get().text.startswith("a\ufffdb")


def test_reports_of_a_lost_attempt_are_stale_and_the_run_goes_on(bench: Bench):
    permit = running(bench.worker)
    lifecycle.lose([bench.worker.incarnation.pk], now=NOW)
    bench.send(finish(permit))
    bench.step()
    assert status_of(permit.run_id) == "PENDING"
    assert lifecycle.finish([a_finish(permit, Outcome.COMPLETED)], now=NOW).ended == []


@pytest.mark.postgresql_only
def test_telemetry_does_not_wait_for_the_disk_and_finishes_do(bench: Bench):
    [permit] = bench.permitted()
    seen: list[str] = []

    def note(run: Any, sql: str, *rest: Any) -> Any:
        seen.append(sql)
        return run(sql, *rest)

    bench.send(finish(permit))
    with connection.execute_wrapper(note):
        bench.step()
    assert not any("synchronous_commit" in sql for sql in seen)
    bench.send(log(permit, 1))
    with connection.execute_wrapper(note):
        bench.step()
    assert any("synchronous_commit = off" in sql for sql in seen)
