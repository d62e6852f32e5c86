"""A search reads few rows however many runs there are: the plans, on PostgreSQL that has its statistics."""

from datetime import timedelta

import pytest
from django.db import connection, connections

from tasks_app.clock import clock
from tasks_app.models import TaskRun
from tasks_app.search import pages
from tasks_app.search.grammar import parse
from tests.integration.faces import a_task

pytestmark = [pytest.mark.django_db, pytest.mark.postgresql_only, pytest.mark.slow]

ROWS = 40_000
WAITING = 3000
INSERT = """
    INSERT INTO tasks_app_taskrun (task_id, task_version, task_name, task_type, executor, parameters, lane, status,
        priority, due_at, scheduled_at, created_at, timeout_seconds, max_retries, retry_delay_seconds,
        retry_delay_cap_seconds, quarantine_after, keep_running, attempt, dispatch_count, crash_count, worker_id,
        cancel_requested_by, stop_reason, error_message, correlation_id, traceparent, triggered_by, created_by,
        completed_at)
    SELECT %s, 1, 'x', 'default', 'shell', '{}', '', %s, 5, now(), now(), now(), 60, 3, 5, 60, 3, false, 1, 1, 0,
        'w1', '', '', '', gen_random_uuid(), '', 'api', '', CASE WHEN %s THEN now() END
    FROM generate_series(1, %s)
"""


@pytest.fixture
def rebuilt():
    """A table without the dead rows of tests before, which the planner would count as work."""
    own = connections["default"].copy()
    try:
        with own.cursor() as cursor:
            cursor.execute("VACUUM FULL tasks_app_taskrun")
    finally:
        own.close()


@pytest.fixture
def loaded(rebuilt):
    """Very old: some that wait, three that failed, two of a task that seldom runs. Since then: many that completed."""
    busy, idle = a_task("busy"), a_task("idle")
    with connection.cursor() as cursor:
        cursor.execute(INSERT, [idle.pk, "COMPLETED", True, 2])
        cursor.execute(INSERT, [busy.pk, "FAILED", True, 3])
        cursor.execute(INSERT, [busy.pk, "PENDING", False, WAITING])
        cursor.execute(INSERT, [busy.pk, "COMPLETED", True, ROWS])
        cursor.execute("ANALYZE tasks_app_taskrun")


def rows_read(text, *, before=None):
    """Rows that the scans of a page's queries and of its count's produced or threw away."""
    search = parse(text, now=clock.now() + timedelta(seconds=1))
    plans = []

    def explained(execute, sql, params, many, context):
        if sql.startswith("SELECT") and "taskrun" in sql:
            with connection.connection.cursor() as cursor:
                cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}", params)
                plans.append(cursor.fetchone()[0][0]["Plan"])
        return execute(sql, params, many, context)

    with connection.execute_wrapper(explained):
        pages.page(search, before=before)
        pages.count(search)
    assert plans
    return sum(scanned(plan) for plan in plans)


def scanned(node):
    own = 0
    if "Scan" in node["Node Type"]:
        own = (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
    return int(own) + sum(scanned(child) for child in node.get("Plans", []))


@pytest.mark.parametrize(
    "text",
    ["is:running", "is:failed,timeout,lost", "task:idle", "idle", "is:failed task:busy"],
)
def test_the_few_among_many_are_found_by_an_index(loaded, text):
    assert rows_read(text) <= 200


@pytest.mark.parametrize("text", ["is:pending", "is:waiting"])
def test_what_waits_is_found_by_its_own_index_however_old_it_is(loaded, text):
    # Some are enough for the planner to hope for a page of them at the end of the whole table, where none is. A bitmap
    # counts twice here, for its index and for the table.
    assert rows_read(text) <= 9 * WAITING < ROWS


@pytest.mark.parametrize("text", ["", "task:busy"])
def test_a_page_from_among_many_reads_a_page_and_counts_to_the_cap(loaded, text):
    for before in (None, TaskRun.objects.latest("pk").pk - ROWS // 2):
        assert rows_read(text, before=before) <= 5 * pages.PAGE + 2 * pages.COUNT_MAX


@pytest.mark.parametrize(
    "text",
    [
        "worker:nobody",
        "type:rare",
        "attempt:>1",
        "task:busy attempt:>1",
        "-worker:w1",
        "created:<-9d",
        "is:completed idle",
    ],
)
def test_what_no_index_knows_is_looked_for_in_a_bounded_part(loaded, text, monkeypatch):
    monkeypatch.setattr(pages, "LOOK_MAX", 2000)
    # The part is looked at for the page and once more for the count; each row once by its index, once by its columns.
    assert rows_read(text) <= 5 * pages.LOOK_MAX
