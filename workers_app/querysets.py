"""Every query of the workers' tables."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from django.db import models
from django.db.models import Case, Exists, OuterRef, Q, Value, When

if TYPE_CHECKING:
    from workers_app.models import Worker, WorkerIncarnation  # noqa: F401


class WorkerState(models.TextChoices):
    """What a worker's rows add up to at an instant."""

    ONLINE = "ONLINE"
    SUSPECT = "SUSPECT"
    LOST = "LOST"
    DRAINING = "DRAINING"
    OFFLINE = "OFFLINE"


class WorkerQuerySet(models.QuerySet["Worker"]):
    """Workers."""

    def with_state(self, now: datetime, suspect_after: timedelta) -> WorkerQuerySet:
        """Annotate `state`: computed from leases, drain and the last heartbeat, never stored.

        LOST: the newest incarnation was judged over. OFFLINE: it said goodbye, or there is none. SUSPECT: its lease is
        good and its heartbeats are missing.
        """
        from workers_app.models import WorkerIncarnation

        own = WorkerIncarnation.objects.filter(worker=OuterRef("pk"))
        live = own.filter(over_at__isnull=True)
        newest_clean = own.order_by("-started_at").values("ended_cleanly")[:1]
        return self.annotate(_live=Exists(live), _known=Exists(own), _clean=models.Subquery(newest_clean)).annotate(
            state=Case(
                When(Q(_live=False) & (Q(_known=False) | Q(_clean=True)), then=Value(WorkerState.OFFLINE.value)),
                When(_live=False, then=Value(WorkerState.LOST.value)),
                When(draining_since__isnull=False, then=Value(WorkerState.DRAINING.value)),
                When(
                    Q(last_heartbeat__isnull=True) | Q(last_heartbeat__lt=now - suspect_after),
                    then=Value(WorkerState.SUSPECT.value),
                ),
                default=Value(WorkerState.ONLINE.value),
                output_field=models.CharField(),
            )
        )


class IncarnationQuerySet(models.QuerySet["WorkerIncarnation"]):
    """Incarnations of workers."""

    def live(self) -> IncarnationQuerySet:
        """Neither judged over nor ended."""
        return self.filter(over_at__isnull=True).order_by("started_at", "id")

    def taking_work(self) -> IncarnationQuerySet:
        """Live and not draining: their slots are credit."""
        return self.live().filter(draining=False, worker__draining_since__isnull=True)
