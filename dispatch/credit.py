"""How many messages a queue may have waiting at the broker. Pure.

The backlog stays in the database, where it can be re-ordered, paused and explained; a message at the broker cannot. So
a queue gets two messages for each free slot, and a look-ahead only where experience shows that messages wait a moment:

* it grows (doubled, plus 4) when messages were permitted since the last look, these had waited less than FAST_SECONDS,
  none had waited longer lately, and the whole window was used;
* it halves when those that were permitted had waited longer than SLOW_SECONDS, or none was and the oldest waits longer.

A queue of ten-second jobs never sees a fast permit and gets nothing ahead; a queue of one-millisecond jobs reaches the
limit within a few looks. Without a look-ahead such a queue would stand still while reports and claims go round: about
half of the throughput (measured with no-op jobs).

A message that was overtaken (one sent more than STRAGGLER_SECONDS later has its permit) is lost, or stuck in the
prefetch of a worker that is busy. It does not count: the reaper brings it back, and until then it must not hold up
the queue.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

FAST_SECONDS: Final = 0.2
SLOW_SECONDS: Final = 1.0
#: After a wait above FAST_SECONDS, how long the look-ahead does not grow.
CALM_SECONDS: Final = 2.0
RECENT_SECONDS: Final = 0.5
STRAGGLER_SECONDS: Final = 1.0
#: Bounds of the pause before the next look at a queue that drains.
PAUSE_SECONDS: Final = (0.005, 0.05)


@dataclass(frozen=True, slots=True)
class QueueLoad:
    """What the database says about a queue at one instant.

    slots: of live workers that take it. running: attempts these hold. dispatched: messages without a permit, without
    stragglers. oldest_wait_seconds: of the oldest of these, 0 without any. permitted: permits since the look before,
    as far as these still run. permitted_wait_seconds: how long their messages had waited on average.
    newest_permitted: when the youngest of them was dispatched.
    """

    slots: int
    running: int
    dispatched: int
    oldest_wait_seconds: float = 0.0
    permitted: int = 0
    permitted_wait_seconds: float = 0.0
    newest_permitted: datetime | None = None

    @property
    def free(self) -> int:
        """Slots in which nothing runs."""
        return max(0, self.slots - self.running)

    @property
    def window_left(self) -> int:
        """What is left of two messages for each free slot; below 0 when more is out."""
        return self.free * 2 - self.dispatched


class LookAhead:
    """The adaptive part of one queue's window, as one dispatcher sees it."""

    def __init__(self, per_slot_max: int) -> None:
        """Begins at nothing ahead."""
        self._per_slot_max = per_slot_max
        self.ahead = 0
        #: Messages dispatched before this instant were overtaken; None while nothing is known.
        self.overtaken_before: datetime | None = None
        self._drained_at = float("-inf")
        self._used_up = False
        self._wait = 0.0
        self._slow_at = float("-inf")

    def credit(self, load: QueueLoad, at: float) -> int:
        """Messages that may be added now. `at`: monotonic seconds."""
        if load.permitted:
            self._drained_at = at
        if load.newest_permitted is not None:
            overtaken = load.newest_permitted - timedelta(seconds=STRAGGLER_SECONDS)
            if self.overtaken_before is None or overtaken > self.overtaken_before:
                self.overtaken_before = overtaken
        self._adapt(load, at)
        # While slots are busy the look-ahead is filled up again only when half of it is used: a round costs much the
        # same for one message as for fifty.
        if load.free == 0 and load.dispatched * 2 > self.ahead:
            self._used_up = True
            return 0
        credit = max(0, load.window_left + self.ahead)
        self._used_up = credit == 0
        return credit

    def pause_seconds(self) -> float:
        """How long the next look may wait: a quarter of what messages wait, so that the queue never runs dry."""
        shortest, longest = PAUSE_SECONDS
        return min(longest, max(shortest, self._wait / 4))

    def drains_fast(self, at: float) -> bool:
        """Messages are taken off this queue within moments: it is worth looking again very soon."""
        return self.ahead > 0 and at - self._drained_at < RECENT_SECONDS

    def claimed(self, count: int, credit: int) -> None:
        """What the claim made of the credit."""
        self._used_up = self._used_up or count >= credit

    def _adapt(self, load: QueueLoad, at: float) -> None:
        wait = load.permitted_wait_seconds if load.permitted else load.oldest_wait_seconds
        self._wait = wait
        if wait > FAST_SECONDS:
            self._slow_at = at
        if wait > SLOW_SECONDS:
            self.ahead //= 2
        elif load.permitted and self._used_up and at - self._slow_at > CALM_SECONDS:
            self.ahead = self.ahead * 2 + 4
        self.ahead = min(self.ahead, load.slots * self._per_slot_max)
