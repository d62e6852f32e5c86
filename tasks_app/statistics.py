"""What a task's runs add up to. Looks at a bounded number of rows, whatever there is."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from django.db.models import Avg, Count, Max, Q

from tasks_app.models import TaskRun
from tasks_app.querysets import RunQuerySet
from tasks_app.states import RunStatus

#: The newest runs that are looked at; `RunStatistics.capped` says when there were more.
ROWS_MAX: Final = 100_000


@dataclass(frozen=True)
class RunStatistics:
    """Counts of runs that were created in a period, and durations in milliseconds of those that completed."""

    days: int
    total: int
    successful: int
    failed: int
    timeout: int
    cancelled: int
    active: int
    success_rate: float | None
    average_ms: float | None
    p50_ms: int | None
    p95_ms: int | None
    last_execution: datetime | None
    capped: bool


def of_task(task_id: int, *, days: int, now: datetime) -> RunStatistics:
    """Statistics of a task over the last `days` days.

    success_rate is the part of COMPLETED among the runs that ended by themselves (COMPLETED, FAILED, TIMEOUT, LOST);
    None where none did. Percentiles are nearest ranks.
    """
    own = TaskRun.objects.filter(task_id=task_id, created_at__gte=now - timedelta(days=days))
    newest = own.order_by("-id").values("pk")[:ROWS_MAX]
    rows = TaskRun.objects.filter(pk__in=newest)
    completed = Q(status=RunStatus.COMPLETED.value)
    failed = Q(status__in=[RunStatus.FAILED.value, RunStatus.LOST.value])
    timeout = Q(status=RunStatus.TIMEOUT.value)
    sums = rows.aggregate(
        total=Count("pk"),
        successful=Count("pk", filter=completed),
        failed=Count("pk", filter=failed),
        timeout=Count("pk", filter=timeout),
        cancelled=Count("pk", filter=Q(status=RunStatus.CANCELLED.value)),
        active=Count("pk", filter=Q(completed_at__isnull=True)),
        average_ms=Avg("execution_duration_ms", filter=completed),
        last_execution=Max("started_at"),
    )
    ended = sums["successful"] + sums["failed"] + sums["timeout"]
    durations = rows.filter(completed, execution_duration_ms__isnull=False)
    measured = durations.count()
    return RunStatistics(
        days=days,
        success_rate=sums["successful"] / ended if ended else None,
        p50_ms=_rank(durations, measured, 50),
        p95_ms=_rank(durations, measured, 95),
        capped=sums["total"] >= ROWS_MAX,
        **sums,
    )


def _rank(durations: RunQuerySet, measured: int, percent: int) -> int | None:
    if not measured:
        return None
    at = max(0, -(-measured * percent // 100) - 1)
    ordered = durations.order_by("execution_duration_ms", "pk")
    return ordered.values_list("execution_duration_ms", flat=True)[at]
