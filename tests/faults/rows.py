"""The database as a witness: plain SQL on a connection of the harness's own, no code of the product in between."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote, urlsplit

import psycopg

from tests.faults.witness import AttemptRow, EventRow, FireRow, IncarnationRow, RunRow
from tests.sqlite_file import writable

FINAL = ("COMPLETED", "FAILED", "TIMEOUT", "CANCELLED", "SKIPPED", "LOST")


class Away(Exception):
    """The database does not answer now."""


class Database:
    """Reads; a connection that broke is made anew at the next question."""

    def __init__(self, url: str) -> None:
        """A SIGNALBOX_DATABASE_URL."""
        self.url = url
        self._connection: Any = None

    @property
    def postgresql(self) -> bool:
        """Whether it is PostgreSQL."""
        return self.url.startswith("postgres")

    def ask(self, sql: str, *params: Any) -> list[tuple[Any, ...]]:
        """All rows; `%s` marks parameters. Raises Away."""
        try:
            if self._connection is None:
                self._connection = self._connect()
            if self.postgresql:
                return list(self._connection.execute(sql, params).fetchall())
            return list(self._connection.execute(sql.replace("%s", "?"), params).fetchall())
        except (psycopg.Error, sqlite3.OperationalError) as error:
            self.close()
            raise Away(str(error)) from error

    def writable(self) -> bool:
        """Whether somebody could write within a second. On SQLite one process at a time holds the lock of the file."""
        return self.postgresql or writable(self.path)

    def close(self) -> None:
        """Drop the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connect(self) -> Any:
        if self.postgresql:
            return psycopg.connect(self.url, autocommit=True, connect_timeout=2, options="-c statement_timeout=5s")
        return sqlite3.connect(self.path, timeout=5, isolation_level=None)

    @property
    def path(self) -> str:
        return unquote(urlsplit(self.url).path)[1:]

    # -- one round's rows, found by the names of its tasks ------------------------------------------------------

    def statuses(self, round_name: str, above: int = 0) -> dict[str, str]:
        """Status of each run with a higher id."""
        sql = "SELECT id, status FROM tasks_app_taskrun WHERE task_name LIKE %s AND id > %s"
        rows = self.ask(sql, round_name + ".%", above)
        return {str(row[0]): row[1] for row in rows}

    def count(self, round_name: str, statuses: Sequence[str]) -> int:
        """How many runs are in one of these states."""
        marks = ", ".join(["%s"] * len(statuses))
        sql = f"SELECT count(*) FROM tasks_app_taskrun WHERE task_name LIKE %s AND status IN ({marks})"
        return int(self.ask(sql, round_name + ".%", *statuses)[0][0])

    def runs(self, round_name: str) -> list[RunRow]:
        """The runs."""
        rows = self.ask(
            "SELECT id, status, attempt, max_retries, created_by, triggered_by FROM tasks_app_taskrun "
            "WHERE task_name LIKE %s ORDER BY id", round_name + ".%",
        )  # fmt: skip
        return [RunRow(str(r[0]), r[1], r[2], r[3], r[4], r[5] == "schedule") for r in rows]

    def attempts(self, round_name: str) -> list[AttemptRow]:
        """Their attempts that ended."""
        rows = self.ask(
            "SELECT a.run_id, a.number, a.status, a.incarnation_id, a.error_type, a.permitted_at, a.ended_at "
            "FROM tasks_app_taskrunattempt a JOIN tasks_app_taskrun r ON r.id = a.run_id "
            "WHERE r.task_name LIKE %s", round_name + ".%",
        )  # fmt: skip
        return [
            AttemptRow(str(r[0]), r[1], r[2], plain_uuid(r[3]), r[4], seconds(r[5]), seconds(r[6]) or 0.0) for r in rows
        ]

    def events(self, round_name: str) -> list[EventRow]:
        """Their events."""
        rows = self.ask(
            "SELECT e.run_id, e.kind, e.attempt, e.detail, e.at "
            "FROM tasks_app_runevent e JOIN tasks_app_taskrun r ON r.id = e.run_id "
            "WHERE r.task_name LIKE %s ORDER BY e.id", round_name + ".%",
        )  # fmt: skip
        found = []
        for run, kind, attempt, detail, at in rows:
            said = json.loads(detail) if isinstance(detail, str) else detail
            found.append(EventRow(str(run), kind, attempt, str(said.get("next", "")), seconds(at) or 0.0))
        return found

    def fires(self, round_name: str) -> list[FireRow]:
        """Decisions of their schedules."""
        rows = self.ask(
            "SELECT f.schedule_id, f.instant, f.decision, f.run_id FROM tasks_app_schedulefire f "
            "JOIN tasks_app_schedule s ON s.id = f.schedule_id JOIN tasks_app_task t ON t.id = s.task_id "
            "WHERE t.name LIKE %s", round_name + ".%",
        )  # fmt: skip
        return [FireRow(str(r[0]), seconds(r[1]) or 0.0, r[2], None if r[3] is None else str(r[3])) for r in rows]

    def incarnations(self) -> list[IncarnationRow]:
        """Every start of a worker."""
        rows = self.ask(
            "SELECT id, worker_id, pid, lease_seconds, renewed_at, over_at, ended_cleanly "
            "FROM workers_app_workerincarnation"
        )
        return [
            IncarnationRow(plain_uuid(r[0]), r[1], r[2] or 0, r[3], seconds(r[4]) or 0.0, seconds(r[5]), bool(r[6]))
            for r in rows
        ]


def plain_uuid(value: Any) -> str:
    """A UUID in the form that both databases share."""
    return "" if value is None else str(value).replace("-", "")


def seconds(value: Any) -> float | None:
    """A database time as seconds."""
    if value is None:
        return None
    moment = value if isinstance(value, datetime) else datetime.fromisoformat(value)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
