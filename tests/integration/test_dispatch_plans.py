"""With a million rows the claim and the reaper read only what they take, whatever the statistics say."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from django.db import connection

from dispatch import queries
from dispatch.claiming import claim_statement
from tasks_app import lifecycle
from tasks_app.lifecycle import Finished, PermitAsk
from tasks_app.models import TaskRun
from tasks_app.states import Outcome
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


Statement = tuple[str, Any]


def explained(sql: str, params: Any, *, kept: bool = True) -> list[dict[str, Any]]:
    """The nodes of the plan of a statement that is carried out and taken back.

    kept: of the plan for any values, which PostgreSQL keeps for a statement that it is sent again and again. Otherwise
    of the plan for these values: what Django sends has them in its text.
    """
    connection.ensure_connection()
    numbers = itertools.count(1)
    with psycopg.ClientCursor(connection.connection) as cursor:
        cursor.execute("SAVEPOINT before_explain")
        cursor.execute("SET LOCAL plan_cache_mode = force_generic_plan")
        if kept:
            text = re.sub("%s", lambda _: f"${next(numbers)}", sql).replace("%%", "%")
            cursor.execute("PREPARE explained AS " + text)
            sql = f"EXECUTE explained ({', '.join(['%s'] * len(params))})" if params else "EXECUTE explained"
        cursor.execute("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + sql, params or None)
        [[found]] = cursor.fetchall()
        cursor.execute("DEALLOCATE ALL")
        cursor.execute("ROLLBACK TO SAVEPOINT before_explain")
    plan = json.loads(found) if isinstance(found, str) else found
    return list(nodes(plan[0]["Plan"]))


def statements_of(act: Callable[[], object]) -> list[Statement]:
    """What is asked of the runs' table; what it changes is taken back."""
    noted: list[Statement] = []
    carry_out = psycopg.Cursor.execute

    def note(cursor: Any, sql: Any, params: Any = None, **options: Any) -> Any:
        if f'"{TABLE}"' in sql or f" {TABLE} " in sql:
            noted.append((sql, params))
        return carry_out(cursor, sql, params, **options)

    execute("SAVEPOINT before_act")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(psycopg.Cursor, "execute", note)
        act()
    execute("ROLLBACK TO SAVEPOINT before_act")
    assert noted
    return noted


def scans_of(plan: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The nodes that read the runs' table."""
    return [node for node in plan if node.get("Relation Name") == TABLE and "Scan" in node["Node Type"]]


def claim_of(priority: int) -> Statement:
    values = {"queue": "default", "priority": priority, "now": NOW, "count": 500}
    return claim_statement().sql, claim_statement().params(values, NOW, NOW + timedelta(seconds=60))


def buffers(plan: list[dict[str, Any]]) -> int:
    return int(plan[0]["Shared Hit Blocks"]) + int(plan[0]["Shared Read Blocks"])


def a_claim_reads_what_it_takes_in_the_order_of_the_index() -> None:
    plan = explained(*claim_of(priority=5))
    scans = scans_of(plan)
    assert {node.get("Index Name", node["Node Type"]) for node in scans} == {"run_claim", "Tid Scan"}
    assert all(node["Actual Rows"] * node["Actual Loops"] <= 501 for node in scans)
    assert "Sort" not in {node["Node Type"] for node in plan}
    # 500 rows found, locked, written, and entered into the indexes.
    assert buffers(plan) < 40_000


def a_look_at_all_queues_touches_a_few_index_pages() -> None:
    heads = queries.heads()
    assert [(head.priority, head.due_at > NOW) for head in heads] == [(9, True), (5, False)]
    plan = explained(*queries.heads_statement())
    assert buffers(plan) < 200
    assert {node.get("Index Name") for node in plan if node.get("Relation Name") == TABLE} == {"run_claim"}


def rows_due_later_at_a_higher_priority_cost_the_claim_nothing() -> None:
    assert buffers(explained(*claim_of(priority=9))) < 20


def what_is_out_is_counted_without_the_backlog() -> None:
    looks = {"default": queries.Look(NOW)}
    assert queries.loads(looks, NOW)["default"].dispatched == 100
    assert buffers(explained(*queries.load_statement(looks, NOW))) < 1000


def a_permit_and_an_end_read_their_row_alone() -> None:
    [run] = TaskRun.objects.filter(status="DISPATCHED").order_by("id")[:1]
    worker = AWorker()
    assert run.token is not None
    ask = PermitAsk(run.pk, run.token, uuid4())
    end = Finished(run.pk, run.attempt, run.token, Outcome.COMPLETED)
    acts: list[Callable[[], object]] = [
        lambda: lifecycle.permit([ask], worker.holder, now=NOW),
        lambda: lifecycle.permit([ask, PermitAsk(run.pk, uuid4(), uuid4())], worker.holder, now=NOW),
        lambda: lifecycle.finish([end], now=NOW),
    ]
    for act in acts:
        for sql, params in statements_of(act):
            plan = explained(sql, params)
            assert {node.get("Index Name") for node in scans_of(plan)} <= {f"{TABLE}_pkey"}, sql
            assert buffers(plan) < 200, sql


def the_reapers_questions_use_their_indexes() -> None:
    runs = TaskRun.objects
    for rows in (runs.overdue_for_permit(NOW), runs.past_deadline(NOW), runs.held_by([uuid4()])):
        sql, params = rows.values_list("pk")[:500].query.sql_with_params()
        assert buffers(explained(sql, params, kept=False)) < 50, sql


CHECKS = (
    a_claim_reads_what_it_takes_in_the_order_of_the_index,
    a_look_at_all_queues_touches_a_few_index_pages,
    rows_due_later_at_a_higher_priority_cost_the_claim_nothing,
    what_is_out_is_counted_without_the_backlog,
    a_permit_and_an_end_read_their_row_alone,
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
