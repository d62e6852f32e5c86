"""What workers say about themselves, into their rows. Telemetry: nobody lives or dies by it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from django.db import connection, transaction

from dispatch import metrics
from tasks_app.lifecycle.arrays import column_arrays
from tasks_app.lifecycle.rows import postgres_cursor
from tasks_app.messages.parsing import instant_of, storable, whole_number
from workers_app.models import Worker

_BIGINT_MAX: Final = 2**63 - 1
_INT_MAX: Final = 2**31 - 1
_NAMES_MAX: Final = 2000

#: Column and its type on PostgreSQL, in the order of a row after the name.
_COLUMNS: Final = (
    ("last_heartbeat", "timestamptz"),
    ("current_task_count", "integer"),
    ("max_concurrent_tasks", "integer"),
    ("load_percentage", "double precision"),
    ("cpu_percent", "double precision"),
    ("memory_percent", "double precision"),
    ("memory_rss_bytes", "bigint"),
    ("network_sent_bytes", "bigint"),
    ("network_received_bytes", "bigint"),
    ("code_version", "text"),
    ("supported_task_types", "jsonb"),
    ("functions", "jsonb"),
)


def apply_heartbeats(newest: Mapping[str, Mapping[str, Any]], now: datetime) -> None:
    """Write the newest heartbeat of each worker; unknown workers have not registered yet and are left out."""
    rows = sorted((_row(worker_id, body, now) for worker_id, body in newest.items()), key=lambda row: str(row[0]))
    with transaction.atomic():
        written = _write(rows)
    metrics.REPORTS.labels("heartbeat", "applied").inc(written)
    metrics.REPORTS.labels("heartbeat", "stale").inc(len(rows) - written)


def _row(worker_id: str, body: Mapping[str, Any], now: datetime) -> tuple[Any, ...]:
    said_at = instant_of(body.get("at"))
    slots = whole_number(body.get("slots"), _INT_MAX) or 0
    in_flight = whole_number(body.get("in_flight"), _INT_MAX) or 0
    return (
        storable(worker_id, 200)[:200],
        min(said_at, now) if said_at else now,
        in_flight,
        slots,
        round(min(100.0, 100.0 * in_flight / slots), 1) if slots else 0.0,
        _number(body.get("cpu_percent")),
        _number(body.get("memory_percent")),
        whole_number(body.get("memory_rss_bytes"), _BIGINT_MAX),
        whole_number(body.get("network_sent_bytes"), _BIGINT_MAX),
        whole_number(body.get("network_received_bytes"), _BIGINT_MAX),
        storable(str(body.get("code_version") or ""), 100)[:100],
        _names(body.get("task_types")),
        _names(body.get("functions")),
    )


def _write(rows: list[tuple[Any, ...]]) -> int:
    table = Worker._meta.db_table
    if connection.vendor == "postgresql":
        names = ", ".join(column for column, _ in _COLUMNS)
        arrays = ", ".join(["%s::text[]", *(f"%s::{kind}[]" for _, kind in _COLUMNS)])
        assignments = ", ".join(f"{column} = given.{column}" for column, _ in _COLUMNS)
        sql = f"""
            WITH given AS (SELECT * FROM unnest({arrays}) AS g(name, {names})),
            locked AS MATERIALIZED (
                SELECT worker.name FROM given JOIN "{table}" AS worker ON worker.name = given.name
                WHERE worker.last_heartbeat IS NULL OR worker.last_heartbeat < given.last_heartbeat
                ORDER BY worker.name FOR UPDATE OF worker
            )
            UPDATE "{table}" AS worker SET {assignments} FROM given JOIN locked ON locked.name = given.name
            WHERE worker.name = given.name
        """
        with postgres_cursor() as cursor:
            cursor.execute(sql, column_arrays(rows))
            return int(cursor.rowcount)
    assignments = ", ".join(f"{column} = %s" for column, _ in _COLUMNS)
    sql = f'UPDATE "{table}" SET {assignments} WHERE name = %s AND (last_heartbeat IS NULL OR last_heartbeat < %s)'
    written = 0
    with connection.cursor() as cursor:
        for name, at, *rest in rows:
            stored = connection.ops.adapt_datetimefield_value(at)
            cursor.execute(sql, [stored, *rest, name, stored])
            written += cursor.rowcount
    return written


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _names(value: object) -> str:
    names = value if isinstance(value, list) else []
    return json.dumps([storable(name, 200) for name in names[:_NAMES_MAX] if isinstance(name, str)])
