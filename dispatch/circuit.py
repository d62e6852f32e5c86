"""When to try again what failed. Pure: the caller brings the time."""

from __future__ import annotations

FIRST_SECONDS = 0.1
LONGEST_SECONDS = 2.0


class Circuit:
    """Closed while things go well; after a failure open until a pause has passed, twice as long each time up to 2 s."""

    def __init__(self, first_seconds: float = FIRST_SECONDS, longest_seconds: float = LONGEST_SECONDS) -> None:
        """Closed."""
        self._first, self._longest = first_seconds, longest_seconds
        self._pause = 0.0
        self._next_try = float("-inf")

    @property
    def failing(self) -> bool:
        """The last try failed."""
        return self._pause > 0

    def open(self, at: float) -> bool:
        """Whether to leave it alone at this monotonic instant."""
        return at < self._next_try

    def wait_seconds(self, at: float) -> float:
        """Seconds until the next try, 0 when it may be made now."""
        return max(0.0, self._next_try - at)

    def failed(self, at: float) -> bool:
        """A try failed. True when it is the first in a row: the time to log it."""
        first = self._pause == 0
        self._pause = self._first if first else min(self._longest, self._pause * 2)
        self._next_try = at + self._pause
        return first

    def succeeded(self) -> bool:
        """A try succeeded. True when the one before had failed."""
        recovered = self._pause > 0
        self._pause, self._next_try = 0.0, float("-inf")
        return recovered
