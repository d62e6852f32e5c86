"""Use cases of tasks and runs. Views, admin actions, commands and schedules make one call into these."""

from __future__ import annotations

import secrets
import time
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from django.db import IntegrityError, transaction
from django_celery_beat.models import ClockedSchedule, IntervalSchedule, PeriodicTask

from tasks_app import lifecycle, parameters
from tasks_app.clock import clock
from tasks_app.conf import conf
from tasks_app.definitions import TaskDefinition, problems_of
from tasks_app.errors import (
    BacklogFull,
    DuplicateTask,
    EditConflict,
    InvalidParameters,
    InvalidTask,
    RunNotFound,
    StaleTransition,
    TaskNotFound,
)
from tasks_app.models import Queue, Schedule, Task, TaskRun, TaskVersion
from tasks_app.states import is_final

#: Seconds for which a process trusts its last count of the backlog.
_BACKLOG_TRUST_SECONDS = 1.0
_backlog_seen: dict[str, tuple[float, int]] = {}


def create_task(definition: TaskDefinition, *, by: str = "") -> Task:
    """Make a task at version 1. Raises InvalidTask or DuplicateTask; nothing is half saved."""
    _check(definition)
    with transaction.atomic():
        Queue.objects.get_or_create(name=definition.task_type)
        try:
            with transaction.atomic():
                task = Task.objects.create(**definition.columns(), created_by=by)
        except IntegrityError as error:
            raise DuplicateTask(name=definition.name) from error
        TaskVersion.objects.create(task=task, number=1, definition=definition.as_json(), created_by=by)
        _set_schedule(task, definition, now=clock.now())
    return task


def update_task(
    task_id: int, definition: TaskDefinition, *, expected_version: int | None = None, by: str = ""
) -> Task:
    """Replace a task's definition and number a new version. Runs that exist keep what they were made from.

    Raises TaskNotFound, InvalidTask, DuplicateTask, or EditConflict when `expected_version` is no longer the present one.
    """
    _check(definition)
    with transaction.atomic():
        task = _locked_task(task_id)
        if expected_version is not None and task.version != expected_version:
            raise EditConflict(expected=expected_version, present=task.version)
        Queue.objects.get_or_create(name=definition.task_type)
        for column, value in definition.columns().items():
            setattr(task, column, value)
        task.version += 1
        try:
            with transaction.atomic():
                task.save()
        except IntegrityError as error:
            raise DuplicateTask(name=definition.name) from error
        TaskVersion.objects.create(
            task=task, number=task.version, definition=definition.as_json(), created_by=by
        )
        _set_schedule(task, definition, now=clock.now())
    return task


def delete_task(task_id: int, *, by: str = "") -> None:
    """Take a task out of use: it fires and triggers no more; its history stays."""
    with transaction.atomic():
        task = _locked_task(task_id)
        now = clock.now()
        Task.objects.filter(pk=task.pk).update(deleted_at=now, updated_at=now)
        PeriodicTask.objects.filter(signalbox__task=task).delete()
        waiting = list(TaskRun.objects.pending().filter(task=task).values_list("pk", flat=True))
        lifecycle.cancel(waiting, by=by or "task deleted", now=now)


def pause_task(task_id: int, *, by: str = "", reason: str = "") -> Task:
    """No run of this task starts from now on; what runs goes on. Pausing twice keeps the first reason."""
    with transaction.atomic():
        task = _locked_task(task_id)
        if task.paused_at is None:
            task.paused_at, task.paused_by, task.pause_reason = clock.now(), by[:150], reason[:500]
            task.save(update_fields=["paused_at", "paused_by", "pause_reason", "updated_at"])
    return task


def resume_task(task_id: int) -> Task:
    """Let runs start again. Schedules go on from now; times that passed while paused are not made up for."""
    with transaction.atomic():
        task = _locked_task(task_id)
        if task.paused_at is not None:
            task.paused_at, task.paused_by, task.pause_reason = None, "", ""
            task.save(update_fields=["paused_at", "paused_by", "pause_reason", "updated_at"])
            now = clock.now()
            for schedule in Schedule.objects.filter(task=task).select_related("periodic_task__interval"):
                interval = schedule.periodic_task.interval
                if interval is not None and schedule.next_fire_at is not None and schedule.next_fire_at < now:
                    every = interval.schedule.run_every
                    passed = (now - schedule.next_fire_at) // every + 1
                    Schedule.objects.filter(pk=schedule.pk).update(
                        next_fire_at=schedule.next_fire_at + passed * every
                    )
            lifecycle.wake_dispatchers()
    return task


def trigger(
    task: Task | int,
    *,
    parameters_over: Mapping[str, Any] | None = None,
    priority: int | None = None,
    lane: str = "",
    due_at: datetime | None = None,
    triggered_by: str = "api",
    by: str = "",
    traceparent: str = "",
    correlation_id: UUID | None = None,
) -> TaskRun:
    """Submit one run now, or for `due_at`.

    Raises TaskNotFound, InvalidParameters, BacklogFull. The run is accepted when the surrounding transaction commits.
    """
    [run_id] = trigger_many(
        task, [parameters_over or {}], priority=priority, lane=lane, due_at=due_at, triggered_by=triggered_by, by=by,
        traceparent=traceparent, correlation_id=correlation_id,
    )  # fmt: skip
    return TaskRun.objects.get(pk=run_id)


def trigger_many(
    task: Task | int,
    parameters_over: Sequence[Mapping[str, Any]],
    *,
    priority: int | None = None,
    lane: str = "",
    due_at: datetime | None = None,
    triggered_by: str = "api",
    by: str = "",
    traceparent: str = "",
    correlation_id: UUID | None = None,
) -> list[int]:
    """Submit one run for each set of parameters, all or none, and return their ids in that order."""
    target = task if isinstance(task, Task) else find_task(task)
    settings = conf()
    given = []
    for over in parameters_over:
        merged = parameters.merged(target.parameters, over) if over else dict(target.parameters)
        if over:
            problems = problems_of_parameters(target.executor, merged)
            if problems:
                raise InvalidParameters({"parameters": problems})
        given.append(merged)
    if priority is not None and not 0 <= priority <= 9:
        raise InvalidParameters({"priority": ["0 to 9"]})
    admit(target.task_type, len(given), settings.backlog_max, settings.backlog_per_type_max)
    now = clock.now()
    runs = [
        lifecycle.NewRun(
            task=target, parameters=merged, due_at=due_at or now, priority=priority, lane=lane[:100],
            triggered_by=triggered_by, created_by=by[:150], traceparent=traceparent or new_traceparent(),
            correlation_id=correlation_id or uuid4(),
        )
        for merged in given
    ]  # fmt: skip
    return lifecycle.submit(runs, now=now)


def retry_run(run_id: int, *, parameters_over: Mapping[str, Any] | None = None, by: str = "") -> TaskRun:
    """A new run like a final one, linked to it. Raises RunNotFound, or StaleTransition while it is not final."""
    old = find_run(run_id)
    if not is_final(old.status):
        raise StaleTransition(run_id=run_id, status=old.status)
    merged = parameters.merged(old.parameters, parameters_over or {})
    problems = problems_of_parameters(old.executor, merged)
    if problems:
        raise InvalidParameters({"parameters": problems})
    now = clock.now()
    [new_id] = lifecycle.submit(
        [
            lifecycle.NewRun(
                task=old.task, parameters=merged, due_at=now, priority=old.priority, lane=old.lane,
                triggered_by="retry", created_by=by[:150], correlation_id=old.correlation_id,
                traceparent=old.traceparent, retry_of_id=old.pk,
            )
        ],
        now=now,
    )  # fmt: skip
    return TaskRun.objects.get(pk=new_id)


def cancel_run(run_id: int, *, by: str = "") -> lifecycle.CancelAnswer:
    """Cancel one run: at once while it waits, by request while it runs.

    Raises RunNotFound, or StaleTransition when it is final already.
    """
    answer = lifecycle.cancel([run_id], by=by[:150], now=clock.now())
    if answer.stale:
        raise StaleTransition(run_id=run_id, status=find_run(run_id).status)
    return answer


def cancel_runs(run_ids: Collection[int], *, by: str = "") -> lifecycle.CancelAnswer:
    """Cancel many runs; final ones are reported as stale."""
    return lifecycle.cancel(run_ids, by=by[:150], now=clock.now())


def release_run(run_id: int, *, by: str = "") -> TaskRun:
    """Let a quarantined run go on. Raises RunNotFound or StaleTransition."""
    if not lifecycle.release([run_id], by=by[:150], now=clock.now()):
        raise StaleTransition(run_id=run_id, status=find_run(run_id).status)
    return find_run(run_id)


def find_task(reference: int | str) -> Task:
    """A live task by id or name. Raises TaskNotFound."""
    tasks = Task.objects.live()
    try:
        return tasks.get(pk=reference) if isinstance(reference, int) else tasks.get(name=reference)
    except (Task.DoesNotExist, OverflowError, ValueError) as error:
        raise TaskNotFound(reference=str(reference)[:100]) from error


def find_run(run_id: int) -> TaskRun:
    """A run by id. Raises RunNotFound."""
    try:
        return TaskRun.objects.select_related("task").get(pk=run_id)
    except (TaskRun.DoesNotExist, OverflowError) as error:
        raise RunNotFound(run_id=run_id) from error


def admit(task_type: str, count: int, limit: int, limit_per_type: int | None) -> None:
    """Raise BacklogFull when `count` more waiting runs would pass a bound.

    The count is at most a second old in each process: the bound guards against overload, it is not an exact limit.
    """
    _admit("global", "", count, limit)
    row_limit = Queue.objects.filter(pk=task_type).values_list("backlog_max", flat=True).first()
    per_type = row_limit if row_limit is not None else limit_per_type
    if per_type is not None:
        _admit(task_type, task_type, count, per_type)


def new_traceparent() -> str:
    """A fresh W3C trace parent, sampled, for submissions that bring none."""
    return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"


def problems_of_parameters(executor: str, merged: Mapping[str, Any]) -> list[str]:
    """What is wrong with parameters for an executor, sizes included."""
    from tasks_app.definitions import executor_problems

    return parameters.json_problems(merged, bytes_max=conf().parameters_bytes_max) or executor_problems(
        executor, merged
    )


def _admit(scope: str, task_type: str, count: int, limit: int) -> None:
    seen_at, pending = _backlog_seen.get(scope, (float("-inf"), 0))
    if time.monotonic() - seen_at > _BACKLOG_TRUST_SECONDS:
        waiting = TaskRun.objects.pending()
        if task_type:
            waiting = waiting.filter(task_type=task_type)
        pending = waiting.capped_count(limit)
        seen_at = time.monotonic()
    if pending + count > limit:
        _backlog_seen[scope] = (seen_at, pending)
        raise BacklogFull(scope=scope, pending=pending, limit=limit, retry_after_seconds=5)
    _backlog_seen[scope] = (seen_at, pending + count)


def _check(definition: TaskDefinition) -> None:
    problems = problems_of(definition, parameters_bytes_max=conf().parameters_bytes_max)
    if problems:
        raise InvalidTask(problems)


def _locked_task(task_id: int) -> Task:
    try:
        return Task.objects.live().select_for_update().get(pk=task_id)
    except (Task.DoesNotExist, OverflowError) as error:
        raise TaskNotFound(task_id=task_id) from error


def _set_schedule(task: Task, definition: TaskDefinition, *, now: datetime) -> None:
    """Make the task's schedule what its definition says; an unchanged one keeps its next fire."""
    present = Schedule.objects.filter(task=task).select_related(
        "periodic_task__interval", "periodic_task__clocked"
    )
    wanted = (definition.every_seconds, definition.run_at)
    for schedule in present:
        periodic = schedule.periodic_task
        says = (
            periodic.interval.schedule.run_every.total_seconds() if periodic.interval else None,
            periodic.clocked.clocked_time if periodic.clocked else None,
        )
        if says == wanted:
            return
        periodic.delete()
    if definition.every_seconds is not None:
        interval, _ = IntervalSchedule.objects.get_or_create(
            every=round(definition.every_seconds * 1_000_000), period=IntervalSchedule.MICROSECONDS
        )
        kind: dict[str, Any] = {"interval": interval}
        first = now + timedelta(seconds=definition.every_seconds)
    elif definition.run_at is not None:
        kind = {
            "clocked": ClockedSchedule.objects.get_or_create(clocked_time=definition.run_at)[0],
            "one_off": True,
        }
        first = definition.run_at
    else:
        return
    periodic = PeriodicTask.objects.create(
        name=f"signalbox:{task.pk}:{uuid4().hex[:8]}", task=task.name, **kind
    )
    Schedule.objects.create(periodic_task=periodic, task=task, next_fire_at=first)
