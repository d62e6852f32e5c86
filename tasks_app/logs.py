"""Reading a run's log while it is written.

A chunk's place is its attempt and its number in that attempt; both together are the `offset` by which readers go on.
Chunks come through any number of ingests, so a later one may be there before an earlier one: a reader gets only what
has no gap before it, unless the gap has been there for so long that what is missing will not come.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from tasks_app.models import RunLogChunk, TaskRun
from tasks_app.states import is_final

#: An offset is attempt * 2^32 + number: below 2^53 for any attempt, so that every JSON reader keeps it exact.
_SHIFT: Final = 32
CHUNKS_MAX: Final = 200
#: Chunks that are missing for this long after a later one are taken for lost.
GAP_PATIENCE: Final = timedelta(seconds=10)
#: Chunks of a final run may still be on their way for this long after the report of its end.
TAIL_PATIENCE: Final = timedelta(seconds=1)


@dataclass(frozen=True)
class LogPage:
    """chunks in order; next: the offset to ask with again; complete: nothing more will come."""

    chunks: list[RunLogChunk]
    next: int
    complete: bool


def offset_of(attempt: int, seq: int) -> int:
    """The offset of a chunk."""
    return (attempt << _SHIFT) | seq


def read_log(run: TaskRun, *, after: int, now: datetime, limit: int = CHUNKS_MAX) -> LogPage:
    """The chunks behind `after` (0 at the beginning). `run` must have been read before this call."""
    attempt, seq = after >> _SHIFT, after & ((1 << _SHIFT) - 1)
    rows = RunLogChunk.objects.filter(run=run).order_by("attempt", "seq")
    found = list(rows.filter(attempt=attempt, seq__gt=seq)[: limit + 1]) if attempt else []
    if len(found) <= limit:
        found += rows.filter(attempt__gt=attempt)[: limit + 1 - len(found)]
    kept: list[RunLogChunk] = []
    for chunk in found[:limit]:
        follows = chunk.seq == 1 if chunk.attempt != attempt else chunk.seq == seq + 1
        if not follows and now - chunk.at < GAP_PATIENCE:
            break
        kept.append(chunk)
        attempt, seq = chunk.attempt, chunk.seq
    over = is_final(run.status) and run.completed_at is not None and now - run.completed_at >= TAIL_PATIENCE
    return LogPage(
        chunks=kept,
        next=offset_of(attempt, seq) if kept else after,
        complete=over and len(kept) == len(found),
    )
