"""Claim: PENDING → DISPATCHED, with a fresh token for each dispatch.

The caller brings the candidates as a query (due, not blocked, at most as many as there is credit for) inside the
transaction in which it holds the queues' rows. On PostgreSQL that query becomes the body of one statement that locks
with SKIP LOCKED, writes and returns what a message needs. Expected plan: Index Scan using run_claim for the candidates,
Tid Scan for the update: the rows are locked, so they are where they were found, and no index has to be chosen. (By
primary key, stale statistics made the planner read the whole of another index that holds the id, too.) A row that moved
between the statement's snapshot and its lock is not found again and waits for the next round.

To build the statement takes longer than to carry it out for a few rows. A dispatcher claims the same way each time,
with other values: it builds a `ClaimStatement` once, from a query that has `Given` in the places of these values.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple
from uuid import UUID, uuid4

from django.db import connection, transaction
from django.db.models import Field, TextField
from django.db.models.expressions import Expression, RawSQL

from tasks_app.lifecycle.rows import in_one_go, postgres_cursor, update_rows
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


class Given(Expression):
    """A value in a query that is known only when the query is carried out."""

    def __init__(self, name: str, field: Field[Any, Any]) -> None:
        """name: its key among the values; field: what it is compared with."""
        super().__init__(output_field=field)
        self.name = name

    def as_sql(self, _compiler: Any, connection: Any) -> tuple[str, tuple[Any, ...]]:
        """A placeholder; the parameter is this object, to be replaced by its value."""
        return f"%s::{self.output_field.db_type(connection)}", (self,)


class ClaimStatement:
    """A claim for PostgreSQL, built once: `sql`, and `params` with `Given` in the place of what changes."""

    #: How many rows at most, as a key of the values.
    COUNT: Final = "count"
    # Django writes limits into the text: this number stands for one that is given.
    _LIMIT: Final = 2_000_000_011

    def __init__(self, candidates: RunQuerySet, *, counted: bool = False) -> None:
        """candidates: ordered, with nothing but PENDING rows. counted: not limited, the count is to be given."""
        table = TaskRun._meta.db_table
        place = RawSQL(f'"{table}".ctid', (), output_field=TextField())  # noqa: S611  (a name of our own)
        picked = (candidates[: self._LIMIT] if counted else candidates).values_list(place)
        inner, inner_params = picked.select_for_update(skip_locked=True, of=("self",)).query.sql_with_params()
        # Only what changes is a parameter. The status, for one, has to be in the text: a plan for any status could not
        # use an index of those that are PENDING.
        given = [param for param in inner_params if isinstance(param, Given)]
        inner %= tuple("%s" if isinstance(param, Given) else _literal(param) for param in inner_params)
        if counted:
            inner = inner.replace(f"LIMIT {self._LIMIT}", "LIMIT %s")
            # Nothing that follows the limit has parameters.
            given.append(Given(self.COUNT, TextField()))
        returned = ", ".join(f'run."{name}"' for name in _RETURNED)
        self.sql = (
            f"WITH picked(place) AS MATERIALIZED ({inner}) "
            f"UPDATE \"{table}\" AS run SET status = '{RunStatus.DISPATCHED.value}', token = gen_random_uuid(), "
            f"dispatched_at = %s, permit_by = %s, dispatch_count = run.dispatch_count + 1 "
            f"WHERE run.ctid = ANY (ARRAY(SELECT place FROM picked)) RETURNING {returned}, run.priority"
        )
        self._given = [param.name for param in given]

    def params(self, values: Mapping[str, Any], now: datetime, permit_by: datetime) -> list[Any]:
        """Its parameters, with these values in the places of what was to be given. Raises KeyError."""
        return [*(values[name] for name in self._given), now, permit_by]


def _literal(value: Any) -> str:
    from psycopg.sql import Literal

    # For a text with placeholders, where a percent sign stands twice.
    return Literal(value).as_string().replace("%", "%%")


def claim(
    candidates: RunQuerySet | ClaimStatement,
    *,
    now: datetime,
    permit_within: timedelta,
    values: Mapping[str, Any] | None = None,
    durable: bool = True,
) -> list[Claimed]:
    """Set the candidates DISPATCHED and return them, best first.

    `candidates` is ordered and limited, and holds nothing but PENDING rows; or it is the statement made of such a
    query, with `values` for what was left open. A row that another transaction has locked is left out. durable=False:
    the commit does not wait for the disk, where the caller's transaction has not said so before.
    """
    with transaction.atomic(savepoint=False):
        if connection.vendor == "postgresql":
            statement = candidates if isinstance(candidates, ClaimStatement) else ClaimStatement(candidates)
            return _claim_postgres(statement, statement.params(values or {}, now, now + permit_within), durable)
        assert not isinstance(candidates, ClaimStatement), "statements are PostgreSQL's"
        return _claim_locked(candidates, now, now + permit_within)


def _claim_postgres(statement: ClaimStatement, params: list[Any], durable: bool) -> list[Claimed]:
    # Binary: instants, UUIDs and JSON are read in C instead of by Django's loaders for text.
    if durable:
        with postgres_cursor() as cursor:
            cursor.execute(statement.sql, params, binary=True)
            rows = cursor.fetchall()
    else:
        _, rows = in_one_go([("SELECT set_config('synchronous_commit', 'off', true)", ()), (statement.sql, params)])
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
