"""Use cases of tasks and runs. Views, admin actions, commands and schedules make one call into these."""

from __future__ import annotations

import re
import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from django.db import IntegrityError, transaction

from tasks_app import functions, lifecycle, parameters, results
from tasks_app.admission import admit
from tasks_app.clock import clock
from tasks_app.conf import conf
from tasks_app.definitions import TaskDefinition, definition_from, executor_problems, problems_of
from tasks_app.errors import (
    DuplicateTask,
    EditConflict,
    InvalidParameters,
    InvalidTask,
    RunNotFound,
    StaleTransition,
    TaskNotFound,
)
from tasks_app.models import Queue, Schedule, Task, TaskRun, TaskVersion
from tasks_app.scheduling import end_schedules, says, set_schedule
from tasks_app.states import is_final
from tasks_app.text import Text

#: Fields of a definition that are columns of a task; the rest is its schedule.
_COLUMNS = tuple(f.name for f in fields(TaskDefinition) if f.name not in {"every_seconds", "run_at"})
_TRACEPARENT = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


def create_task(definition: TaskDefinition, *, by: str = "") -> Task:
    """Make a task at version 1. Raises InvalidTask or DuplicateTask; nothing is half saved."""
    check(definition)
    with transaction.atomic():
        Queue.objects.get_or_create(name=definition.task_type)
        try:
            with transaction.atomic():
                task = Task.objects.create(**definition.columns(), created_by=by)
        except IntegrityError as error:
            raise DuplicateTask(name=definition.name) from error
        TaskVersion.objects.create(task=task, number=1, definition=definition.as_json(), created_by=by)
        set_schedule(task, definition, now=clock.now())
    return task


def update_task(task_id: int, definition: TaskDefinition, *, expected_version: int | None = None, by: str = "") -> Task:
    """Replace a task's definition and number a new version. Runs that exist keep what they were made from.

    A definition that says the same as the present one changes nothing, not even the version.

    Raises TaskNotFound, InvalidTask, DuplicateTask, or EditConflict when `expected_version` is no longer the
    present one.
    """
    check(definition)
    with transaction.atomic():
        task = _locked_task(task_id)
        _compare_version(task, expected_version)
        if definition == definition_of(task):
            return task
        Queue.objects.get_or_create(name=definition.task_type)
        for column, value in definition.columns().items():
            setattr(task, column, value)
        task.version += 1
        try:
            with transaction.atomic():
                task.save()
        except IntegrityError as error:
            raise DuplicateTask(name=definition.name) from error
        TaskVersion.objects.create(task=task, number=task.version, definition=definition.as_json(), created_by=by)
        set_schedule(task, definition, now=clock.now())
    return task


def change_task(task_id: int, changes: Mapping[str, Any], *, expected_version: int | None = None, by: str = "") -> Task:
    """Change some fields of a task's definition: what was read and what is written belong together.

    `changes` holds plain values, as for `definition_from`. Raises what `update_task` raises.
    """
    with transaction.atomic():
        definition = definition_from(changes, base=definition_of(_locked_task(task_id)))
        return update_task(task_id, definition, expected_version=expected_version, by=by)


def delete_task(task_id: int, *, expected_version: int | None = None, by: str = "") -> None:
    """Take a task out of use: it fires and triggers no more, its runs are cancelled, its history stays.

    Raises TaskNotFound, or EditConflict when `expected_version` is no longer the present one.
    """
    with transaction.atomic():
        task = _locked_task(task_id)
        _compare_version(task, expected_version)
        now = clock.now()
        Task.objects.filter(pk=task.pk).update(deleted_at=now, updated_at=now)
        end_schedules(task)
        # All of them: a retry of one that was left alone would wait for ever behind the blocker "task deleted".
        active = list(TaskRun.objects.active().filter(task=task).values_list("pk", flat=True))
        lifecycle.cancel(active, by=by[:150] or "task deleted", now=now)


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
                    Schedule.objects.filter(pk=schedule.pk).update(next_fire_at=schedule.next_fire_at + passed * every)
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

    Raises TaskNotFound, InvalidParameters, BacklogFull. The run is accepted when the surrounding transaction
    commits.
    """
    target = task if isinstance(task, Task) else find_task(task)
    now = clock.now()
    runs = _accepted(
        target, [{} if parameters_over is None else parameters_over], now,
        priority=priority, lane=lane, due_at=due_at, triggered_by=triggered_by, by=by, traceparent=traceparent,
        correlation_id=correlation_id,
    )  # fmt: skip
    [run_id] = lifecycle.submit(runs, now=now, live_task=target)
    # As it was written, without asking for it: the way back to the caller is part of every call.
    return lifecycle.as_submitted(runs[0], run_id, now=now)


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
    now = clock.now()
    runs = _accepted(
        target, parameters_over, now,
        priority=priority, lane=lane, due_at=due_at, triggered_by=triggered_by, by=by, traceparent=traceparent,
        correlation_id=correlation_id,
    )  # fmt: skip
    return lifecycle.submit(runs, now=now, live_task=target)


def retry_run(
    run_id: int, *, parameters_over: Mapping[str, Any] | None = None, by: str = "", traceparent: str = ""
) -> TaskRun:
    """A new run like a final one, linked to it and in the same trace.

    It runs what the task says now, with the old run's parameters. Raises RunNotFound, TaskNotFound where the
    task was deleted, InvalidParameters, or StaleTransition while the old run is not final.
    """
    old = find_run(run_id)
    if not is_final(old.status):
        raise StaleTransition(run_id=run_id, status=old.status)
    if old.task.deleted_at is not None:
        raise TaskNotFound(reference=old.task_name)
    now = clock.now()
    again = lifecycle.NewRun(
        task=old.task,
        parameters=_merged_parameters(
            old.task.executor, old.parameters, {} if parameters_over is None else parameters_over, always=True
        ),
        due_at=now,
        priority=old.priority,
        lane=old.lane,
        triggered_by="retry",
        created_by=by[:150],
        correlation_id=old.correlation_id,
        traceparent=_checked_traceparent(traceparent or old.traceparent),
        retry_of_id=old.pk,
    )
    [new_id] = lifecycle.submit([again], now=now, live_task=old.task)
    return lifecycle.as_submitted(again, new_id, now=now)


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
    """A run by id; a large result is left where it is, see `results`. Raises RunNotFound."""
    try:
        return results.settle(results.without_large(TaskRun.objects.select_related("task")).get(pk=run_id))
    except (TaskRun.DoesNotExist, OverflowError) as error:
        raise RunNotFound(run_id=run_id) from error


def definition_of(task: Task) -> TaskDefinition:
    """What a task says now, its schedule included."""
    every: float | None = None
    run_at: datetime | None = None
    for schedule in task.schedules.all():
        every, run_at = says(schedule.periodic_task)
    columns = {name: getattr(task, name) for name in _COLUMNS}
    return TaskDefinition(**columns, every_seconds=every, run_at=run_at)


def new_traceparent() -> str:
    """A fresh W3C trace parent, sampled, for submissions that bring none."""
    return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"


def problems_of_parameters(executor: str, merged: Mapping[str, Any]) -> list[str]:
    """What is wrong with parameters for an executor, sizes included."""
    return parameters.json_problems(merged, bytes_max=conf().parameters_bytes_max) or executor_problems(
        executor, merged
    )


def _accepted(
    task: Task,
    parameters_over: Sequence[Mapping[str, Any]],
    now: datetime,
    *,
    priority: int | None,
    lane: str,
    due_at: datetime | None,
    triggered_by: str,
    by: str,
    traceparent: str,
    correlation_id: UUID | None,
) -> list[lifecycle.NewRun]:
    """What an outside caller asks for, checked and let in. Raises InvalidParameters or BacklogFull."""
    settings = conf()
    given = [_merged_parameters(task.executor, task.parameters, over) for over in parameters_over]
    if priority is not None and not 0 <= priority <= 9:
        raise InvalidParameters({"priority": [Text("0 to 9")]})
    admit(task.task_type, len(given), settings.backlog_max, settings.backlog_per_type_max)
    return [
        lifecycle.NewRun(
            task=task, parameters=merged, due_at=due_at or now, priority=priority, lane=lane[:100],
            triggered_by=triggered_by, created_by=by[:150], traceparent=_checked_traceparent(traceparent),
            correlation_id=correlation_id or uuid4(),
        )
        for merged in given
    ]  # fmt: skip


def _merged_parameters(
    executor: str, base: Mapping[str, Any], over: Mapping[str, Any], *, always: bool = False
) -> dict[str, Any]:
    if not isinstance(over, Mapping):
        raise InvalidParameters({"parameters": [Text("must be a JSON object")]})
    merged = parameters.merged(base, over)
    if over or always:
        problems = problems_of_parameters(executor, merged)
        if not problems and executor == "python" and merged.get("function") != base.get("function"):
            problems = functions.function_problems(merged)
        if problems:
            raise InvalidParameters({"parameters": problems})
    return merged


def _checked_traceparent(traceparent: str) -> str:
    return traceparent if _TRACEPARENT.fullmatch(traceparent) else new_traceparent()


def _compare_version(task: Task, expected: int | None) -> None:
    if expected is not None and task.version != expected:
        raise EditConflict(expected=expected, present=task.version)


def check(definition: TaskDefinition) -> None:
    """Raise InvalidTask when the definition could not be saved."""
    problems = problems_of(definition, parameters_bytes_max=conf().parameters_bytes_max)
    if definition.executor == "python" and "parameters" not in problems:
        unknown = functions.function_problems(definition.parameters)
        if unknown:
            problems["parameters"] = unknown
    if problems:
        raise InvalidTask(problems)


def _locked_task(task_id: int) -> Task:
    try:
        return Task.objects.live().select_for_update().get(pk=task_id)
    except (Task.DoesNotExist, OverflowError) as error:
        raise TaskNotFound(task_id=task_id) from error
