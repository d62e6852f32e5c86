"""The dispatcher's own SQL: questions about all queues at once, each with the plan that it expects."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import NamedTuple
from uuid import UUID

from django.db import connection
from django.db.models import Avg, Count, DurationField, F, Max, Min, Q

from dispatch.credit import QueueLoad
from tasks_app.models import Queue, Schedule, Task, TaskRun
from tasks_app.states import RunStatus
from workers_app.models import WorkerIncarnation

_PRIORITIES = "(" + " UNION ALL ".join(f"SELECT {n} AS priority" for n in range(9, -1, -1)) + ")"


class Head(NamedTuple):
    """The first pending run of a queue at one priority: when it is due."""

    queue: str
    priority: int
    due_at: datetime


class Look(NamedTuple):
    """What a dispatcher remembers of a queue: when it last looked, and which messages were overtaken."""

    since: datetime
    overtaken_before: datetime | None = None


def heads() -> list[Head]:
    """For each queue and priority the earliest due time of what is pending, in the past or not; best priority first.

    One look into the index for each pair, whatever the backlog: a million rows due later at a higher priority cost
    nothing. Expected plan: a SubPlan with Limit over Index Only Scan (or Index Scan) using run_claim. The sub-select
    has a LIMIT, so that it is never turned into a join, which statistics could send over the whole table.
    """
    run, queue, pending = TaskRun._meta.db_table, Queue._meta.db_table, RunStatus.PENDING.value
    sql = f"""
        SELECT name, priority, due_at FROM (
            SELECT queue.name, p.priority, (
                SELECT run.due_at FROM "{run}" AS run
                WHERE run.status = '{pending}' AND run.task_type = queue.name AND run.priority = p.priority
                ORDER BY run.due_at LIMIT 1
            ) AS due_at
            FROM "{queue}" AS queue CROSS JOIN {_PRIORITIES} AS p
        ) AS head WHERE due_at IS NOT NULL ORDER BY priority DESC, due_at, name
    """
    with connection.cursor() as cursor:
        cursor.execute(sql)
        rows = cursor.fetchall()
    if connection.vendor == "postgresql":
        return [Head(*row) for row in rows]
    # SQLite gives back the text that it stores.
    return [Head(name, priority, _instant(due_at)) for name, priority, due_at in rows]


def lock_queues(names: Collection[str]) -> list[str]:
    """Lock these queues' rows in sorted order; returns those that nobody else holds, who serves the rest."""
    return list(
        Queue.objects.select_for_update(skip_locked=connection.features.has_select_for_update_skip_locked)
        .filter(pk__in=sorted(names))
        .order_by("pk")
        .values_list("pk", flat=True)
    )


def loads(looks: Mapping[str, Look], now: datetime) -> dict[str, QueueLoad]:
    """What is out and what is free for each of these queues. Reads what is dispatched and running, never the backlog.

    Expected plans: Index Scan using run_waiting; Index Scan using run_held_by.
    """
    waiting = _waiting(looks)
    workers = list(WorkerIncarnation.objects.taking_work().order_by().values_list("id", "slots", "task_types"))
    since = min((look.since for look in looks.values()), default=now)
    held, permitted = _running([row[0] for row in workers], since)
    found = {}
    for name in looks:
        serving = [(incarnation, slots) for incarnation, slots, types in workers if name in types]
        count, oldest = waiting.get(name, (0, None))
        permits, mean_wait, newest = permitted.get(name, (0, 0.0, None))
        found[name] = QueueLoad(
            slots=sum(slots for _, slots in serving),
            running=sum(held.get(incarnation, 0) for incarnation, _ in serving),
            dispatched=count,
            oldest_wait_seconds=max(0.0, (now - oldest).total_seconds()) if oldest else 0.0,
            permitted=permits,
            permitted_wait_seconds=mean_wait,
            newest_permitted=newest,
        )
    return found


def next_fire() -> datetime | None:
    """When the next schedule is due. Expected plan: Limit over Index Scan using schedule_due."""
    return (
        Schedule.objects.filter(
            next_fire_at__isnull=False,
            periodic_task__enabled=True,
            task__paused_at__isnull=True,
            task__deleted_at__isnull=True,
        )
        .order_by("next_fire_at")
        .values_list("next_fire_at", flat=True)
        .first()
    )


def add_missing_queues() -> list[str]:
    """A queue's row for each task type of a live task that has none, however the task came to be."""
    known = Queue.objects.values("pk")
    missing = sorted(set(Task.objects.live().exclude(task_type__in=known).values_list("task_type", flat=True)))
    Queue.objects.bulk_create([Queue(name=name) for name in missing], ignore_conflicts=True)
    return missing


def _waiting(looks: Mapping[str, Look]) -> dict[str, tuple[int, datetime]]:
    counted = Q()
    for name, look in looks.items():
        one = Q(task_type=name)
        if look.overtaken_before is not None:
            one &= Q(dispatched_at__gte=look.overtaken_before)
        counted |= one
    rows = (
        TaskRun.objects.dispatched()
        .filter(counted)
        .order_by()
        .values_list("task_type")
        .annotate(Count("id"), Min("dispatched_at"))
    )
    return {row[0]: (row[1], row[2]) for row in rows}


def _running(
    incarnations: Collection[UUID], since: datetime
) -> tuple[dict[UUID, int], dict[str, tuple[int, float, datetime]]]:
    """Attempts by incarnation; permits since an instant by queue: how many, mean wait (s), newest dispatch."""
    held: dict[UUID, int] = {}
    permitted: dict[str, tuple[int, float, datetime]] = {}
    if not incarnations:
        return held, permitted
    fresh = Q(permitted_at__gt=since)
    rows = (
        TaskRun.objects.running()
        .filter(incarnation_id__in=list(incarnations))
        .order_by()
        .values_list("incarnation_id", "task_type")
        .annotate(
            held=Count("id"),
            permits=Count("id", filter=fresh),
            waited=Avg(F("permitted_at") - F("dispatched_at"), filter=fresh, output_field=DurationField()),
            newest=Max("dispatched_at", filter=fresh),
        )
    )
    for incarnation, queue, count, fresh_count, mean_wait, newest in rows:
        held[incarnation] = held.get(incarnation, 0) + count
        if not fresh_count:
            continue
        wait = max(0.0, mean_wait.total_seconds()) if mean_wait is not None else 0.0
        known, known_wait, known_newest = permitted.get(queue, (0, 0.0, newest))
        total = fresh_count + known
        mean = (wait * fresh_count + known_wait * known) / total
        permitted[queue] = (total, mean, max(newest, known_newest))
    return held, permitted


def _instant(text: str | datetime) -> datetime:
    parsed = text if isinstance(text, datetime) else datetime.fromisoformat(text)
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
