"""Claim: PENDING → DISPATCHED, with a fresh token for each dispatch.

The caller brings the candidates as a query (due, not blocked, at most as many as there is credit for) inside the
transaction in which it holds the queues' rows. On PostgreSQL that query becomes the body of one statement that locks
with SKIP LOCKED, writes and returns what a message needs. Expected plan: Index Scan using run_claim for the candidates,
Tid Scan for the update: the rows are locked, so they are where they were found, and no index has to be chosen. (By
primary key, stale statistics made the planner read the whole of another index that holds the id, too.) A row that moved
between the statement's snapshot and its lock is not found again and waits for the next round.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID, uuid4

from django.db import connection, transaction
from django.db.models import TextField
from django.db.models.expressions import RawSQL

from tasks_app.lifecycle.rows import postgres_cursor, update_rows
from tasks_app.models import TaskRun
from tasks_app.querysets import RunQuerySet
from tasks_app.states import RunStatus


class Claimed(NamedTuple):
    """A run that was just claimed, with what its message says."""

    id: int
    task_id: int
    task_name: str
    task_type: str
    executor: str
    parameters: dict[str, Any]
    attempt: int
    token: UUID
    timeout_seconds: int
    correlation_id: UUID
    traceparent: str
    dispatch_count: int
    due_at: datetime


_RETURNED = (
    "id", "task_id", "task_name", "task_type", "executor", "parameters", "attempt", "token", "timeout_seconds",
    "correlation_id", "traceparent", "dispatch_count", "due_at",
)  # fmt: skip


def claim(candidates: RunQuerySet, *, now: datetime, permit_within: timedelta) -> list[Claimed]:
    """Set the candidates DISPATCHED and return them, best first.

    `candidates` is ordered and limited, and holds nothing but PENDING rows. A row that another transaction has locked
    is left out.
    """
    with transaction.atomic():
        if connection.vendor == "postgresql":
            claimed = _claim_postgres(candidates, now, now + permit_within)
        else:
            claimed = _claim_locked(candidates, now, now + permit_within)
    return claimed


def claim_statement(candidates: RunQuerySet, now: datetime, permit_by: datetime) -> tuple[str, tuple[Any, ...]]:
    """The claim as one statement for PostgreSQL, with its parameters; tests look at its plan."""
    table = TaskRun._meta.db_table
    place = RawSQL(f'"{table}".ctid', (), output_field=TextField())  # noqa: S611  (a name of our own)
    picked = candidates.select_for_update(skip_locked=True, of=("self",)).values_list(place)
    inner, inner_params = picked.query.sql_with_params()
    returned = ", ".join(f'run."{name}"' for name in _RETURNED)
    sql = (
        f"WITH picked(place) AS MATERIALIZED ({inner}) "
        f'UPDATE "{table}" AS run SET status = %s, token = gen_random_uuid(), dispatched_at = %s, permit_by = %s, '
        f"dispatch_count = run.dispatch_count + 1 "
        f"WHERE run.ctid = ANY (ARRAY(SELECT place FROM picked)) RETURNING {returned}, run.priority"
    )
    return sql, (*inner_params, RunStatus.DISPATCHED.value, now, permit_by)


def _claim_postgres(candidates: RunQuerySet, now: datetime, permit_by: datetime) -> list[Claimed]:
    with postgres_cursor() as cursor:
        # Binary: instants, UUIDs and JSON are read in C instead of by Django's loaders for text.
        cursor.execute(*claim_statement(candidates, now, permit_by), binary=True)
        rows = cursor.fetchall()
    rows.sort(key=lambda row: (-row[-1], row[12], row[0]))
    return [Claimed._make(row[:-1]) for row in rows]


def _claim_locked(candidates: RunQuerySet, now: datetime, permit_by: datetime) -> list[Claimed]:
    ids = list(candidates.values_list("pk", flat=True))
    found = {row[0]: row for row in TaskRun.objects.filter(pk__in=ids).values_list(*_RETURNED)}
    claimed = [
        Claimed._make(found[pk])._replace(token=uuid4(), dispatch_count=found[pk][11] + 1) for pk in ids if pk in found
    ]
    update_rows(
        TaskRun,
        ("status", "token", "dispatched_at", "permit_by", "dispatch_count"),
        [(run.id, RunStatus.DISPATCHED.value, run.token, now, permit_by, run.dispatch_count) for run in claimed],
    )
    return claimed
