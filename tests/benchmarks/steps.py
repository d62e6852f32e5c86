"""The two steps that decide how far one database carries, each beside a bare loop: run as a process by `rates`.

One database, levels of so many pending runs. At each level the steps take turns with the bare loop on the same
tables, so bloat, caches and neighbours are the same for both. Only the step itself is timed: what puts rows
back in between is not.

* claim: `dispatch.claiming.Claiming.round`, with its locks, credit and blockers, in batches of the shipped
  size. The bare loop: one UPDATE … RETURNING over a SKIP LOCKED sub-select, the same columns written and
  returned, a commit.
* ingest: `dispatch.ingest.Ingest.step` from signed message bodies (50 reports each) to the commit, in batches
  of the shipped size. The bare loop begins with the values in lists: one UPDATE from unnest, COPY for attempts
  and events, a commit.
"""

# ruff: noqa: E402
# Models can be imported once Django is set up.

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import django
import psycopg

django.setup()

from django.db import connection

from dispatch.broker.port import Delivery
from dispatch.claiming import Claiming
from dispatch.conf import conf
from dispatch.ingest.ingest import Ingest
from tasks_app import services
from tasks_app.clock import DatabaseClock
from tasks_app.conf import conf as tasks_conf
from tasks_app.definitions import TaskDefinition
from tasks_app.messages.execution import queue_for
from tasks_app.messages.reports import Batch, pack
from tasks_app.messages.signing import KeyRing
from tasks_app.models import TaskRun
from workers_app.models import Worker, WorkerIncarnation

#: One turn: rows and seconds.
Step = Callable[[], tuple[int, float]]

TASK = "bench-noop"
REPORTS_A_MESSAGE = 50
#: Turns that make one figure; the spread is over these.
ROUNDS = 5
WARM_UP_TURNS = 2


class Table:
    """The runs' table, filled by copying one run that the service made."""

    def __init__(self, url: str) -> None:
        self.bare = psycopg.connect(url)
        task = services.create_task(
            TaskDefinition(name=TASK, executor="python", parameters={"function": "bench.noop", "kwargs": {"seq": 1}})
        )
        self.template = services.trigger(task).pk
        self.queue = task.task_type
        # Far away: it is copied and never claimed.
        self.sql("UPDATE tasks_app_taskrun SET due_at = now() + interval '1 year' WHERE id = %s", [self.template])
        self.columns = [
            field.column for field in TaskRun._meta.concrete_fields
            if field.column not in {"id", "correlation_id", "due_at"}
        ]  # fmt: skip
        self.clock = DatabaseClock()

    def sql(self, sql: str, params: Sequence[Any] = ()) -> list[Any]:
        """On the bare connection, committed."""
        with self.bare.cursor() as cursor:
            cursor.execute(sql, params)
            rows = cursor.fetchall() if cursor.description else []
        self.bare.commit()
        return rows

    def add(self, count: int) -> list[int]:
        """So many more pending runs, due already; their ids."""
        names = ", ".join(f'"{column}"' for column in self.columns)
        rows = self.sql(
            f"INSERT INTO tasks_app_taskrun ({names}, correlation_id, due_at) "
            f"SELECT {names}, gen_random_uuid(), now() - (%s - n) * interval '1 millisecond' - interval '1 second' "
            f"FROM tasks_app_taskrun CROSS JOIN generate_series(1, %s) AS n WHERE id = %s "
            f"RETURNING CASE WHEN %s <= 10000 THEN id END",
            [count, count, self.template, count],
        )
        return [row[0] for row in rows]

    def fill(self, total: int) -> int:
        """Pending runs up to the total, and fresh statistics, as after any bulk load; how many were added."""
        [[pending]] = self.sql("SELECT count(*) FROM tasks_app_taskrun WHERE status = 'PENDING'")
        missing = total - (pending - 1)
        for start in range(0, missing, 100_000):
            self.add(min(100_000, missing - start))
        self.bare.autocommit = True
        self.bare.execute("VACUUM ANALYZE")
        self.bare.execute("CHECKPOINT")
        self.bare.autocommit = False
        return missing


class Claims:
    """Claiming, ours and bare."""

    def __init__(self, table: Table) -> None:
        self.table = table
        settings = conf()
        self.batch = settings.claim_batch_max
        self.within = timedelta(seconds=settings.permit_within_seconds)
        self._claiming = Claiming(
            batch_max=self.batch, per_slot_max=settings.look_ahead_per_slot_max, permit_within=self.within
        )
        now = datetime.now(UTC)
        worker = Worker.objects.create(name="bench", registered_at=now)
        # More slots than anybody has, so that it is never credit that ends a batch.
        WorkerIncarnation.objects.create(
            worker=worker, lease_seconds=60, slots=1_000_000, task_types=[table.queue], started_at=now, renewed_at=now
        )

    def ours(self) -> tuple[int, float]:
        """Rows and seconds of one round."""
        now = self.table.clock.now()
        began = time.perf_counter()
        claimed = self._claiming.round(now, time.monotonic()).claimed
        took = time.perf_counter() - began
        self._put_back([run.id for run in claimed])
        return len(claimed), took

    def bare(self) -> tuple[int, float]:
        """The same by psycopg alone."""
        now = self.table.clock.now()
        began = time.perf_counter()
        with self.table.bare.cursor() as cursor:
            cursor.execute(
                "WITH picked AS MATERIALIZED (SELECT id FROM tasks_app_taskrun WHERE status = 'PENDING' "
                "AND task_type = %s AND due_at <= %s ORDER BY priority DESC, due_at, id LIMIT %s "
                "FOR UPDATE SKIP LOCKED) "
                "UPDATE tasks_app_taskrun AS run SET status = 'DISPATCHED', token = gen_random_uuid(), "
                "dispatched_at = %s, permit_by = %s, dispatch_count = run.dispatch_count + 1 "
                "FROM picked WHERE run.id = picked.id RETURNING run.id, run.task_id, run.task_name, run.task_type, "
                "run.executor, run.parameters, run.attempt, run.token, run.timeout_seconds, run.correlation_id, "
                "run.traceparent, run.dispatch_count, run.due_at",
                [self.table.queue, now, self.batch, now, now + self.within],
            )
            rows = cursor.fetchall()
        self.table.bare.commit()
        took = time.perf_counter() - began
        self._put_back([row[0] for row in rows])
        return len(rows), took

    def _put_back(self, ids: list[int]) -> None:
        """To the end of the backlog, whose size so stays."""
        self.table.sql(
            "UPDATE tasks_app_taskrun SET status = 'PENDING', token = NULL, dispatched_at = NULL, permit_by = NULL, "
            "due_at = clock_timestamp() WHERE id = ANY(%s)",
            [ids],
        )


class OneBatch:
    """A `ReportSource` that holds one batch."""

    def __init__(self) -> None:
        self.deliveries: list[Delivery] = []

    def receive(self, _timeout: float) -> list[Delivery]:
        """All of it."""
        given, self.deliveries = self.deliveries, []
        return given

    def acknowledge(self, _deliveries: Sequence[Delivery]) -> None:
        """Nothing to tell."""

    def keep_alive(self) -> None:
        """Nothing to keep."""

    def close(self) -> None:
        """Nothing to close."""


class Ends:
    """Ingest of finishes, ours and bare. Ended runs stay; the pending ones beside them are the backlog."""

    def __init__(self, table: Table) -> None:
        self.table = table
        settings = conf()
        self.batch = settings.ingest_batch_max
        self._source = OneBatch()
        self._ingest = Ingest(table.clock, self._source, settings)
        section = tasks_conf()
        self._ring = KeyRing(section.signing_keys, section.signing_key_id)
        self._incarnation = uuid4()

    def ours(self) -> tuple[int, float]:
        """Rows and seconds of one batch."""
        rows = self._running()
        ended = time.time()
        reports = [
            {
                "kind": "finish", "run": run, "attempt": 1, "token": str(token), "nonce": str(nonce),
                "outcome": "COMPLETED", "started_at": ended - 0.001, "ended_at": ended, "duration_ms": 1, "result": "1",
                "error_type": "", "error_message": "", "retryable": True, "retry_after": None, "counts_as_crash": True,
            }
            for run, token, nonce, _ in rows
        ]  # fmt: skip
        self._source.deliveries = []
        for start in range(0, len(reports), REPORTS_A_MESSAGE):
            some = reports[start : start + REPORTS_A_MESSAGE]
            headers, body = pack(Batch("bench", str(self._incarnation), some), self._ring)
            self._source.deliveries.append(Delivery("status.update", headers, body, None))
        began = time.perf_counter()
        count = self._ingest.step()
        took = time.perf_counter() - began
        self._must_be_completed(rows)
        return count, took

    def bare(self) -> tuple[int, float]:
        """The same rows by psycopg alone."""
        rows = self._running()
        now = datetime.now(UTC)
        runs = [row[0] for row in rows]
        due = [row[3] for row in rows]
        count = len(rows)
        columns: list[list[Any]] = [
            runs, ["COMPLETED"] * count, [1] * count, [0] * count, [row[1] for row in rows], [row[2] for row in rows],
            ["bench"] * count, [self._incarnation] * count, [now] * count, [now] * count, [now] * count, due,
            [now] * count, [1] * count, [""] * count, ["1"] * count, [""] * count,
        ]  # fmt: skip
        attempts = [
            (run, 1, "COMPLETED", token, nonce, "bench", self._incarnation, now, now, now, 1, "", "")
            for run, token, nonce, _ in rows
        ]
        events = [(run, now, "attempt_ended", 1, '{"next":"COMPLETED","outcome":"COMPLETED"}') for run in runs]
        began = time.perf_counter()
        with self.table.bare.cursor() as cursor:
            cursor.execute(_BARE_UPDATE, columns)
            with cursor.copy(_BARE_ATTEMPTS) as copy:
                for attempt in attempts:
                    copy.write_row(attempt)
            with cursor.copy(_BARE_EVENTS) as copy:
                for event in events:
                    copy.write_row(event)
        self.table.bare.commit()
        took = time.perf_counter() - began
        self._must_be_completed(rows)
        return count, took

    def _running(self) -> list[tuple[int, UUID, UUID, datetime]]:
        """Fresh runs that hold a permit: (id, token, nonce, due_at)."""
        ids = self.table.add(self.batch)
        return self.table.sql(
            "UPDATE tasks_app_taskrun SET status = 'RUNNING', token = gen_random_uuid(), nonce = gen_random_uuid(), "
            "worker_id = 'bench', incarnation_id = %s, dispatched_at = now(), permitted_at = now(), "
            "started_at = now(), "
            "deadline_at = now() + interval '1 hour', dispatch_count = 1 WHERE id = ANY(%s) "
            "RETURNING id, token, nonce, due_at",
            [self._incarnation, ids],
        )

    def _must_be_completed(self, rows: Sequence[tuple[Any, ...]]) -> None:
        [[left]] = self.table.sql(
            "SELECT count(*) FROM tasks_app_taskrun WHERE id = ANY(%s) AND status <> 'COMPLETED'",
            [[r[0] for r in rows]],
        )
        assert left == 0, f"{left} of {len(rows)} runs were not ended"


_BARE_UPDATE = """
    UPDATE tasks_app_taskrun AS run SET status = g.status, attempt = g.attempt, crash_count = g.crash_count,
        token = g.token, nonce = g.nonce, worker_id = g.worker_id, incarnation_id = g.incarnation_id,
        permitted_at = g.permitted_at, started_at = g.started_at, deadline_at = g.deadline_at, due_at = g.due_at,
        completed_at = g.completed_at, execution_duration_ms = g.duration, stop_reason = g.stop_reason,
        result = g.result, error_message = g.error_message
    FROM unnest(%s::bigint[], %s::text[], %s::smallint[], %s::smallint[], %s::uuid[], %s::uuid[], %s::text[],
        %s::uuid[], %s::timestamptz[], %s::timestamptz[], %s::timestamptz[], %s::timestamptz[], %s::timestamptz[],
        %s::bigint[], %s::text[], %s::jsonb[], %s::text[])
    AS g(id, status, attempt, crash_count, token, nonce, worker_id, incarnation_id, permitted_at, started_at,
        deadline_at, due_at, completed_at, duration, stop_reason, result, error_message)
    WHERE run.id = g.id
"""
_BARE_ATTEMPTS = (
    "COPY tasks_app_taskrunattempt (run_id, number, status, token, nonce, worker_id, incarnation_id, permitted_at, "
    "started_at, ended_at, execution_duration_ms, error_type, error_message) FROM STDIN"
)
_BARE_EVENTS = "COPY tasks_app_runevent (run_id, at, kind, attempt, detail) FROM STDIN"


def in_turns(ours: Step, bare: Step, turns: int) -> dict[str, Any]:
    """Rows a second of both, one figure for each of ROUNDS groups of turns; who begins changes with each turn."""
    for _ in range(WARM_UP_TURNS):
        ours(), bare()
    found: dict[str, list[float]] = {"ours": [], "bare": []}
    for _ in range(min(ROUNDS, turns)):
        sums = {"ours": [0.0, 0.0], "bare": [0.0, 0.0]}
        for turn in range(max(1, turns // ROUNDS)):
            pair: list[tuple[str, Step]] = [("ours", ours), ("bare", bare)]
            for name, step in pair if turn % 2 else reversed(pair):
                rows, seconds = step()
                sums[name][0] += rows
                sums[name][1] += seconds
        for name, (done, spent) in sums.items():
            found[name].append(done / spent)
    return found


def main() -> None:
    """argv: backlogs, comma separated, and turns a level. Prints one JSON object."""
    backlogs, turns = [int(word) for word in sys.argv[1].split(",")], int(sys.argv[2])
    options = connection.settings_dict
    url = psycopg.conninfo.make_conninfo(
        host=options["HOST"], port=options["PORT"], user=options["USER"], password=options["PASSWORD"],
        dbname=options["NAME"],
    )  # fmt: skip
    table = Table(url)
    claims, ends = Claims(table), Ends(table)
    levels = []
    for backlog in backlogs:
        began = time.perf_counter()
        added = table.fill(backlog)
        loaded = time.perf_counter() - began
        level: dict[str, Any] = {"pending": backlog, "added": added, "load_seconds": loaded}
        level["claim"] = in_turns(claims.ours, claims.bare, turns)
        level["ingest"] = in_turns(ends.ours, ends.bare, turns)
        levels.append(level)
        print(json.dumps(level), file=sys.stderr, flush=True)
    found = {"levels": levels, "claim_batch": claims.batch, "ingest_batch": ends.batch, "queue": queue_for(table.queue)}
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
