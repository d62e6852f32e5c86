"""Submission: a committed row is an accepted run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from django.db import connection, transaction

from tasks_app.crashpoints import reach
from tasks_app.lifecycle.rows import in_one_go, insert_statement
from tasks_app.lifecycle.wake import WAKE_STATEMENT
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


_COLUMNS = (
    "task", "task_version", "task_name", "task_type", "executor", "parameters", "lane", "status", "priority",
    "due_at", "scheduled_at", "created_at", "timeout_seconds", "max_retries", "retry_delay_seconds",
    "retry_delay_cap_seconds", "quarantine_after", "keep_running", "attempt", "dispatch_count", "crash_count",
    "worker_id", "cancel_requested_by", "stop_reason", "error_message", "correlation_id", "traceparent", "retry_of",
    "triggered_by", "created_by",
)  # fmt: skip


def submit(runs: Sequence[NewRun], *, now: datetime) -> list[int]:
    """Insert the runs as PENDING in the caller's transaction and wake the dispatchers when it commits.

    Returns their ids in the order given. Once the caller's commit returned, the runs cannot be lost.
    """
    if not runs:
        return []
    with transaction.atomic(savepoint=False):
        if connection.vendor == "postgresql":
            # The bell is heard when the transaction commits, so it costs no way of its own.
            rows = [_values(run, now) for run in runs]
            inserted, _ = in_one_go([insert_statement(TaskRun, _COLUMNS, rows), WAKE_STATEMENT])
            ids = [row[0] for row in inserted]
        else:
            made = TaskRun.objects.bulk_create([_instance(run, now) for run in runs])
            ids = [run.pk for run in made]
        reach("submit.after_insert")
        transaction.on_commit(lambda: reach("submit.after_commit"))
    return ids


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
