"""What is written in bulk is read back unchanged, whatever it holds."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from uuid import uuid4

import pytest
from django.db import connection

from tasks_app.lifecycle.arrays import array_literal
from tasks_app.lifecycle.rows import insert_rows, lock_runs, update_rows
from tasks_app.models import RunLogChunk, TaskRun
from tests.integration.domain import NOW, submitted

pytestmark = pytest.mark.django_db

ODD_TEXTS = [
    "",
    "NULL",
    "null",
    "a,b",
    "{}",
    '"',
    "\\",
    '\\"',
    '{a,"b\\"}',
    "  x ",
    "line\nbreak\ttab",
    "naïve ✓ 🚂",
    "'--",
]


@pytest.mark.postgresql_only
@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (ODD_TEXTS, "text"),
        ([None, "a", None], "text"),
        ([None, None], "timestamptz"),
        ([0, -5, None, 2**62], "bigint"),
        ([0.0, 1e-300, 1.5, 1e300, None], "double precision"),
        ([True, None, False], "boolean"),
        ([uuid4(), None], "uuid"),
        ([NOW, None, datetime(1999, 12, 31, 23, 59, 59, 999999, UTC)], "timestamptz"),
        ([NOW.astimezone(timezone(timedelta(hours=-9, minutes=-30)))], "timestamptz"),
        ([], "text"),
    ],
)
def test_an_array_literal_is_read_by_postgresql_as_the_values_that_it_was_made_of(values: list[object], kind: str):
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT %s::{kind}[]", [array_literal(values)])
        [[read]] = cursor.fetchall()
    assert read == values


def test_a_value_that_has_no_form_in_an_array_is_an_error():
    with pytest.raises(TypeError, match="dict"):
        array_literal([{}])


def test_texts_survive_inserting_and_updating_in_bulk():
    ids = submitted(count=len(ODD_TEXTS))
    update_rows(TaskRun, ("error_message",), list(zip(ids, ODD_TEXTS, strict=True)))
    assert [TaskRun.objects.get(pk=pk).error_message for pk in ids] == ODD_TEXTS
    insert_rows(
        RunLogChunk, ("run", "attempt", "token", "seq", "stream", "text", "at"),
        [(ids[0], 1, uuid4(), seq, "stdout", text, NOW) for seq, text in enumerate(ODD_TEXTS)],
    )  # fmt: skip
    assert list(RunLogChunk.objects.order_by("seq").values_list("text", flat=True)) == ODD_TEXTS


def test_locked_rows_hold_what_the_model_holds():
    ids = submitted(count=3)
    locked = lock_runs([*ids[::-1], ids[0], 10**9])
    assert list(locked) == sorted(ids)
    for pk, row in locked.items():
        run = TaskRun.objects.get(pk=pk)
        assert row == tuple(getattr(run, name) for name in row._fields)
