"""Wakes a dispatcher when something became due.

PostgreSQL: a direct connection in autocommit (a pooler in transaction mode would swallow LISTEN), on which the waiting
dispatcher itself sleeps: a thread between the two would cost each run two changes of thread. A bell that was missed
costs one poll: the connection is made again, and every new connection rings once, since nobody knows what happened
meanwhile. Elsewhere nothing rings and the dispatcher polls.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import time
from typing import Any

from django.db import connections

from tasks_app.lifecycle.wake import CHANNEL

logger = logging.getLogger(__name__)

_PAUSE_SECONDS = (0.1, 2.0)
_CONNECT_SECONDS = 2


class Doorbell:
    """`wait` returns when somebody rang, or after its timeout. For one thread; `ring` for any and for signals."""

    def __init__(self) -> None:
        """Connects at the first wait, where the database can ring."""
        self._by_hand_read, self._by_hand_write = os.pipe()
        os.set_blocking(self._by_hand_read, False)
        os.set_blocking(self._by_hand_write, False)
        self._connection: Any = None
        self._pause = _PAUSE_SECONDS[0]
        self._not_before = float("-inf")
        self._failing = False

    @property
    def rings(self) -> bool:
        """Whether the database rings at all; without it the caller must poll often."""
        return connections["default"].vendor == "postgresql"

    def close(self) -> None:
        """Listen no more."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def ring(self) -> None:
        """Wake the waiting dispatcher; safe from signal handlers."""
        with contextlib.suppress(BlockingIOError):
            os.write(self._by_hand_write, b"\0")

    def wait(self, seconds: float) -> bool:
        """Return True when rung, now or since the last wait; False after `seconds`, sooner while it cannot listen."""
        if self._listens():
            return True  # a new connection: what was rung before it was heard by nobody
        waiting = select.poll()
        waiting.register(self._by_hand_read, select.POLLIN)
        if self._connection is not None:
            waiting.register(self._connection.fileno(), select.POLLIN)
        elif self.rings:
            seconds = min(seconds, max(0.0, self._not_before - time.monotonic()))
        rung = False
        for descriptor, _ in waiting.poll(seconds * 1000):
            rung = True
            if descriptor == self._by_hand_read:
                os.read(self._by_hand_read, 4096)
            else:
                self._heard()
        return rung

    def _listens(self) -> bool:
        """See that there is a connection, where there can be one; True when it is a new one."""
        import psycopg

        if not self.rings or self._connection is not None or time.monotonic() < self._not_before:
            return False
        try:
            self._connection = psycopg.connect(**_direct_parameters(), autocommit=True)
            self._connection.execute(f"LISTEN {CHANNEL}")
        except psycopg.Error as error:
            self._lost(error)
            return False
        if self._failing:
            logger.info("listening again")
        self._pause, self._failing = _PAUSE_SECONDS[0], False
        return True

    def _heard(self) -> None:
        import psycopg

        try:
            for _ in self._connection.notifies(timeout=0):
                pass
        except psycopg.Error as error:
            self._lost(error)

    def _lost(self, error: Exception) -> None:
        if not self._failing:
            logger.warning("cannot listen, polling instead", extra={"error": type(error).__name__})
        self._failing = True
        self.close()
        self._not_before = time.monotonic() + self._pause
        self._pause = min(_PAUSE_SECONDS[1], self._pause * 2)


def _direct_parameters() -> dict[str, Any]:
    parameters: dict[str, Any] = dict(connections["default"].get_connection_params())
    for key in ("pool", "cursor_factory", "context", "server_side_binding", "prepare_threshold"):
        parameters.pop(key, None)
    return parameters | {"connect_timeout": _CONNECT_SECONDS}
