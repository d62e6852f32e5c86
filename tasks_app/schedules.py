"""Schedule arithmetic. Pure: instants in, instants out, always in UTC.

Only the fixed interval and the one-off time are here so far; a calendar expression becomes one more function that
answers the same question, `due_instants`, and nothing outside this module changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True)
class Due:
    """What a schedule owes at an instant.

    fire: the nominal time to run now. skipped_first, skipped_last, skipped_count: earlier nominal times that are
    not run. next_fire_at: None when the schedule has ended.
    """

    fire: datetime
    next_fire_at: datetime | None
    skipped_count: int = 0
    skipped_first: datetime | None = None
    skipped_last: datetime | None = None


def due_interval(next_fire_at: datetime, every: timedelta, now: datetime) -> Due:
    """The newest nominal time up to now, the ones before it as skipped, and the next one after now.

    Nominal times stay on the grid that the first one began, however late the caller is. Raises ValueError for an
    interval that is not above zero.
    """
    if every <= timedelta(0):
        raise ValueError("an interval must be above zero")
    missed = (now - next_fire_at) // every if now > next_fire_at else 0
    fire = next_fire_at + missed * every
    if missed == 0:
        return Due(fire=fire, next_fire_at=fire + every)
    return Due(
        fire=fire,
        next_fire_at=fire + every,
        skipped_count=missed,
        skipped_first=next_fire_at,
        skipped_last=fire - every,
    )


def due_once(at: datetime) -> Due:
    """A one-off time fires once, however late, and has no next."""
    return Due(fire=at, next_fire_at=None)
