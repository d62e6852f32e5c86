"""Every query of the task domain. Names are adjectives; order is explicit and unique."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Any

from django.db import models

from tasks_app.states import ACTIVE, RunStatus

if TYPE_CHECKING:
    from tasks_app.models import Schedule, Task, TaskRun  # noqa: F401


class Bytes(models.Func):
    """How many bytes a text has in UTF-8. PostgreSQL knows it without unpacking a text that it keeps packed."""

    function = "OCTET_LENGTH"
    output_field = models.BigIntegerField()

    def as_sqlite(self, compiler: Any, connection: Any, **context: Any) -> Any:
        """SQLite has OCTET_LENGTH only since 3.43."""
        return self.as_sql(compiler, connection, template="LENGTH(CAST(%(expressions)s AS BLOB))", **context)


class TaskQuerySet(models.QuerySet["Task"]):
    """Tasks."""

    def live(self) -> TaskQuerySet:
        """Not deleted."""
        return self.filter(deleted_at__isnull=True)

    def with_schedule(self) -> TaskQuerySet:
        """Bring the schedule along, in one more query for all."""
        from tasks_app.models import Schedule

        schedules = Schedule.objects.select_related("periodic_task__interval", "periodic_task__clocked")
        return self.prefetch_related(models.Prefetch("schedules", queryset=schedules.order_by("id")))


class RunQuerySet(models.QuerySet["TaskRun"]):
    """Runs."""

    def pending(self) -> RunQuerySet:
        """Submitted and not yet handed to a broker."""
        return self.filter(status=RunStatus.PENDING.value)

    def dispatched(self) -> RunQuerySet:
        """Handed to a broker and not yet permitted."""
        return self.filter(status=RunStatus.DISPATCHED.value)

    def running(self) -> RunQuerySet:
        """Permitted and not yet reported."""
        return self.filter(status=RunStatus.RUNNING.value)

    def active(self) -> RunQuerySet:
        """Not in a final state."""
        return self.filter(status__in=sorted(s.value for s in ACTIVE))

    def due(self, now: datetime) -> RunQuerySet:
        """Pending and due, best first: the order of the claim."""
        return self.pending().filter(due_at__lte=now).order_by("-priority", "due_at", "id")

    def overdue_for_permit(self, now: datetime) -> RunQuerySet:
        """Dispatched, and the message has not led to a permit in time."""
        return self.dispatched().filter(permit_by__lt=now).order_by("permit_by", "id")

    def past_deadline(self, now: datetime) -> RunQuerySet:
        """Running beyond the deadline that the permit carried."""
        return self.running().filter(deadline_at__lt=now).order_by("deadline_at", "id")

    def held_by(self, incarnations: Iterable[object]) -> RunQuerySet:
        """Running under one of these worker incarnations."""
        return self.running().filter(incarnation_id__in=list(incarnations)).order_by("id")

    def before(self, cursor: int | None) -> RunQuerySet:
        """Newest first, after a keyset cursor (the id of the last row seen)."""
        rows = self if cursor is None else self.filter(id__lt=cursor)
        return rows.order_by("-id")

    def capped_count(self, cap: int = 1000) -> int:
        """How many there are, but never looks at more than `cap` + 1 rows."""
        return self.order_by()[: cap + 1].count()


class ScheduleQuerySet(models.QuerySet["Schedule"]):
    """Schedules."""

    def due(self, now: datetime) -> ScheduleQuerySet:
        """To be fired now: enabled, task neither paused nor deleted; earliest first."""
        return self.filter(
            next_fire_at__lte=now,
            periodic_task__enabled=True,
            task__paused_at__isnull=True,
            task__deleted_at__isnull=True,
        ).order_by("next_fire_at", "id")
