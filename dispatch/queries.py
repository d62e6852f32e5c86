"""The dispatcher's own SQL: questions about all queues at once, each with the plan that it expects."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from django.db import connection
from django.db.models import Avg, Count, DurationField, F, Max, Min, Q

from dispatch.credit import QueueLoad
from tasks_app.models import Queue, Schedule, Task, TaskRun
from tasks_app.states import RunStatus
from workers_app.models import Worker, WorkerIncarnation

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
    if connection.vendor != "postgresql":
        return list(Queue.objects.filter(pk__in=sorted(names)).order_by("pk").values_list("pk", flat=True))
    table = Queue._meta.db_table
    with connection.cursor() as cursor:
        cursor.execute(
            f'SELECT name FROM "{table}" WHERE name = ANY (%s) ORDER BY name FOR UPDATE SKIP LOCKED', [sorted(names)]
        )
        return [row[0] for row in cursor.fetchall()]


def loads(looks: Mapping[str, Look], now: datetime) -> dict[str, QueueLoad]:
    """What is out and what is free for each of these queues. Reads what is dispatched and running, never the backlog.

    Expected plans: Index Scan using run_waiting; Index Scan using run_held_by.
    """
    since = min((look.since for look in looks.values()), default=now)
    if connection.vendor == "postgresql":
        waiting, workers, running = _loads_postgres(looks, since)
    else:
        workers = list(WorkerIncarnation.objects.taking_work().order_by().values_list("id", "slots", "task_types"))
        waiting, running = _waiting(looks), _running([row[0] for row in workers], since)
    held, permitted = _held_and_permitted(running)
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


class _Running(NamedTuple):
    """Attempts of one incarnation in one queue; of the fresh permits among them the mean wait and newest dispatch."""

    incarnation: UUID
    queue: str
    attempts: int
    fresh: int
    mean_wait: timedelta | None
    newest: datetime | None


def _loads_postgres(
    looks: Mapping[str, Look], since: datetime
) -> tuple[dict[str, tuple[int, datetime]], list[tuple[UUID, int, list[str]]], list[_Running]]:
    """The questions below in plain SQL: building them anew for each look cost more than answering them."""
    run, incarnation, worker = (model._meta.db_table for model in (TaskRun, WorkerIncarnation, Worker))
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            SELECT run.task_type, count(*), min(run.dispatched_at)
            FROM unnest(%s::text[], %s::timestamptz[]) AS look(queue, overtaken_before)
            JOIN "{run}" AS run ON run.status = 'DISPATCHED' AND run.task_type = look.queue
            WHERE look.overtaken_before IS NULL OR run.dispatched_at >= look.overtaken_before
            GROUP BY run.task_type
            """,
            [list(looks), [look.overtaken_before for look in looks.values()]],
        )
        waiting = {row[0]: (row[1], row[2]) for row in cursor.fetchall()}
        cursor.execute(
            f"""
            SELECT own.id, own.slots, own.task_types FROM "{incarnation}" AS own
            JOIN "{worker}" AS worker ON worker.name = own.worker_id
            WHERE own.over_at IS NULL AND NOT own.draining AND worker.draining_since IS NULL
            """
        )
        workers = [(row[0], row[1], json.loads(row[2])) for row in cursor.fetchall()]
        if not workers:
            return waiting, [], []
        cursor.execute(
            f"""
            SELECT incarnation_id, task_type, count(*), count(*) FILTER (WHERE permitted_at > %s),
                   avg(permitted_at - dispatched_at) FILTER (WHERE permitted_at > %s),
                   max(dispatched_at) FILTER (WHERE permitted_at > %s)
            FROM "{run}" WHERE status = 'RUNNING' AND incarnation_id = ANY (%s) GROUP BY incarnation_id, task_type
            """,
            [since, since, since, [row[0] for row in workers]],
        )
        return waiting, workers, [_Running._make(row) for row in cursor.fetchall()]


def _running(incarnations: Collection[UUID], since: datetime) -> list[_Running]:
    if not incarnations:
        return []
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
    return [_Running._make(row) for row in rows]


def _held_and_permitted(
    rows: Iterable[_Running],
) -> tuple[dict[UUID, int], dict[str, tuple[int, float, datetime]]]:
    """Attempts by incarnation; fresh permits by queue: how many, mean wait in seconds, newest dispatch."""
    held: dict[UUID, int] = {}
    permitted: dict[str, tuple[int, float, datetime]] = {}
    for row in rows:
        held[row.incarnation] = held.get(row.incarnation, 0) + row.attempts
        if not row.fresh or row.newest is None or row.mean_wait is None:
            continue
        known, known_wait, known_newest = permitted.get(row.queue, (0, 0.0, row.newest))
        total = row.fresh + known
        mean = (max(0.0, row.mean_wait.total_seconds()) * row.fresh + known_wait * known) / total
        permitted[row.queue] = (total, mean, max(row.newest, known_newest))
    return held, permitted


def _instant(text: str | datetime) -> datetime:
    parsed = text if isinstance(text, datetime) else datetime.fromisoformat(text)
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


def commit_without_waiting() -> None:
    """Let the transaction under way return from its commit before it is on disk. PostgreSQL only."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SET LOCAL synchronous_commit TO off")
