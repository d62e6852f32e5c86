"""Lists and counts read few rows however many there are: the plans, on PostgreSQL, after a load."""

import json
from typing import Any

import pytest
from django.db import connection

from scheduler_project.api.paging import COUNT_MAX
from tasks_app.models import TaskRun
from tests.integration.faces import a_task

pytestmark = [pytest.mark.django_db, pytest.mark.postgresql_only]

ROWS = 60_000


@pytest.fixture
def loaded():
    """Two tasks, one with 60,000 runs that completed and three that failed long ago, one with two runs."""
    busy, idle = a_task("busy"), a_task("idle")
    insert = """
        INSERT INTO tasks_app_taskrun (task_id, task_version, task_name, task_type, executor, parameters, lane, status,
            priority, due_at, scheduled_at, created_at, timeout_seconds, max_retries, retry_delay_seconds,
            retry_delay_cap_seconds, quarantine_after, keep_running, attempt, dispatch_count, crash_count, worker_id,
            cancel_requested_by, stop_reason, error_message, correlation_id, traceparent, triggered_by, created_by,
            completed_at)
        SELECT %s, 1, 'x', 'default', 'shell', '{}', '', %s, 5, now(), now(), now(), 60, 3, 5, 60, 3, false, 1, 1, 0,
            'w1', '', '', '', gen_random_uuid(), '', 'api', '', now()
        FROM generate_series(1, %s)
    """
    with connection.cursor() as cursor:
        cursor.execute(insert, [idle.pk, "COMPLETED", 2])
        cursor.execute(insert, [busy.pk, "FAILED", 3])
        cursor.execute(insert, [busy.pk, "COMPLETED", ROWS])
        cursor.execute("ANALYZE tasks_app_taskrun")
    return busy, idle


def rows_read(queryset: Any) -> int:
    """Rows that the scans of a plan produced or threw away, really executed."""
    plan = json.loads(queryset.explain(format="json", analyze=True))[0]["Plan"]

    def count(node: dict[str, Any]) -> int:
        own = 0
        if "Scan" in node["Node Type"]:
            own = (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
        return int(own) + sum(count(child) for child in node.get("Plans", []))

    return count(plan)


def test_the_newest_runs_are_read_from_the_end(loaded):
    assert rows_read(TaskRun.objects.order_by("-id")[:51]) <= 51
    middle = TaskRun.objects.order_by("id")[ROWS // 2].pk
    assert rows_read(TaskRun.objects.filter(id__lt=middle).order_by("-id")[:51]) <= 51


def test_few_failures_among_many_runs_are_found_at_once(loaded):
    assert rows_read(TaskRun.objects.filter(status__in=["FAILED"]).order_by("-id")[:51]) <= 10


def test_the_runs_of_a_task_that_seldom_runs_are_found_at_once(loaded):
    _, idle = loaded
    assert rows_read(TaskRun.objects.filter(task_id=idle.pk).order_by("-id")[:51]) <= 10


def test_a_capped_count_stops_at_its_cap(loaded):
    assert TaskRun.objects.order_by()[: COUNT_MAX + 1].count() == COUNT_MAX + 1
    assert rows_read(TaskRun.objects.order_by()[: COUNT_MAX + 1].values("pk")) <= COUNT_MAX + 1


def test_waiting_runs_are_counted_without_looking_at_the_others(loaded):
    assert rows_read(TaskRun.objects.pending().order_by().values("pk")[:1001]) == 0
