"""How many permits beyond the free slots are asked for. Pure.

With a permit only for a free slot, each slot would wait for a round trip to the control plane between two bodies. So
more is asked for: what the slots get through in a tenth of a second, by the measured durations of each function, and
nothing for what is not measured or takes long. The built-in executors are one function for whatever they run: there it
is the task that is measured.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final

from tasks_app.messages.execution import HTTP_FUNCTION, SHELL_FUNCTION

#: Granted deliveries beyond the slots: as many as the slots get through in so many seconds, and at most so many.
AHEAD_SECONDS: Final = 0.1
AHEAD_MAX: Final = 32
#: What a function's look-ahead is reckoned from: the 95th percentile of its latest runs, at least so many of them.
SAMPLES: Final = 32
SAMPLES_MIN: Final = 8
#: So many functions and tasks are remembered, those that ended last.
KNOWN_MAX: Final = 1_000
#: For how long the widest look-ahead is kept for the broker's prefetch: each change of it is a way to the broker.
PREFETCH_HELD_SECONDS: Final = 2.0


@dataclass(slots=True)
class Durations:
    """How long the latest bodies of one function took, in ms. p95: None while too few are known."""

    latest: deque[int] = field(default_factory=lambda: deque(maxlen=SAMPLES))
    p95: int | None = None

    def add(self, milliseconds: int) -> None:
        """One more."""
        self.latest.append(milliseconds)
        count = len(self.latest)
        if count >= SAMPLES_MIN:
            self.p95 = sorted(self.latest)[min(count - 1, count * 95 // 100)]


def measured_as(function: str, task_id: int) -> str:
    """Under which name the bodies of a delivery are measured together."""
    return f"{function} {task_id}" if function in (SHELL_FUNCTION, HTTP_FUNCTION) else function


class LookAhead:
    """What one worker has learnt about its functions."""

    def __init__(self, slots: int) -> None:
        """Nothing is known yet, and nothing ahead."""
        self._slots = slots
        self._durations: dict[str, Durations] = {}
        self._prefetch = 0
        self._prefetch_at = float("-inf")

    def took(self, function: str, milliseconds: int, at: float) -> None:
        """A body of this function ended. `at`: monotonic seconds."""
        measured = self._durations.pop(function, None) or Durations()
        measured.add(milliseconds)
        self._durations[function] = measured
        if len(self._durations) > KNOWN_MAX:
            del self._durations[next(iter(self._durations))]
        ahead = self.of(function)
        if ahead >= self._prefetch or at - self._prefetch_at > PREFETCH_HELD_SECONDS:
            self._prefetch, self._prefetch_at = ahead, at

    def of(self, function: str) -> int:
        """How many beyond the slots, as far as this function is concerned; 0 for what is long or not measured."""
        measured = self._durations.get(function)
        if measured is None or measured.p95 is None:
            return 0
        return min(AHEAD_MAX, int(self._slots * AHEAD_SECONDS * 1000 / max(1, measured.p95)))

    @property
    def prefetch(self) -> int:
        """How many more deliveries than usual the broker should have sent: the widest of what ended lately."""
        return self._prefetch
