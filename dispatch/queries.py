"""The dispatcher's own SQL: questions about all queues at once, each with the plan that it expects."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, NamedTuple
from uuid import UUID

from django.db import connection
from django.db.models import Avg, Count, DurationField, F, Max, Min, Q

from dispatch.credit import QueueLoad
from tasks_app.lifecycle.arrays import array_literal
from tasks_app.lifecycle.rows import in_one_go, postgres_cursor
from tasks_app.models import Queue, Schedule, Task, TaskRun
from tasks_app.states import RunStatus
from workers_app.models import Worker, WorkerIncarnation

Statement = tuple[str, Sequence[Any]]
_RUN, _INCARNATION, _WORKER, _QUEUE = (
    f'"{model._meta.db_table}"' for model in (TaskRun, WorkerIncarnation, Worker, Queue)
)
_PRIORITIES = "(" + " UNION ALL ".join(f"SELECT {n} AS priority" for n in range(9, -1, -1)) + ")"


_LOCK_SQL = (
    f"SELECT name, set_config('synchronous_commit', 'off', true) FROM {_QUEUE} "
    "WHERE name = ANY (%s::text[]) ORDER BY name FOR UPDATE SKIP LOCKED"
)
_TAKING = (
    f"FROM {_INCARNATION} AS own JOIN {_WORKER} AS worker ON worker.name = own.worker_id "
    "WHERE own.over_at IS NULL AND NOT own.draining AND worker.draining_since IS NULL"
)
# One statement: each costs the same again to send, to begin and to read, more than these few rows do.
_LOAD_SQL = f"""
    WITH taking AS (SELECT own.id, own.slots, own.task_types {_TAKING})
    SELECT 'waiting', NULL::uuid, run.task_type, NULL::jsonb, count(*), NULL::bigint, NULL::interval,
           min(run.dispatched_at)
    FROM unnest(%s::text[], %s::timestamptz[]) AS look(queue, overtaken_before)
    JOIN {_RUN} AS run ON run.status = 'DISPATCHED' AND run.task_type = look.queue
    WHERE look.overtaken_before IS NULL OR run.dispatched_at >= look.overtaken_before
    GROUP BY run.task_type
    UNION ALL
    SELECT 'worker', id, NULL, task_types, slots, NULL, NULL, NULL FROM taking
    UNION ALL
    SELECT 'running', incarnation_id, task_type, NULL, count(*), count(*) FILTER (WHERE permitted_at > given.since),
           avg(permitted_at - dispatched_at) FILTER (WHERE permitted_at > given.since),
           max(dispatched_at) FILTER (WHERE permitted_at > given.since)
    FROM {_RUN}, (SELECT %s::timestamptz AS since) AS given
    WHERE status = 'RUNNING' AND incarnation_id = ANY (ARRAY(SELECT id FROM taking))
    GROUP BY incarnation_id, task_type
"""


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
    if connection.vendor == "postgresql":
        with postgres_cursor() as cursor:
            cursor.execute(*heads_statement(), binary=True)
            return [Head(*row) for row in cursor.fetchall()]
    with connection.cursor() as cursor:
        cursor.execute(*heads_statement())
        # SQLite gives back the text that it stores.
        return [Head(name, priority, _instant(due_at)) for name, priority, due_at in cursor.fetchall()]


@lru_cache(maxsize=1)
def heads_statement() -> tuple[str, tuple[()]]:
    """The statement of `heads`."""
    pending = RunStatus.PENDING.value
    sql = f"""
        SELECT name, priority, due_at FROM (
            SELECT queue.name, p.priority, (
                SELECT run.due_at FROM {_RUN} AS run
                WHERE run.status = '{pending}' AND run.task_type = queue.name AND run.priority = p.priority
                ORDER BY run.due_at LIMIT 1
            ) AS due_at
            FROM {_QUEUE} AS queue CROSS JOIN {_PRIORITIES} AS p
        ) AS head WHERE due_at IS NOT NULL ORDER BY priority DESC, due_at, name
    """
    return sql, ()


def heads_and_loads(looks: Mapping[str, Look], now: datetime) -> tuple[list[Head], dict[str, QueueLoad]]:
    """`heads`, and in the same exchange with the database what `lock_and_load` does for these queues.

    The looks are of queues that probably have due rows; without any nothing is locked and no transaction is needed.
    """
    if not looks:
        return heads(), {}
    if connection.vendor != "postgresql":
        return heads(), lock_and_load(looks, now)
    found, locked, rows = in_one_go([heads_statement(), *_lock_and_load_statements(looks, now)])
    return [Head(*row) for row in found], _locked_loads(looks, now, locked, rows)


def lock_and_load(looks: Mapping[str, Look], now: datetime) -> dict[str, QueueLoad]:
    """Lock these queues' rows, and then ask for their load. Must be called inside a transaction.

    Without the queues that somebody else holds, who serves them. The transaction does not wait for the disk when it
    commits: a claim that a crash of the database takes back is harmless, its message carries a token that nobody knows
    any more.
    """
    if connection.vendor != "postgresql":
        held = Queue.objects.filter(pk__in=sorted(looks)).order_by("pk").values_list("pk", flat=True)
        return _found({name: looks[name] for name in held}, now, *_load_rows(looks, _since(looks, now)))
    locked, rows = in_one_go(_lock_and_load_statements(looks, now))
    return _locked_loads(looks, now, locked, rows)


def _lock_and_load_statements(looks: Mapping[str, Look], now: datetime) -> list[Statement]:
    # Each statement has its own snapshot: what is counted is counted when the locks are there.
    return [(_LOCK_SQL, [array_literal(sorted(looks))]), load_statement(looks, _since(looks, now))]


def _locked_loads(
    looks: Mapping[str, Look], now: datetime, locked: Sequence[Any], rows: Sequence[Any]
) -> dict[str, QueueLoad]:
    return _found({name: looks[name] for name, _ in locked}, now, *_load_read(rows))


def loads(looks: Mapping[str, Look], now: datetime) -> dict[str, QueueLoad]:
    """What is out and what is free for each of these queues. Reads what is dispatched and running, never the backlog.

    Expected plans: Index Scan using run_waiting; Index Scan using run_held_by.
    """
    since = _since(looks, now)
    if connection.vendor != "postgresql":
        return _found(looks, now, *_load_rows(looks, since))
    return _found(looks, now, *_load_read(in_one_go([load_statement(looks, since)])[0]))


def _since(looks: Mapping[str, Look], now: datetime) -> datetime:
    return min((look.since for look in looks.values()), default=now)


def _found(looks: Mapping[str, Look], now: datetime, waiting: Waiting, workers: Workers, running: Runnings) -> Loads:
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


Loads = dict[str, QueueLoad]
#: Queue → messages that wait, and when the oldest was dispatched.
Waiting = Mapping[str, tuple[int, datetime]]
#: (incarnation, slots, task types) of those that take work.
Workers = Sequence[tuple[UUID, int, Collection[str]]]
Runnings = Sequence[_Running]


def load_statement(looks: Mapping[str, Look], since: datetime) -> Statement:
    """What waits, who takes work, and what these run, for PostgreSQL."""
    overtaken = array_literal([look.overtaken_before for look in looks.values()])
    return _LOAD_SQL, [array_literal(list(looks)), overtaken, since]


def _load_read(rows: Sequence[Any]) -> tuple[Waiting, Workers, Runnings]:
    waiting, workers, running = {}, [], []
    for kind, incarnation, queue, task_types, count, fresh, mean_wait, instant in rows:
        if kind == "waiting":
            waiting[queue] = (count, instant)
        elif kind == "worker":
            workers.append((incarnation, count, task_types))
        else:
            running.append(_Running(incarnation, queue, count, fresh, mean_wait, instant))
    return waiting, workers, running


def _load_rows(looks: Mapping[str, Look], since: datetime) -> tuple[Waiting, Workers, Runnings]:
    workers = list(WorkerIncarnation.objects.taking_work().order_by().values_list("id", "slots", "task_types"))
    return _waiting(looks), workers, _running([row[0] for row in workers], since)


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
