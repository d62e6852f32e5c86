"""Rows for tests, made by the verbs themselves: a task, runs in each state, a worker's incarnation."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from tasks_app import lifecycle
from tasks_app.lifecycle import Claimed, Finished, Holder, NewRun, PermitAsk, Permitted
from tasks_app.models import Queue, Task, TaskRun
from tasks_app.states import Outcome, RunStatus
from workers_app.models import Worker, WorkerIncarnation

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)
LATER = NOW + timedelta(minutes=1)
_numbers = itertools.count(1)


@dataclass
class FixedClock:
    """A clock that stands still until it is moved."""

    instant: datetime = NOW

    def now(self) -> datetime:
        return self.instant


def a_task(**values: Any) -> Task:
    values.setdefault("name", f"task {next(_numbers)}")
    values.setdefault("executor", "python")
    values.setdefault("parameters", {"function": "demo.noop", "args": [], "kwargs": {}})
    task = Task.objects.create(**values)
    Queue.objects.get_or_create(name=task.task_type)
    return task


def submitted(task: Task | None = None, *, count: int = 1, due_at: datetime = NOW, **values: Any) -> list[int]:
    target = task or a_task()
    given = [NewRun(target, dict(target.parameters), due_at, **values) for _ in range(count)]
    return lifecycle.submit(given, now=NOW)


def claimed(*ids: int, now: datetime = NOW) -> list[Claimed]:
    rows = TaskRun.objects.pending().filter(pk__in=ids).order_by("-priority", "due_at", "id")[: len(ids)]
    return lifecycle.claim(rows, now=now, permit_within=timedelta(seconds=60))


@dataclass
class AWorker:
    """A registered worker that asks for permits."""

    name: str = field(default_factory=lambda: f"worker-{next(_numbers)}")
    slots: int = 2
    task_types: tuple[str, ...] = ("default",)
    lease_seconds: float = 60.0

    def __post_init__(self) -> None:
        Worker.objects.get_or_create(name=self.name, defaults={"registered_at": NOW})
        self.incarnation = WorkerIncarnation.objects.create(
            worker_id=self.name, lease_seconds=self.lease_seconds, slots=self.slots, task_types=list(self.task_types),
            started_at=NOW, renewed_at=NOW,
        )  # fmt: skip

    @property
    def holder(self) -> Holder:
        alive = WorkerIncarnation.objects.filter(pk=self.incarnation.pk, over_at__isnull=True).order_by().values("pk")
        sql, params = alive.query.sql_with_params()
        return Holder(self.name, self.incarnation.pk, f"EXISTS ({sql})", params)

    def over(self, now: datetime = NOW) -> None:
        WorkerIncarnation.objects.filter(pk=self.incarnation.pk).update(over_at=now)

    def permit(self, *runs: Claimed, now: datetime = NOW) -> list[Any]:
        return lifecycle.permit([PermitAsk(run.id, run.token, uuid4()) for run in runs], self.holder, now=now)

    def permitted(self, *runs: Claimed, now: datetime = NOW) -> list[Permitted]:
        answers = self.permit(*runs, now=now)
        assert all(isinstance(answer, Permitted) for answer in answers), answers
        return answers


def running(worker: AWorker | None = None, **values: Any) -> Permitted:
    task = a_task(**values)
    [run] = claimed(*submitted(task))
    [permit] = (worker or AWorker()).permitted(run)
    return permit


def a_finish(permit: Permitted, outcome: Outcome = Outcome.COMPLETED, **values: Any) -> Finished:
    values.setdefault("nonce", permit.nonce)
    return Finished(permit.run_id, permit.attempt, values.pop("token", permit.token), outcome, **values)


def a_run_in(status: RunStatus) -> TaskRun:
    """A run that came to this state by the verbs."""
    s = RunStatus
    if status in {s.PENDING, s.DISPATCHED, s.SKIPPED}:
        [run_id] = submitted()
        if status is s.DISPATCHED:
            claimed(run_id)
        if status is s.SKIPPED:
            lifecycle.skip([run_id], reason="test", now=NOW)
        return TaskRun.objects.get(pk=run_id)
    if status is s.QUARANTINED:
        permit = running(quarantine_after=1)
        lifecycle.finish([a_finish(permit, Outcome.LOST)], now=NOW)
    else:
        permit = running(max_retries=0)
        if status is not s.RUNNING:
            lifecycle.finish([a_finish(permit, Outcome(status.value))], now=NOW)
    run = TaskRun.objects.get(pk=permit.run_id)
    assert run.status == status.value
    return run


def status_of(run_id: int) -> str:
    return str(TaskRun.objects.values_list("status", flat=True).get(pk=run_id))


def a_token() -> UUID:
    return uuid4()
