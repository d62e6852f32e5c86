"""A run's result, which may be large: looked at without being carried along, or read as a whole.

What most readers of a run want is its state. So a run that is read by `services.find_run` holds its result only when
that is small; of a large one it knows the size and the beginning, both made by the database. The whole is read as
the text that the database keeps, and nobody parses it on the way.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from django.db.models import Case, F, JSONField, TextField, When
from django.db.models.functions import Cast, Left

from tasks_app.errors import RunNotFound
from tasks_app.models import TaskRun
from tasks_app.querysets import Bytes, RunQuerySet

#: A result up to this size, as JSON text, is part of what a run is shown as.
INLINE_BYTES: Final = 64 * 1024
HEAD_CHARACTERS: Final = 2000
PIECE_CHARACTERS: Final = 64 * 1024


@dataclass(frozen=True)
class Glance:
    """value: the result where it is small. head: how its text begins; bytes: how long that is."""

    value: Any
    head: str
    bytes: int

    @property
    def large(self) -> bool:
        """Whether it has to be asked for by itself."""
        return self.bytes > INLINE_BYTES


def without_large(rows: RunQuerySet) -> RunQuerySet:
    """Rows whose result is read only when it is small; complete each by `settle`."""
    text = Cast("result", TextField())
    return rows.defer("result").annotate(
        result_bytes=Bytes(text),
        result_head=Left(text, HEAD_CHARACTERS),
        result_inline=Case(When(result_bytes__lte=INLINE_BYTES, then=F("result")), output_field=JSONField()),
    )


def settle(run: TaskRun) -> TaskRun:
    """A row of `without_large`: its `result` is the value, or is fetched when somebody asks for it all the same."""
    if (run.result_bytes or 0) <= INLINE_BYTES:  # type: ignore[attr-defined]
        run.result = run.result_inline  # type: ignore[attr-defined]
    return run


def glance(run: TaskRun) -> Glance | None:
    """The result of any run, as far as it is wanted without being asked for; None where there is none."""
    known = vars(run)
    if "result_bytes" in known:
        if known["result_bytes"] is None:
            return None
        return Glance(known["result_inline"], known["result_head"], known["result_bytes"])
    if run.result is None:
        return None
    text = json.dumps(run.result, ensure_ascii=False)
    found = Glance(run.result, text[:HEAD_CHARACTERS], len(text.encode()))
    return Glance(None, found.head, found.bytes) if found.large else found


def whole(run_id: int) -> str:
    """The result as JSON text; `null` where there is none. Raises RunNotFound."""
    try:
        text = TaskRun.objects.filter(pk=run_id).values_list(Cast("result", TextField())).get()[0]
    except (TaskRun.DoesNotExist, OverflowError) as error:
        raise RunNotFound(run_id=run_id) from error
    return "null" if text is None else str(text)


def pieces(text: str) -> Iterator[str]:
    """Parts of a size that a slow reader may take one by one."""
    for start in range(0, len(text), PIECE_CHARACTERS):
        yield text[start : start + PIECE_CHARACTERS]
