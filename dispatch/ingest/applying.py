"""Writes a sorted batch: a few bulk statements, each guarded by token and attempt."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from django.db import connection, transaction

from dispatch import metrics
from dispatch.ingest.sorting import LogChunk, Progress
from tasks_app import lifecycle
from tasks_app.crashpoints import reach
from tasks_app.lifecycle import Finished, HandBack
from tasks_app.lifecycle.arrays import column_arrays
from tasks_app.lifecycle.rows import insert_rows, postgres_cursor
from tasks_app.models import RunLogChunk, TaskRun, TaskRunAttempt
from tasks_app.parameters import canonical_json

_CHUNK_COLUMNS = ("run", "attempt", "token", "seq", "stream", "text", "at")


def apply_finishes(reports: Sequence[Finished], now: datetime) -> None:
    """End attempts. In one batch an attempt counts once, whichever of its reports comes first."""
    with transaction.atomic():
        result = lifecycle.finish(reports, now=now)
        reach("ingest.before_commit")
    metrics.REPORTS.labels("finish", "applied").inc(len(result.ended))
    metrics.REPORTS.labels("finish", "stale").inc(len(result.stale))


def apply_hand_backs(returned: Sequence[HandBack], now: datetime) -> None:
    """Put back what was given up before it began."""
    moved = lifecycle.hand_back(returned, now=now)
    metrics.REPORTS.labels("hand_back", "applied").inc(len(moved))
    metrics.REPORTS.labels("hand_back", "stale").inc(len(returned) - len(moved))


def apply_chunks(chunks: Sequence[LogChunk]) -> None:
    """Store output of attempts that are or were real; a stale worker's is refused."""
    with transaction.atomic():
        _lazily()
        genuine = _genuine({(chunk.run_id, chunk.attempt, chunk.token) for chunk in chunks})
        kept = [chunk for chunk in chunks if chunk[:3] in genuine]
        insert_rows(
            RunLogChunk,
            _CHUNK_COLUMNS,
            [(c.run_id, c.attempt, c.token, c.seq, c.stream, c.text, c.at) for c in kept],
            ignore_conflicts=True,
        )
    metrics.REPORTS.labels("log", "applied").inc(len(kept))
    metrics.REPORTS.labels("log", "stale").inc(len(chunks) - len(kept))


def apply_progress(reports: Sequence[Progress]) -> None:
    """Keep the newest progress of each dispatch; older ones and those of an attempt given up change nothing."""
    newest: dict[tuple[int, UUID], Progress] = {}
    for report in reports:
        known = newest.get((report.run_id, report.token))
        if known is None or report.seq > known.seq:
            newest[report.run_id, report.token] = report
    rows = [
        (r.run_id, r.token, r.attempt, r.seq, canonical_json(_shown(r)))
        for r in sorted(newest.values(), key=lambda r: (r.run_id, str(r.token)))
    ]
    with transaction.atomic():
        _lazily()
        moved = _write_progress(rows)
    metrics.REPORTS.labels("progress", "applied").inc(moved)
    metrics.REPORTS.labels("progress", "stale").inc(len(reports) - moved)


def _lazily() -> None:
    """Telemetry need not wait for the disk."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SET LOCAL synchronous_commit = off")


def _genuine(claimed: set[tuple[int, int, UUID]]) -> set[tuple[int, int, UUID]]:
    ids = sorted({run_id for run_id, _, _ in claimed})
    current = TaskRun.objects.filter(pk__in=ids, token__isnull=False).order_by().values_list("id", "attempt", "token")
    ended = TaskRunAttempt.objects.filter(run_id__in=ids).order_by().values_list("run_id", "number", "token")
    return claimed & {*current, *ended}


def _shown(report: Progress) -> dict[str, object]:
    return {
        "percent": report.percent, "message": report.message, "seq": report.seq, "attempt": report.attempt,
        "at": report.at.isoformat(),
    }  # fmt: skip


def _write_progress(rows: Sequence[tuple[int, UUID, int, int, str]]) -> int:
    """Expected plan: rows are locked by primary key in sorted order, then written by it."""
    table = TaskRun._meta.db_table
    if connection.vendor == "postgresql":
        sql = f"""
            WITH given AS (
                SELECT * FROM unnest(%s::bigint[], %s::uuid[], %s::smallint[], %s::bigint[], %s::jsonb[])
                AS g(id, token, attempt, seq, progress)
            ), locked AS MATERIALIZED (
                SELECT run.id, given.progress
                FROM given JOIN "{table}" AS run ON run.id = given.id
                WHERE run.token = given.token AND run.attempt = given.attempt
                AND (run.progress IS NULL OR run.progress ->> 'attempt' <> given.attempt::text
                     OR (run.progress ->> 'seq')::bigint < given.seq)
                ORDER BY run.id FOR UPDATE OF run
            )
            UPDATE "{table}" AS run SET progress = locked.progress FROM locked WHERE run.id = locked.id
        """
        with postgres_cursor() as cursor:
            cursor.execute(sql, column_arrays(rows))
            return int(cursor.rowcount)
    sql = f"""
        UPDATE "{table}" SET progress = %s WHERE id = %s AND token = %s AND attempt = %s
        AND (progress IS NULL OR json_extract(progress, '$.attempt') <> %s OR json_extract(progress, '$.seq') < %s)
    """
    moved = 0
    with connection.cursor() as cursor:
        for run_id, token, attempt, seq, text in rows:
            cursor.execute(sql, [text, run_id, token.hex, attempt, attempt, seq])
            moved += cursor.rowcount
    return moved
