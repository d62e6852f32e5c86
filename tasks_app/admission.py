"""The bound on the backlog: outside callers are refused at the door, never by losing what was accepted."""

from __future__ import annotations

import time
from dataclasses import dataclass

from tasks_app.errors import BacklogFull
from tasks_app.models import Queue, TaskRun

#: Seconds for which a process trusts its last count of the backlog, at least; and at most this part of its
#: time may go into counting: a count over a million rows is trusted for longer.
_TRUST_SECONDS = 1.0
_COUNTING_PART = 0.02


@dataclass
class _Seen:
    """What a process last saw of one backlog: trusted until then (monotonic), waiting runs, the bound."""

    until: float
    pending: int
    limit: int | None


_backlog_seen: dict[str, _Seen] = {}


def admit(task_type: str, count: int, limit: int, limit_per_type: int | None) -> None:
    """Raise BacklogFull when `count` more waiting runs would pass a bound.

    The count is a second old at most, and older only where counting takes long: the bound guards against
    overload, it is not an exact limit.
    """
    _admit("global", "", count, limit)
    _admit(task_type, task_type, count, limit_per_type)


def forget() -> None:
    """Count afresh at the next question; for tests."""
    _backlog_seen.clear()


def _admit(scope: str, task_type: str, count: int, limit: int | None) -> None:
    seen = _backlog_seen.get(scope)
    if seen is None or time.monotonic() > seen.until:
        seen = _backlog_seen[scope] = _look(task_type, limit)
    if seen.limit is None:
        return
    if seen.pending + count > seen.limit:
        raise BacklogFull(scope=scope, pending=seen.pending, limit=seen.limit, retry_after_seconds=5)
    seen.pending += count


def _look(task_type: str, limit: int | None) -> _Seen:
    began = time.monotonic()
    waiting = TaskRun.objects.pending()
    if task_type:
        own = Queue.objects.filter(pk=task_type).values_list("backlog_max", flat=True).first()
        limit = own if own is not None else limit
        waiting = waiting.filter(task_type=task_type)
    pending = 0 if limit is None else waiting.capped_count(limit)
    took = time.monotonic() - began
    return _Seen(time.monotonic() + max(_TRUST_SECONDS, took / _COUNTING_PART), pending, limit)
