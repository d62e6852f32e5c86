"""How long the list of runs takes over many runs: `python -m tests.console.load ROWS` prints it as JSON.

Run as a process of its own, over the PostgreSQL that the environment names: it fills the database.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time

import django

_REPEATS = 15
_PAGES_DEEP = 1000
_FILL = """
    INSERT INTO tasks_app_taskrun (task_id, task_version, task_name, task_type, executor, parameters, lane, status,
        priority, due_at, scheduled_at, created_at, timeout_seconds, max_retries, retry_delay_seconds,
        retry_delay_cap_seconds, quarantine_after, keep_running, attempt, dispatch_count, crash_count, worker_id,
        cancel_requested_by, stop_reason, error_message, correlation_id, traceparent, triggered_by, created_by,
        completed_at, execution_duration_ms)
    SELECT %(task)s + n %% %(tasks)s, 1, 'load ' || n %% %(tasks)s, 'default', 'shell', '{}', '',
        CASE WHEN n %% 50 = 0 THEN 'FAILED' WHEN n %% 401 = 0 THEN 'TIMEOUT' ELSE 'COMPLETED' END,
        5, at, at, at, 60, 3, 5, 60, 3, false, 1, 1, 0, 'w' || n %% 9, '', '',
        CASE WHEN n %% 50 = 0 THEN repeat('what went wrong ', 100) ELSE '' END, gen_random_uuid(), '', 'api', '',
        at, n %% 9000
    FROM generate_series(1, %(rows)s) AS n, LATERAL (SELECT now() - (%(rows)s - n) * interval '1 second') AS t(at)
"""


def measured(rows: int) -> dict[str, float]:
    """Milliseconds of the server for each address, the median of some answers; `rows` are made before."""
    from django.db import connection
    from django.test import Client

    from tasks_app.models import TaskRun
    from tests.integration.faces import a_task, user

    first, *others = [a_task(f"load {number}") for number in range(40)]
    with connection.cursor() as cursor:
        cursor.execute(_FILL, {"task": first.pk, "tasks": 1 + len(others), "rows": rows})
        cursor.execute("ANALYZE")
    newest = TaskRun.objects.latest("pk").pk
    client = Client(headers={"host": "localhost"})
    client.force_login(user("ada", superuser=True))
    found = {}
    for address in (
        "runs/", f"runs/?before={newest - 50 * _PAGES_DEEP}", "runs/?q=is:failed,timeout,lost", "runs/?q=load+1",
        "runs/?q=worker:nobody", "",
    ):  # fmt: skip
        took = []
        for _ in range(_REPEATS):
            began = time.perf_counter()
            assert client.get(f"/console/{address}").status_code == 200
            took.append((time.perf_counter() - began) * 1000)
        found[address] = round(statistics.median(took), 1)
    return found


if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "scheduler_project.settings")
    django.setup()
    print(json.dumps(measured(int(sys.argv[1]))))
