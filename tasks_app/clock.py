"""The clock of due times and schedules: the database's, so that hosts need not agree on theirs.

A process asks the database for the time once in a while and goes on from there by its own monotonic clock. Everything
below process entry points gets `now` passed in. Leases and durations never use this clock, but monotonic ones.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Protocol

from django.db import Error as DatabaseFailure
from django.db import connection

#: How soon a clock that has never been read tries again.
RETRY_SECONDS = 1.0


class Clock(Protocol):
    """Anything that tells the time in UTC."""

    def now(self) -> datetime:
        """The present instant, aware, in UTC."""


class DatabaseClock:
    """The database's clock, read every `resync_seconds` and carried on by the monotonic clock in between.

    While the database is away the last offset goes on. SQLite has no clock of its own: there it is the host's.
    With SIGNALBOX_CLOCK_RATE (tests) time passes that many times faster from SIGNALBOX_CLOCK_ORIGIN (epoch seconds) on.
    """

    def __init__(self, resync_seconds: float = 30.0, *, host_until_read: bool = False) -> None:
        """Nothing is read before the first `now`, which raises django.db.Error while the database is away.

        host_until_read: until it could be read, the host's clock is good enough. For times that are only reported.
        """
        self._resync_seconds = resync_seconds
        self._host_until_read = host_until_read
        self._lock = threading.Lock()
        self._base: datetime | None = None
        self._base_monotonic = 0.0
        self._synced_monotonic = float("-inf")
        self._rate = float(os.environ.get("SIGNALBOX_CLOCK_RATE", "1"))
        self._origin = float(os.environ.get("SIGNALBOX_CLOCK_ORIGIN", "0"))

    def now(self) -> datetime:
        """The present instant on the database's clock."""
        with self._lock:
            if time.monotonic() - self._synced_monotonic >= self._resync_seconds:
                self._sync()
            assert self._base is not None
            real = self._base + timedelta(seconds=time.monotonic() - self._base_monotonic)
        if self._rate == 1:
            return real
        origin = datetime.fromtimestamp(self._origin, UTC)
        return origin + (real - origin) * self._rate

    def _sync(self) -> None:
        before = time.monotonic()
        try:
            # Connecting takes many times as long as asking: it must not count as half of the way.
            connection.ensure_connection()
            before = time.monotonic()
            read = self._read()
        except DatabaseFailure:
            if self._base is None and not self._host_until_read:
                raise
            if not connection.in_atomic_block:
                connection.close()
            # Go on with the old offset, or with none, and try again later.
            self._synced_monotonic = before
            if self._base is None:
                self._base, self._base_monotonic = datetime.now(UTC), time.monotonic()
                self._synced_monotonic = before - self._resync_seconds + RETRY_SECONDS
            return
        after = time.monotonic()
        self._base, self._base_monotonic, self._synced_monotonic = read, (before + after) / 2, after

    @staticmethod
    def _read() -> datetime:
        if connection.vendor != "postgresql":
            return datetime.now(UTC)
        with connection.cursor() as cursor:
            cursor.execute("SELECT clock_timestamp()")
            value: datetime = cursor.fetchone()[0]
        return value.astimezone(UTC)


class ProcessClock:
    """What everybody in this process goes by who tells the time by `clock`: the database, or what a test says."""

    def __init__(self) -> None:
        """The database's."""
        self._present: Clock = DatabaseClock()

    def now(self) -> datetime:
        """The present instant."""
        return self._present.now()

    @contextmanager
    def replaced_by(self, other: Clock) -> Iterator[None]:
        """Go by another clock for as long as this lasts; for tests."""
        before, self._present = self._present, other
        try:
            yield
        finally:
            self._present = before


clock = ProcessClock()
