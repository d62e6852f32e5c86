"""A task's schedule in the database.

django-celery-beat's models say what it is, `Schedule` says when it fires next.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import uuid4

from django_celery_beat.models import ClockedSchedule, IntervalSchedule, PeriodicTask

from tasks_app.definitions import FRACTIONS_BELOW_SECONDS, TaskDefinition
from tasks_app.models import Schedule, Task


def says(periodic: PeriodicTask) -> tuple[float | None, datetime | None]:
    """The interval in seconds and the time of a schedule's definition; neither where it is switched off."""
    if not periodic.enabled:
        return None, None
    return (
        periodic.interval.schedule.run_every.total_seconds() if periodic.interval else None,
        periodic.clocked.clocked_time if periodic.clocked else None,
    )


def set_schedule(task: Task, definition: TaskDefinition, *, now: datetime) -> None:
    """Make the task's schedule what its definition says.

    An unchanged one keeps its next fire; a changed one keeps the history of what it fired.
    """
    present = Schedule.objects.filter(task=task).select_related("periodic_task__interval", "periodic_task__clocked")
    schedule = present.order_by("id").first()
    wanted = (definition.every_seconds, definition.run_at)
    if wanted == (None, None):
        end_schedules(task)
        return
    if schedule is not None and says(schedule.periodic_task) == wanted:
        return
    periodic = schedule.periodic_task if schedule else PeriodicTask(name=f"signalbox:{task.pk}:{uuid4().hex[:8]}")
    periodic.task, periodic.enabled = task.name, True
    periodic.interval = periodic.clocked = None
    if definition.every_seconds is not None:
        periodic.interval, periodic.one_off = _interval(definition.every_seconds), False
        first = now + timedelta(seconds=definition.every_seconds)
    else:
        assert definition.run_at is not None
        at = definition.run_at
        periodic.clocked = ClockedSchedule.objects.filter(clocked_time=at).order_by("pk").first()
        periodic.clocked = periodic.clocked or ClockedSchedule.objects.create(clocked_time=at)
        periodic.one_off, first = True, at
    periodic.save()
    if schedule is None:
        Schedule.objects.create(periodic_task=periodic, task=task, next_fire_at=first)
    else:
        Schedule.objects.filter(pk=schedule.pk).update(next_fire_at=first)


def _interval(seconds: float) -> IntervalSchedule:
    """The interval's row.

    Not `get_or_create`: nothing keeps these rows unique, and two of them are no error.
    """
    if seconds > FRACTIONS_BELOW_SECONDS or float(seconds).is_integer():
        every, period = round(seconds), IntervalSchedule.SECONDS
    else:
        every, period = round(seconds * 1_000_000), IntervalSchedule.MICROSECONDS
    found = IntervalSchedule.objects.filter(every=every, period=period).order_by("pk").first()
    return found or IntervalSchedule.objects.create(every=every, period=period)


def end_schedules(task: Task) -> None:
    """The task fires no more; what it fired stays on record."""
    schedules = Schedule.objects.filter(task=task)
    PeriodicTask.objects.filter(signalbox__task=task).update(enabled=False)
    schedules.filter(next_fire_at__isnull=False).update(next_fire_at=None)
