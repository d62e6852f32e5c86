"""Wakes a dispatcher when something became due.

PostgreSQL: a thread of its own listens on a direct connection in autocommit (a pooler in transaction mode would swallow
LISTEN). A bell that was missed costs one poll: the connection is made again, and every new connection rings once, since
nobody knows what happened meanwhile. Elsewhere nothing rings and the dispatcher polls.
"""

from __future__ import annotations

import logging
import threading
from typing import Any

from django.db import connections

from tasks_app.lifecycle.wake import CHANNEL

logger = logging.getLogger(__name__)

_LISTEN_SECONDS = 5.0


class Doorbell:
    """`wait` returns when somebody rang, or after its timeout."""

    def __init__(self) -> None:
        """Silent until started."""
        self._rung = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def rings(self) -> bool:
        """Whether the database rings at all; without it the caller must poll often."""
        return connections["default"].vendor == "postgresql"

    def start(self) -> None:
        """Begin to listen, where the database can ring."""
        if self.rings:
            self._thread = threading.Thread(target=self._listen, name="signalbox-doorbell", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Listen no more. The thread ends by itself."""
        self._stopping.set()
        self._rung.set()

    def ring(self) -> None:
        """Wake the waiting dispatcher; safe from signal handlers."""
        self._rung.set()

    def wait(self, seconds: float) -> None:
        """Return when rung, now or since the last wait, or after `seconds`."""
        self._rung.wait(seconds)
        self._rung.clear()

    def _listen(self) -> None:
        import psycopg

        pause, failing = 0.1, False
        while not self._stopping.is_set():
            try:
                with psycopg.connect(**_direct_parameters(), autocommit=True) as connection:
                    connection.execute(f"LISTEN {CHANNEL}")
                    self._rung.set()
                    if failing:
                        logger.info("listening again")
                    pause, failing = 0.1, False
                    while not self._stopping.is_set():
                        # One at a time: the generator of many would hold the first one back.
                        for _ in connection.notifies(timeout=_LISTEN_SECONDS, stop_after=1):
                            self._rung.set()
            except psycopg.Error as error:
                if not failing:
                    logger.warning("cannot listen, polling instead", extra={"error": type(error).__name__})
                failing = True
                self._stopping.wait(pause)
                pause = min(2.0, pause * 2)


def _direct_parameters() -> dict[str, Any]:
    parameters: dict[str, Any] = dict(connections["default"].get_connection_params())
    for key in ("pool", "cursor_factory", "context", "server_side_binding", "prepare_threshold"):
        parameters.pop(key, None)
    return parameters
