"""Judges leases by watching their counters. Pure: the caller reads the database and the clock.

No host's wall clock counts. A lease is over only when reads at *every* tick, for the whole lease, saw the same counter.
Whatever interrupts the watching (a failed read, a tick that came late because this process was stopped or the database
stood still) starts everybody's count afresh: workers could not renew either, or we would not know.

Why this is safe: a renewal that a worker sent is in the database before the read that sees it returns, so counting from
the *end* of that read begins later than the worker's own count, which begins before sending. The worker gives up a
margin before its lease, so it has ended its bodies when the verdict comes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from uuid import UUID

#: A gap between two reads of more than this many ticks is an interruption.
GAP_TICKS: Final = 2.5


@dataclass(frozen=True, slots=True)
class Lease:
    """What a read says about a live incarnation."""

    counter: int
    lease_seconds: float


@dataclass(slots=True)
class _Watched:
    counter: int
    since: float


class LeaseWatch:
    """One reaper's memory of the counters it saw."""

    def __init__(self, tick_seconds: float) -> None:
        """tick_seconds: how often reads are meant to come."""
        self._gap_seconds = tick_seconds * GAP_TICKS
        self._watched: dict[UUID, _Watched] = {}
        self._last_read_at: float | None = None

    def observe(self, leases: Mapping[UUID, Lease], *, asked_at: float, answered_at: float) -> dict[UUID, int]:
        """A read of every live incarnation; returns those whose lease is over, with the counter that was watched.

        asked_at, answered_at: monotonic seconds before and after the read.
        """
        if self._last_read_at is not None and asked_at - self._last_read_at > self._gap_seconds:
            self._watched.clear()
        if answered_at - asked_at > self._gap_seconds:
            self._watched.clear()
        self._last_read_at = answered_at
        self._watched = {
            incarnation: self._seen(self._watched.get(incarnation), lease, answered_at)
            for incarnation, lease in leases.items()
        }
        return {
            incarnation: lease.counter
            for incarnation, lease in leases.items()
            if asked_at - self._watched[incarnation].since >= lease.lease_seconds
        }

    def interrupted(self) -> None:
        """A read failed: everybody's lease begins afresh."""
        self._watched.clear()
        self._last_read_at = None

    @staticmethod
    def _seen(before: _Watched | None, lease: Lease, answered_at: float) -> _Watched:
        if before is not None and before.counter == lease.counter:
            return before
        return _Watched(lease.counter, answered_at)
