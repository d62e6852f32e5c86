"""Reading a run's log in pages, while it is written and afterwards.

A chunk's place is its attempt and its number in that attempt; both together are the `offset` by which readers go on.
Chunks come through any number of ingests, so a later one may be there before an earlier one: a reader gets only what
has no gap before it, unless the gap has been there for so long that what is missing will not come.

A page is bounded by its text: places and sizes are read first, and only the chunks of the page with their text. So a
log of any length costs a reader, and the process that serves it, no more than a page at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from django.db.models import Q

from tasks_app.models import RunLogChunk, TaskRun
from tasks_app.querysets import Bytes
from tasks_app.states import is_final

#: An offset is attempt * 2^32 + number: below 2^53 for any attempt, so that every JSON reader keeps it exact.
_SHIFT: Final = 32
_SEQ: Final = (1 << _SHIFT) - 1
OFFSET_MAX: Final = 1 << 53
#: What a page holds at most: chunks, and bytes of their text in UTF-8. One chunk is always a page, however large.
CHUNKS_MAX: Final = 200
PAGE_BYTES: Final = 256 * 1024
#: Chunks that are missing for this long after a later one are taken for lost.
GAP_PATIENCE: Final = timedelta(seconds=10)
#: Chunks of a final run may still be on their way for this long after the report of its end.
TAIL_PATIENCE: Final = timedelta(seconds=1)


@dataclass(frozen=True)
class LogPage:
    """chunks in order; next: the offset to ask with again; complete: nothing more will come.

    more: further chunks are there already. previous: with it `read_before` gives what stands before this page; None at
    the beginning.
    """

    chunks: list[RunLogChunk]
    next: int
    complete: bool
    more: bool = False
    previous: int | None = None

    @property
    def bytes(self) -> int:
        """How much text it holds."""
        return sum(len(chunk.text.encode()) for chunk in self.chunks)


class _Place(NamedTuple):
    attempt: int
    seq: int
    at: datetime
    size: int

    @property
    def offset(self) -> int:
        return offset_of(self.attempt, self.seq)


def offset_of(attempt: int, seq: int) -> int:
    """The offset of a chunk."""
    return (attempt << _SHIFT) | seq


def read_log(
    run: TaskRun, *, after: int, now: datetime, limit: int = CHUNKS_MAX, bytes_max: int = PAGE_BYTES
) -> LogPage:
    """The page behind `after` (0 at the beginning). `run` must have been read before this call."""
    attempt, seq = after >> _SHIFT, after & _SEQ
    found = _places(run, limit + 1, Q(attempt=attempt, seq__gt=seq), Q(attempt__gt=attempt))
    kept: list[_Place] = []
    waits, room = False, bytes_max
    for place in found[:limit]:
        follows = place.seq == 1 if place.attempt != attempt else place.seq == seq + 1
        waits = not follows and now - place.at < GAP_PATIENCE
        if waits or (kept and place.size > room):
            break
        kept.append(place)
        room -= place.size
        attempt, seq = place.attempt, place.seq
    over = is_final(run.status) and run.completed_at is not None and now - run.completed_at >= TAIL_PATIENCE
    return LogPage(
        chunks=_chunks(run, kept),
        next=kept[-1].offset if kept else after,
        complete=over and len(kept) == len(found),
        more=len(kept) < len(found) and not waits,
        previous=kept[0].offset if kept and after else None,
    )


def read_before(run: TaskRun, *, before: int, limit: int = CHUNKS_MAX, bytes_max: int = PAGE_BYTES) -> LogPage:
    """The page that ends right before the chunk at this offset."""
    kept, older = _ending(run, before, limit, bytes_max)
    return LogPage(
        chunks=_chunks(run, kept),
        next=kept[-1].offset if kept else before,
        complete=False,
        more=True,
        previous=kept[0].offset if older else None,
    )


def read_tail(run: TaskRun, *, now: datetime, limit: int = CHUNKS_MAX, bytes_max: int = PAGE_BYTES) -> LogPage:
    """The last page so far; go on behind it with `read_log`. `run` must have been read before this call."""
    kept, older = _ending(run, None, limit, bytes_max)
    if not kept:
        return read_log(run, after=0, now=now, limit=limit, bytes_max=bytes_max)
    begin = offset_of(kept[0].attempt, kept[0].seq - 1)
    page = read_log(run, after=begin, now=now, limit=limit, bytes_max=bytes_max)
    return replace(page, previous=kept[0].offset if older else None)


def _ending(run: TaskRun, before: int | None, limit: int, bytes_max: int) -> tuple[list[_Place], bool]:
    """The places of a page that ends before an offset, or at the end of the log; and whether anything is older."""
    parts = [Q()]
    if before is not None:
        parts = [Q(attempt=before >> _SHIFT, seq__lt=before & _SEQ), Q(attempt__lt=before >> _SHIFT)]
    found = _places(run, limit + 1, *parts, newest_first=True)
    kept: list[_Place] = []
    room = bytes_max
    for place in found[:limit]:
        if kept and place.size > room:
            break
        kept.append(place)
        room -= place.size
    return kept[::-1], len(kept) < len(found)


def _places(run: TaskRun, count: int, *parts: Q, newest_first: bool = False) -> list[_Place]:
    """Places of the first `count` chunks of these parts of a log in turn; each part is a range of the index."""
    order = ("-attempt", "-seq") if newest_first else ("attempt", "seq")
    found: list[_Place] = []
    for part in parts:
        if len(found) < count:
            rows = RunLogChunk.objects.filter(part, run=run).order_by(*order)
            columns = rows.values_list("attempt", "seq", "at", Bytes("text"))
            found += [_Place(*row) for row in columns[: count - len(found)]]
    return found


def _chunks(run: TaskRun, places: Sequence[_Place]) -> list[RunLogChunk]:
    """The chunks at these places, which stand in order. One that came between them meanwhile comes along."""
    if not places:
        return []
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for place in places:
        first.setdefault(place.attempt, place.seq)
        last[place.attempt] = place.seq
    wanted = Q()
    for attempt, seq in first.items():
        wanted |= Q(attempt=attempt, seq__gte=seq, seq__lte=last[attempt])
    return list(RunLogChunk.objects.filter(wanted, run=run).order_by("attempt", "seq"))
