"""Pages of runs, newest first, after a keyset cursor; see the package for what they cost.

A page is merged from *streams*: parts of the runs that an index gives in the order of the list, one for each state or
for each task that is searched. Where the search says more than that, each stream is followed over its next rows only.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from django.db.models import F, Q
from django.db.models.functions import Left, Right

from tasks_app.models import Task, TaskRun
from tasks_app.querysets import RunQuerySet
from tasks_app.search.grammar import RunSearch, Term
from tasks_app.states import ACTIVE, RunStatus
from tasks_app.text import line_of_error

PAGE: Final = 50
COUNT_MAX: Final = 1000
#: Rows of an index that one page looks at, where the search also says what the index does not know.
LOOK_MAX: Final = 10_000
STREAMS_MAX: Final = 10
#: Waiting or running rows that are sorted for a page; where there are more, they are most of the newest rows anyhow.
SORTED_MAX: Final = 20_000
#: Columns that may be large.
LARGE: Final = ("parameters", "result", "error_message", "progress")
_ERROR_PART: Final = 200
_ACTIVE: Final = frozenset(status.value for status in ACTIVE)
#: States whose runs an index gives in the order of the list.
_ORDERED: Final = frozenset({"FAILED", "TIMEOUT", "CANCELLED", "SKIPPED", "LOST", "QUARANTINED"})
_EVERY: Final = frozenset(status.value for status in RunStatus)


@dataclass(frozen=True)
class RunPage:
    """rows: newest first; their `error` is the line of the error text that says most. next_before: the next cursor.

    unfinished: the search looked at LOOK_MAX rows and found fewer than a page; the next page goes on from there.
    """

    rows: list[TaskRun]
    next_before: int | None
    unfinished: bool = False


@dataclass(frozen=True)
class Count:
    """How many were counted, and whether there may be more."""

    number: int
    more: bool

    def __str__(self) -> str:
        return f"{self.number:,}+" if self.more else f"{self.number:,}"


@dataclass(frozen=True)
class _Stream:
    """Rows that an index finds. ordered: in the order of the list, else they are few and sorted."""

    q: Q
    ordered: bool = True

    def rows(self, *, before: int | None) -> RunQuerySet:
        """Newest first."""
        rows = TaskRun.objects.filter(self.q)
        if self.ordered:
            return rows.before(before)
        # Not the column itself: the planner would walk the primary key for its order, past millions of others.
        placed = rows.annotate(place=F("id") + 0)
        return (placed if before is None else placed.filter(place__lt=before)).order_by("-place")

    def matching(self, rest: Q | None, *, before: int | None, look: int) -> tuple[RunQuerySet, int]:
        """The rows that also fulfil `rest`, and the place at which looking ended (0 where nothing was left out).

        The next `look` rows are a range of ids, so that they are read where the index has them: as a sub-select with a
        limit they would be joined, and the planner might read the whole table for that.
        """
        rows = self.rows(before=before)
        if rest is None or not self.ordered:
            return rows.filter(rest or Q()), 0
        floor = next(iter(rows.values_list("pk", flat=True)[look - 1 : look]), 0)
        return rows.filter(rest, pk__gte=floor), floor


def page(search: RunSearch, *, before: int | None = None) -> RunPage:
    """The newest runs that a search finds, PAGE of them, below the cursor."""
    streams, rest = _plan(search)
    look = max(PAGE + 1, LOOK_MAX // max(1, len(streams)))
    found: list[list[int]] = []
    floor = 0
    for stream in streams:
        rows, left_at = stream.matching(rest, before=before, look=look)
        ids = list(rows.values_list("pk", flat=True)[: PAGE + 1])
        floor = max(floor, left_at if len(ids) <= PAGE else 0)
        found.append(ids)
    # Below the highest place at which a stream was left, some of its rows are not known.
    newest = [pk for pk in heapq.merge(*found, reverse=True) if pk >= floor]
    rows_shown = _shown(newest[:PAGE])
    if len(newest) > PAGE:
        return RunPage(rows_shown, newest[PAGE - 1])
    return RunPage(rows_shown, floor or None, unfinished=bool(floor))


def count(search: RunSearch) -> Count:
    """How many runs a search finds, up to COUNT_MAX and as far as one page looks."""
    streams, rest = _plan(search)
    look = max(PAGE + 1, LOOK_MAX // max(1, len(streams)))
    number, more = 0, False
    for stream in streams:
        rows, left_at = stream.matching(rest, before=None, look=look)
        number += rows.order_by()[: COUNT_MAX + 1].count()
        if number > COUNT_MAX:
            return Count(COUNT_MAX, more=True)
        more = more or left_at > 0
    return Count(number, more)


def again(ids: Sequence[int]) -> list[TaskRun]:
    """These runs as they are now, in this order; those that are gone are left out."""
    rows = {run.pk: run for run in _shown(ids)}
    return [rows[pk] for pk in ids if pk in rows]


def unseen(search: RunSearch, ids: Sequence[int]) -> int:
    """How many of the newest page a reader who has these runs before them does not see; PAGE at most.

    With a full page before them, what moved up from below it is no news.
    """
    lowest = min(ids) if len(ids) >= PAGE else 0
    return sum(run.pk > lowest and run.pk not in ids for run in page(search).rows)


def _shown(ids: Sequence[int]) -> list[TaskRun]:
    rows = TaskRun.objects.filter(pk__in=ids).defer(*LARGE).order_by("-pk")
    shown: list[Any] = list(
        rows.annotate(begin=Left("error_message", _ERROR_PART), end=Right("error_message", _ERROR_PART))
    )
    for run in shown:
        # A short text is both its beginning and its end; a line cut in two is still the last one of a traceback.
        run.error = line_of_error(run.begin if len(run.begin) < _ERROR_PART else f"{run.begin}\n{run.end}")
    return shown


def _plan(search: RunSearch) -> tuple[list[_Stream], Q | None]:
    """The streams, and what is left to be compared row by row."""
    ids = _ids(search)
    if ids is not None:
        return [_Stream(Q(pk__in=sorted(ids)[:LOOK_MAX]))], _everything(search)
    statuses = _statuses(search)
    if statuses != _EVERY and (streams := _by_status(statuses)) is not None:
        return streams, _left(search, "is")
    wanted = search.of("task")
    if len(wanted) == 1:
        tasks = list(
            Task.objects.filter(_names(wanted[0])).order_by("-pk").values_list("pk", flat=True)[: STREAMS_MAX + 1]
        )
        if len(tasks) <= STREAMS_MAX:
            return [_Stream(Q(task=task)) for task in tasks], _left(search, "task")
    return [_Stream(Q())], _everything(search) if search.terms else None


def _by_status(statuses: frozenset[str]) -> list[_Stream] | None:
    """A stream a state; None where one of them has no index, or so many rows that sorting them is no way."""
    if not statuses <= _ORDERED | _ACTIVE:
        return None
    for status in statuses - _ORDERED:
        if TaskRun.objects.filter(status=status).capped_count(SORTED_MAX) > SORTED_MAX:
            return None
    return [_Stream(Q(status=status), ordered=status in _ORDERED) for status in sorted(statuses)]


def _left(search: RunSearch, answered: str) -> Q | None:
    """The conditions of the terms whose key is not answered by the streams already."""
    left = [term for term in search.terms if term.key != answered or (term.negated and answered != "is")]
    return _all(left) if left else None


def _everything(search: RunSearch) -> Q:
    return _all(search.terms)


def _all(terms: Sequence[Term]) -> Q:
    q = Q()
    for term in terms:
        q &= ~_condition(term) if term.negated else _condition(term)
    return q


def _condition(term: Term) -> Q:
    if term.comparison is not None:
        column = {"attempt": "attempt", "created": "created_at"}[term.key]
        return Q(**{f"{column}__{term.comparison.operator}": term.comparison.value})
    if term.key == "task":
        # By way of the tasks: runs have an index by task, and none by name.
        return Q(task_id__in=Task.objects.filter(_names(term)).values("pk"))
    column = {"is": "status", "type": "task_type", "worker": "worker_id", "id": "pk"}[term.key]
    return Q(**{f"{column}__in": term.values})


def _names(term: Term) -> Q:
    q = Q(name__in=term.values)
    for prefix in term.prefixes:
        q |= Q(name__startswith=prefix)
    return q


def _ids(search: RunSearch) -> set[int] | None:
    sets = [{int(value) for value in term.values} for term in search.of("id")]
    return set.intersection(*sets) if sets else None


def _statuses(search: RunSearch) -> frozenset[str]:
    wanted = _EVERY
    for term in search.of("is"):
        wanted &= frozenset(term.values)
    for term in search.of("is", negated=True):
        wanted -= frozenset(term.values)
    return wanted
