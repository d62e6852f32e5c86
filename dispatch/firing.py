"""Due schedules become runs, each nominal time once, over any number of dispatchers.

A schedule's row is locked while its fire is decided (SKIP LOCKED: others take other schedules); the fire, the run, and
the next fire time are one transaction. UNIQUE(schedule, instant, backfill) is the second line: an instant that is
recorded already, by a clock that was set back or a restored backup, is not fired again.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

from django.db import transaction
from django_celery_beat.models import PeriodicTask

from tasks_app import lifecycle
from tasks_app.crashpoints import reach
from tasks_app.lifecycle.rows import insert_rows, update_rows
from tasks_app.models import Schedule, ScheduleFire
from tasks_app.schedules import Due, due_interval, due_once
from tasks_app.services import new_traceparent

logger = logging.getLogger(__name__)

_FIRE_COLUMNS = ("schedule", "instant", "backfill", "run", "decision", "reason", "last_instant", "count", "at")


@dataclass(frozen=True, slots=True)
class Fired:
    """runs: made. skipped: nominal times that were passed over, each counted. more: further schedules are due."""

    runs: int
    skipped: int
    more: bool


def fire_due(now: datetime, *, batch: int = 500) -> Fired:
    """Fire at most `batch` schedules that are due."""
    with transaction.atomic():
        schedules = list(
            Schedule.objects.due(now)
            .select_for_update(skip_locked=True, of=("self",))
            .select_related("periodic_task__interval", "periodic_task__clocked", "task")[:batch]
        )
        if not schedules:
            return Fired(0, 0, False)
        owed = [(schedule, due) for schedule in schedules if (due := _due(schedule, now)) is not None]
        recorded = _recorded(owed)
        fresh = [(schedule, due) for schedule, due in owed if (schedule.pk, due.fire) not in recorded]
        run_ids = _submit(fresh, now)
        skips = [pair for pair in owed if pair[1].skipped_count and (pair[0].pk, pair[1].skipped_first) not in recorded]
        insert_rows(
            ScheduleFire,
            _FIRE_COLUMNS,
            [
                (schedule.pk, due.fire, 0, run_id, "fired", "", None, 1, now)
                for (schedule, due), run_id in zip(fresh, run_ids, strict=True)
            ]
            + [
                (schedule.pk, due.skipped_first, 0, None, "skipped", "missed", due.skipped_last, due.skipped_count, now)
                for schedule, due in skips
            ],
        )
        _move_on(schedules, {schedule.pk: due for schedule, due in owed}, now)
        reach("fire.before_commit")
    return Fired(len(run_ids), sum(due.skipped_count for _, due in skips), len(schedules) == batch)


def _due(schedule: Schedule, now: datetime) -> Due | None:
    periodic = schedule.periodic_task
    assert schedule.next_fire_at is not None
    if periodic.interval is not None:
        every = timedelta(**{periodic.interval.period: periodic.interval.every})
        if every > timedelta(0):
            return due_interval(schedule.next_fire_at, every, now)
    elif periodic.clocked is not None:
        return due_once(schedule.next_fire_at)
    logger.warning("schedule of a kind that is not supported", extra={"schedule_id": schedule.pk})
    return None


def _recorded(owed: Sequence[tuple[Schedule, Due]]) -> set[tuple[int, datetime]]:
    instants = {instant for _, due in owed for instant in (due.fire, due.skipped_first) if instant is not None}
    if not instants:
        return set()
    return set(
        ScheduleFire.objects.filter(
            schedule__in=[schedule.pk for schedule, _ in owed], instant__in=instants, backfill=0
        ).values_list("schedule_id", "instant")
    )


def _submit(fresh: Sequence[tuple[Schedule, Due]], now: datetime) -> list[int]:
    return lifecycle.submit(
        [
            lifecycle.NewRun(
                task=schedule.task, parameters=dict(schedule.task.parameters), due_at=due.fire, scheduled_at=due.fire,
                triggered_by="schedule", traceparent=new_traceparent(), correlation_id=uuid4(),
            )
            for schedule, due in fresh
        ],
        now=now,
    )  # fmt: skip


def _move_on(schedules: Sequence[Schedule], owed: dict[int, Due], now: datetime) -> None:
    rows: list[tuple[Any, ...]] = []
    for schedule in schedules:
        due = owed.get(schedule.pk)
        # One of an unknown kind is taken out, or it would be due again at every look.
        rows.append((schedule.pk, due.next_fire_at, due.fire) if due else (schedule.pk, None, schedule.last_fire_at))
    update_rows(Schedule, ("next_fire_at", "last_fire_at"), rows)
    # What people see in beat's own tables. By column, not by save(): that would tell beat's schedulers of a change.
    ran = [(schedule.periodic_task_id, now) for schedule in schedules if schedule.pk in owed]
    update_rows(PeriodicTask, ("last_run_at",), ran)
    ended = [s.periodic_task_id for s in schedules if s.pk in owed and owed[s.pk].next_fire_at is None]
    if ended:
        PeriodicTask.objects.filter(pk__in=ended).update(enabled=False)
