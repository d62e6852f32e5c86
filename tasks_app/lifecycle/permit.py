"""Permit: the compare-and-set DISPATCHED → RUNNING that a delivery must win before any body begins.

It is asked for many deliveries at once or for one, always with the same statement. Asking again with the same nonce
gives the same answer while that attempt is RUNNING, so an answer that was lost on the way costs nothing. The lease of
the asking incarnation is checked in the same statement, once for first asks and for repeated ones: what a dead
incarnation was permitted before is about to be ended, and must not begin. A lease judged over a moment later is the
reaper's business, which ends every attempt that the dead incarnation holds.

The answer to who asks again is read from the locked row, not once more from the table: while the first ask was still
committing, this statement's own snapshot is older than the permit that it finds.

Expected plan on PostgreSQL: Index Scan using taskrun_pkey, whatever the statistics say. Each place that names the table
repeats which ids are asked for: by a join alone, statistics from when the table was empty made it read a whole index.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from django.db import connection, transaction

from tasks_app.crashpoints import reach
from tasks_app.lifecycle.facts import Holder, PermitAsk, Permitted, Refused
from tasks_app.lifecycle.rows import postgres_cursor, update_rows
from tasks_app.models import TaskRun
from tasks_app.states import RunStatus

_CARRIED = ("id", "attempt", "token", "nonce", "task_id", "task_name", "executor", "parameters", "timeout_seconds",
            "keep_running", "permitted_at", "deadline_at", "stop_reason", "cancel_requested_at")  # fmt: skip


def permit(asks: Sequence[PermitAsk], holder: Holder, *, now: datetime) -> list[Permitted | Refused]:
    """Answer each ask, in the order given."""
    if not asks:
        return []
    if connection.vendor == "postgresql":
        rows = _permit_postgres(asks, holder, now)
    else:
        rows = _permit_locked(asks, holder, now)
    reach("permit.after_commit")
    won = {(row[0], row[3]): row for row in rows}
    missing = [ask for ask in asks if (ask.run_id, ask.nonce) not in won]
    reasons = _reasons(missing) if missing else {}
    return [
        _permitted(won[ask.run_id, ask.nonce])
        if (ask.run_id, ask.nonce) in won
        else Refused(ask.run_id, ask.nonce, reasons[ask.run_id])
        for ask in asks
    ]


def _permitted(row: Sequence[Any]) -> Permitted:
    parameters = json.loads(row[7]) if isinstance(row[7], str) else row[7]
    stop_reason = "cancel" if row[13] else row[12]
    return Permitted(
        run_id=row[0], attempt=row[1], token=row[2], nonce=row[3], task_id=row[4], task_name=row[5], executor=row[6],
        parameters=parameters, timeout_seconds=row[8], keep_running=row[9], permitted_at=row[10], deadline_at=row[11],
        stop_reason=stop_reason,
    )  # fmt: skip


def _permit_postgres(asks: Sequence[PermitAsk], holder: Holder, now: datetime) -> list[Any]:
    table = TaskRun._meta.db_table
    carried = ", ".join(f'run."{name}"' for name in _CARRIED)
    if len(asks) == 1:  # the usual case of a pool process: plain values cost half as much as arrays
        asked = "SELECT %s::bigint AS id, %s::uuid AS token, %s::uuid AS nonce"
        about: list[Any] = [asks[0].run_id, asks[0].token, asks[0].nonce]
        within, ids = "run.id = %s::bigint", about[0]
    else:
        asked = "SELECT * FROM unnest(%s::bigint[], %s::uuid[], %s::uuid[]) AS a(id, token, nonce)"
        about = [[ask.run_id for ask in asks], [ask.token for ask in asks], [ask.nonce for ask in asks]]
        within, ids = "run.id = ANY (%s::bigint[])", about[0]
    sql = f"""
        WITH asked AS ({asked}), holder AS MATERIALIZED (SELECT {holder.alive_sql} AS alive), locked AS MATERIALIZED (
            SELECT {carried}, run.status, asked.nonce AS asked_nonce
            FROM asked JOIN "{table}" AS run ON run.id = asked.id AND run.token = asked.token
            WHERE {within} ORDER BY run.id FOR UPDATE OF run
        ), moved AS (
            UPDATE "{table}" AS run
            SET status = 'RUNNING', nonce = locked.asked_nonce, worker_id = %s, incarnation_id = %s,
                permitted_at = %s, started_at = %s, stop_reason = '',
                deadline_at = %s::timestamptz + run.timeout_seconds * interval '1 second'
            FROM locked
            WHERE run.id = locked.id AND {within} AND locked.status = 'DISPATCHED' AND (SELECT alive FROM holder)
            RETURNING {carried}
        )
        SELECT * FROM moved
        UNION ALL
        SELECT {carried} FROM locked AS run
        WHERE run.status = 'RUNNING' AND run.nonce = run.asked_nonce AND (SELECT alive FROM holder)
    """
    params = (
        *about, *holder.alive_params, ids, holder.worker_id, holder.incarnation_id, now, now, now, ids,
    )  # fmt: skip
    with postgres_cursor() as cursor:
        cursor.execute(sql, params)
        rows: list[Any] = cursor.fetchall()
    return rows


def _permit_locked(asks: Sequence[PermitAsk], holder: Holder, now: datetime) -> list[Any]:
    with transaction.atomic():
        found = {
            row[0]: row
            for row in TaskRun.objects.filter(pk__in=[ask.run_id for ask in asks]).values_list(*_CARRIED, "status")
        }
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT {holder.alive_sql}", list(holder.alive_params))
            alive = bool(cursor.fetchone()[0])
        answered: list[Any] = []
        moved: list[tuple[Any, ...]] = []
        for ask in asks if alive else ():
            row = found.get(ask.run_id)
            if row is None or row[2] != ask.token:
                continue
            if row[-1] == RunStatus.RUNNING.value and row[3] == ask.nonce:
                answered.append(row[:-1])
            elif row[-1] == RunStatus.DISPATCHED.value:
                deadline = now + timedelta(seconds=row[8])
                moved.append(
                    (ask.run_id, RunStatus.RUNNING.value, ask.nonce, holder.worker_id, holder.incarnation_id, now, now,
                     deadline, "")
                )  # fmt: skip
                given = (*row[:3], ask.nonce, *row[4:10], now, deadline, "", row[13])
                answered.append(given)
                found[ask.run_id] = (*given, RunStatus.RUNNING.value)
        update_rows(
            TaskRun,
            ("status", "nonce", "worker_id", "incarnation_id", "permitted_at", "started_at", "deadline_at",
             "stop_reason"),
            moved,
        )  # fmt: skip
        reach("permit.before_commit")
    return answered


def _reasons(asks: Sequence[PermitAsk]) -> dict[int, str]:
    """Why these asks got nothing; for logs and metrics only, so it may be a moment late."""
    rows = TaskRun.objects.filter(pk__in=[ask.run_id for ask in asks]).values_list("id", "status", "token", "nonce")
    found = {row[0]: row for row in rows}
    reasons = {}
    for ask in asks:
        row, held = found.get(ask.run_id), (RunStatus.RUNNING.value, ask.token, ask.nonce)
        if row is None:
            reasons[ask.run_id] = "unknown"
        elif row[1] == RunStatus.CANCELLED.value:
            reasons[ask.run_id] = "cancelled"
        elif row[1:3] == (RunStatus.DISPATCHED.value, ask.token) or row[1:] == held:
            reasons[ask.run_id] = "lease_over"
        else:
            reasons[ask.run_id] = "stale"
    return reasons
