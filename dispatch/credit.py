"""How many messages a queue may have waiting at the broker. Pure.

The backlog stays in the database, where it can be re-ordered, paused and explained; a message at the broker cannot. So
a queue gets two messages for each free slot, and a look-ahead only where experience shows that messages wait a moment:

* grows (doubled, plus 4) when messages drained since the last look, none waits for FAST_SECONDS, none did lately, and
  the whole window was used;
* halves when the oldest message waits longer than SLOW_SECONDS.

A queue of ten-second jobs never sees a fast drain and gets nothing ahead; a queue of one-millisecond jobs reaches the
limit within a few looks. Without a look-ahead such a queue would stand still while reports and claims go round: about
half of the throughput (measured with no-op jobs).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

FAST_SECONDS: Final = 0.2
SLOW_SECONDS: Final = 1.0
#: After a wait above FAST_SECONDS, how long the look-ahead does not grow.
CALM_SECONDS: Final = 2.0
RECENT_SECONDS: Final = 0.5


@dataclass(frozen=True, slots=True)
class QueueLoad:
    """What the database says about a queue at one instant.

    slots: of live workers that take it. running: attempts these hold. dispatched: messages without a permit yet.
    oldest_wait_seconds: of the oldest of these, 0 without any.
    """

    slots: int
    running: int
    dispatched: int
    oldest_wait_seconds: float = 0.0

    @property
    def free(self) -> int:
        """Slots in which nothing runs."""
        return max(0, self.slots - self.running)


class LookAhead:
    """The adaptive part of one queue's window, as one dispatcher sees it."""

    def __init__(self, per_slot_max: int) -> None:
        """Begins at nothing ahead."""
        self._per_slot_max = per_slot_max
        self.ahead = 0
        self._drained_at = float("-inf")
        self._dispatched_before = 0
        self._claimed_since = 0
        self._used_up = False
        self._slow_at = float("-inf")

    def credit(self, load: QueueLoad, at: float) -> int:
        """Messages that may be added now. `at`: monotonic seconds."""
        drained = self._dispatched_before + self._claimed_since > load.dispatched
        if drained:
            self._drained_at = at
        self._dispatched_before, self._claimed_since = load.dispatched, 0
        limit = load.slots * self._per_slot_max
        if load.oldest_wait_seconds > FAST_SECONDS:
            self._slow_at = at
        if load.oldest_wait_seconds > SLOW_SECONDS:
            self.ahead //= 2
        elif drained and self._used_up and at - self._slow_at > CALM_SECONDS:
            self.ahead = self.ahead * 2 + 4
        self.ahead = min(self.ahead, limit)
        credit = max(0, load.free * 2 + self.ahead - load.dispatched)
        self._used_up = credit == 0
        return credit

    def drains_fast(self, at: float) -> bool:
        """Messages are taken off this queue within moments: it is worth looking again very soon."""
        return self.ahead > 0 and at - self._drained_at < RECENT_SECONDS

    def claimed(self, count: int, credit: int) -> None:
        """What the claim made of the credit."""
        self._claimed_since += count
        self._used_up = self._used_up or count >= credit
