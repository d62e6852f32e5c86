"""With a million rows the claim and the reaper read only what they take, whatever the statistics say."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from django.db import connection

from dispatch import queries
from dispatch.claiming import candidates
from tasks_app.lifecycle.claim import claim_statement
from tasks_app.models import TaskRun
from tests.integration.domain import NOW, AWorker, a_task, claimed, submitted

pytestmark = [pytest.mark.django_db, pytest.mark.postgresql_only, pytest.mark.slow]

TABLE = "tasks_app_taskrun"
_COPIED = [
    field.column for field in TaskRun._meta.concrete_fields
    if field.column not in {"id", "priority", "due_at", "status", "completed_at", "task_type"}
]  # fmt: skip


def fill(
    count: int, *, task_type: str = "default", priority: int = 5, due: str = "1 second", status: str = "PENDING"
) -> None:
    """Copies of a run; the n-th is due n times `due` after NOW (before it when `due` is negative)."""
    [pattern] = submitted(a_task(task_type=task_type))
    columns = ", ".join(f'"{column}"' for column in _COPIED)
    completed = "now()" if status == "COMPLETED" else "NULL"
    with connection.cursor() as cursor:
        cursor.execute(
            f'INSERT INTO "{TABLE}" ({columns}, priority, due_at, status, completed_at, task_type) '
            f"SELECT {columns}, {priority}, %s::timestamptz + n * interval '{due}', '{status}', {completed}, task_type "
            f'FROM "{TABLE}", generate_series(1, {count}) AS n WHERE id = %s',
            [NOW, pattern],
        )
        cursor.execute(f'DELETE FROM "{TABLE}" WHERE id = %s', [pattern])


def execute(sql: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql)


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", []):
        yield from nodes(child)


def explained(sql: str, params: Any) -> list[dict[str, Any]]:
    """The nodes of the plan of a statement that is carried out and taken back."""
    connection.ensure_connection()
    # A client-side cursor: EXPLAIN takes no parameters, so they are put into the text.
    with psycopg.ClientCursor(connection.connection) as cursor:
        cursor.execute("SAVEPOINT before_explain")
        cursor.execute("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + sql, params)
        [[found]] = cursor.fetchall()
        cursor.execute("ROLLBACK TO SAVEPOINT before_explain")
    plan = json.loads(found) if isinstance(found, str) else found
    return list(nodes(plan[0]["Plan"]))


def buffers(plan: list[dict[str, Any]]) -> int:
    return int(plan[0]["Shared Hit Blocks"]) + int(plan[0]["Shared Read Blocks"])


def a_claim_reads_what_it_takes_in_the_order_of_the_index() -> None:
    rows = candidates("default", 5, NOW, 500)
    plan = explained(*claim_statement(rows, NOW, NOW + timedelta(seconds=60)))
    scans = [node for node in plan if node.get("Relation Name") == TABLE and "Scan" in node["Node Type"]]
    assert {node.get("Index Name", node["Node Type"]) for node in scans} == {"run_claim", "Tid Scan"}
    assert all(node["Actual Rows"] * node["Actual Loops"] <= 501 for node in scans)
    assert "Sort" not in {node["Node Type"] for node in plan}
    # 500 rows found, locked, written, and entered into the indexes.
    assert buffers(plan) < 40_000


def a_look_at_all_queues_touches_a_few_index_pages() -> None:
    statements: list[str] = []

    def note(run: Any, sql: str, *rest: Any) -> Any:
        statements.append(sql)
        return run(sql, *rest)

    with connection.execute_wrapper(note):
        heads = queries.heads()
    assert [(head.priority, head.due_at > NOW) for head in heads] == [(9, True), (5, False)]
    plan = explained(statements[0], ())
    assert buffers(plan) < 200
    assert {node.get("Index Name") for node in plan if node.get("Relation Name") == TABLE} == {"run_claim"}


def rows_due_later_at_a_higher_priority_cost_the_claim_nothing() -> None:
    plan = explained(*claim_statement(candidates("default", 9, NOW, 500), NOW, NOW))
    assert buffers(plan) < 20


def what_is_out_is_counted_without_the_backlog() -> None:
    statements: list[tuple[str, Any]] = []

    def note(run: Any, sql: str, params: Any, *rest: Any) -> Any:
        statements.append((sql, params))
        return run(sql, params, *rest)

    with connection.execute_wrapper(note):
        loads = queries.loads({"default": queries.Look(NOW)}, NOW)
    assert loads["default"].dispatched == 100
    for sql, params in statements:
        assert buffers(explained(sql, params)) < 500, sql


def the_reapers_questions_use_their_indexes() -> None:
    runs = TaskRun.objects
    for rows in (runs.overdue_for_permit(NOW), runs.past_deadline(NOW), runs.held_by([uuid4()])):
        sql, params = rows.values_list("pk")[:500].query.sql_with_params()
        assert buffers(explained(sql, params)) < 50, sql


CHECKS = (
    a_claim_reads_what_it_takes_in_the_order_of_the_index,
    a_look_at_all_queues_touches_a_few_index_pages,
    rows_due_later_at_a_higher_priority_cost_the_claim_nothing,
    what_is_out_is_counted_without_the_backlog,
    the_reapers_questions_use_their_indexes,
)


@pytest.mark.timeout(600)
def test_a_million_rows_are_not_read_for_a_claim_whatever_the_statistics_say():
    """1,000,000 due runs at priority 5, 500,000 due later at priority 9, 50,000 that completed."""
    execute(f'ANALYZE "{TABLE}"')  # of an empty table: the planner believes that there is nothing
    fill(1_000_000, due="-1 millisecond")
    fill(500_000, priority=9, due="1 second")
    fill(50_000, status="COMPLETED", due="-1 second")
    claimed(*TaskRun.objects.pending().filter(priority=5).order_by("id").values_list("pk", flat=True)[:100])
    AWorker()
    failures = []
    for statistics in ("stale", "fresh"):
        if statistics == "fresh":
            execute(f'ANALYZE "{TABLE}"')
        for check in CHECKS:
            try:
                check()
            except AssertionError as error:
                failures.append(f"{statistics}: {check.__name__}: {error}")
    assert not failures, "\n".join(failures)
