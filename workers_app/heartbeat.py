"""Telemetry: what a worker says about itself every few seconds. Nobody is declared dead by its absence."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import psutil

VERSION: Final = 1


class Heartbeat:
    """Makes heartbeat bodies at most every `every_seconds`.

    cpu_percent and memory_percent are the host's, memory_rss_bytes the worker's with its children, network counters the
    host's since it started.
    """

    def __init__(
        self,
        *,
        worker_id: str,
        slots: int,
        task_types: Sequence[str],
        functions: Sequence[str],
        code_version: str,
        every_seconds: float,
        in_flight: Callable[[], int],
        incarnation_id: Callable[[], str],
    ) -> None:
        """in_flight counts bodies that run now."""
        self._fixed = {
            "worker_id": worker_id,
            "slots": slots,
            "task_types": list(task_types),
            "functions": list(functions),
            "code_version": code_version,
        }
        self._every_seconds = every_seconds
        self._in_flight, self._incarnation_id = in_flight, incarnation_id
        self._last = float("-inf")
        self._process = psutil.Process()
        psutil.cpu_percent(interval=None)

    def due_body(self) -> dict[str, Any] | None:
        """The body to send now, or None when the last one is young."""
        if time.monotonic() - self._last < self._every_seconds:
            return None
        self._last = time.monotonic()
        network = psutil.net_io_counters()
        return self._fixed | {
            "v": VERSION,
            "incarnation_id": self._incarnation_id(),
            "in_flight": self._in_flight(),
            "cpu_percent": psutil.cpu_percent(interval=None),
            "memory_percent": psutil.virtual_memory().percent,
            "memory_rss_bytes": self._resident(),
            "network_sent_bytes": network.bytes_sent,
            "network_received_bytes": network.bytes_recv,
        }

    def _resident(self) -> int:
        total = 0
        for process in [self._process, *self._process.children(recursive=True)]:
            try:
                total += process.memory_info().rss
            except psutil.Error:
                continue
        return total
