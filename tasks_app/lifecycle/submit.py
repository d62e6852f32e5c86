"""Submission: a committed row is an accepted run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final
from uuid import UUID, uuid4

from django.db import connection, transaction

from tasks_app.crashpoints import reach
from tasks_app.errors import TaskNotFound
from tasks_app.lifecycle.rows import insert_statement, postgres_cursor
from tasks_app.lifecycle.wake import WAKE_SQL
from tasks_app.models import Task, TaskRun
from tasks_app.parameters import canonical_json
from tasks_app.states import RunStatus


@dataclass(frozen=True, slots=True)
class NewRun:
    """A run to be: its task, validated parameters, and where it comes from."""

    task: Task
    parameters: dict[str, Any]
    due_at: datetime
    scheduled_at: datetime | None = None
    priority: int | None = None
    lane: str = ""
    triggered_by: str = "api"
    created_by: str = ""
    correlation_id: UUID = field(default_factory=uuid4)
    traceparent: str = ""
    retry_of_id: int | None = None


#: FOR KEY SHARE: any number of submissions hold the task at once, and only a deletion's FOR UPDATE waits. (The foreign
#: key of a new run takes the same lock, but not before the commit.)
_LIVE_SQL: Final = (
    f"live AS MATERIALIZED (SELECT 1 FROM {Task._meta.db_table} WHERE id = %s AND deleted_at IS NULL FOR KEY SHARE), "
)

_COLUMNS = (
    "task", "task_version", "task_name", "task_type", "executor", "parameters", "lane", "status", "priority",
    "due_at", "scheduled_at", "created_at", "timeout_seconds", "max_retries", "retry_delay_seconds",
    "retry_delay_cap_seconds", "quarantine_after", "keep_running", "attempt", "dispatch_count", "crash_count",
    "worker_id", "cancel_requested_by", "stop_reason", "error_message", "correlation_id", "traceparent", "retry_of",
    "triggered_by", "created_by",
)  # fmt: skip


def submit(runs: Sequence[NewRun], *, now: datetime, live_task: Task | None = None) -> list[int]:
    """Insert the runs as PENDING in the caller's transaction and wake the dispatchers when it commits.

    Returns their ids in the order given. Once the caller's commit returned, the runs cannot be lost; without a
    transaction around it the call commits by itself, on PostgreSQL in the one exchange that it takes.

    live_task: insert nothing and raise TaskNotFound when this task was deleted. A deletion that comes later waits for
    this transaction and cancels these runs.
    """
    if not runs:
        return []
    ids = _inserted(runs, now, live_task) if connection.vendor == "postgresql" else _created(runs, now, live_task)
    if not ids:
        assert live_task is not None
        raise TaskNotFound(reference=live_task.name)
    if connection.in_atomic_block:
        reach("submit.after_insert")
    transaction.on_commit(lambda: reach("submit.after_commit"))
    return ids


def _inserted(runs: Sequence[NewRun], now: datetime, live_task: Task | None) -> list[int]:
    """The bell is part of the statement: it is heard when that commits."""
    only_if = "" if live_task is None else "EXISTS (SELECT 1 FROM live)"
    insert, params = insert_statement(TaskRun, _COLUMNS, [_values(run, now) for run in runs], only_if=only_if)
    sql = (
        f"WITH {_LIVE_SQL if live_task else ''}made AS ({insert}), rung AS MATERIALIZED ({WAKE_SQL} AS bell) "
        "SELECT made.id, rung.bell FROM made CROSS JOIN rung"
    )
    with postgres_cursor() as cursor:
        cursor.execute(sql, [*([live_task.pk] if live_task else []), *params], binary=True)
        # They were numbered in the order given.
        return sorted(row[0] for row in cursor.fetchall())


def _created(runs: Sequence[NewRun], now: datetime, live_task: Task | None) -> list[int]:
    with transaction.atomic(savepoint=False):
        if live_task is not None and not Task.objects.live().filter(pk=live_task.pk).exists():
            return []
        return [run.pk for run in TaskRun.objects.bulk_create([_instance(run, now) for run in runs])]


def as_submitted(run: NewRun, run_id: int, *, now: datetime) -> TaskRun:
    """The row that `submit` made of it at this instant."""
    row = _instance(run, now)
    row.pk, row.task = run_id, run.task
    row._state.adding, row._state.db = False, connection.alias
    return row


def _values(run: NewRun, now: datetime) -> tuple[Any, ...]:
    task = run.task
    return (
        task.pk, task.version, task.name, task.task_type, task.executor, canonical_json(run.parameters), run.lane,
        RunStatus.PENDING.value, task.priority if run.priority is None else run.priority,
        run.due_at, run.scheduled_at or run.due_at, now, task.timeout_seconds, task.max_retries,
        task.retry_delay_seconds, task.retry_delay_cap_seconds, task.quarantine_after, task.keep_running, 1, 0, 0,
        "", "", "", "", run.correlation_id, run.traceparent, run.retry_of_id,
        run.triggered_by, run.created_by,
    )  # fmt: skip


def _instance(run: NewRun, now: datetime) -> TaskRun:
    values = dict(zip(_COLUMNS, _values(run, now), strict=True))
    values["parameters"] = run.parameters
    values["task_id"] = values.pop("task")
    values["retry_of_id"] = values.pop("retry_of")
    return TaskRun(**values)
