"""What the main process still owes: outcomes until they are recorded, logs and progress until they are published.

Thread-safe. An outcome enters once by its nonce and stays until the control plane says that it is recorded or void;
publishing it does not remove it, since a broker may lose it. Logs wait in a bounded queue: when the broker is away for
long, the oldest are dropped and counted, never an outcome.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from tasks_app.lifecycle.recede import Held
from workers_app.metrics import TELEMETRY_DROPPED

logger = logging.getLogger(__name__)

TELEMETRY_BYTES_MAX: Final = 32 * 1024 * 1024


@dataclass(slots=True)
class Unsettled:
    """An outcome that is not known to be recorded. since: when it was put in, monotonic."""

    held: Held
    payload: bytes
    since: float
    published: bool = False


class Outbox:
    """Outcomes and telemetry on their way out."""

    def __init__(self) -> None:
        """Empty."""
        self._lock = threading.Lock()
        self._unsettled: dict[UUID, Unsettled] = {}
        self._to_publish: deque[UUID] = deque()
        self._telemetry: deque[bytes] = deque()
        self._telemetry_bytes = 0
        self._dropping = False
        self.filled = threading.Event()

    def put_outcome(self, held: Held, payload: bytes) -> bool:
        """Add an outcome; False when one for this nonce is here already."""
        with self._lock:
            if held.nonce in self._unsettled:
                return False
            self._unsettled[held.nonce] = Unsettled(held, payload, time.monotonic())
            self._to_publish.append(held.nonce)
        self.filled.set()
        return True

    def put_telemetry(self, payload: bytes) -> None:
        """Add a log chunk, progress or hand-back report; the oldest make room for it."""
        dropped = 0
        with self._lock:
            self._telemetry.append(payload)
            self._telemetry_bytes += len(payload)
            while self._telemetry_bytes > TELEMETRY_BYTES_MAX:
                self._telemetry_bytes -= len(self._telemetry.popleft())
                dropped += 1
            first = bool(dropped) and not self._dropping
            self._dropping = self._dropping or first
        self.filled.set()
        if dropped:
            TELEMETRY_DROPPED.inc(dropped)
        if first:
            logger.warning("logs are dropped until the broker takes reports", extra={"bytes": TELEMETRY_BYTES_MAX})

    def batch(self, count_max: int, bytes_max: int) -> tuple[list[UUID], list[bytes]]:
        """Next reports to publish: nonces of the outcomes among them, and all payloads.

        Telemetry goes first where both wait, so that an attempt's last output is stored before its end. Outcomes stay
        unsettled; call `published` when the broker confirmed, or `unpublished` when it did not.
        """
        nonces: list[UUID] = []
        payloads: list[bytes] = []
        size = 0
        with self._lock:
            while self._telemetry and len(payloads) < count_max and size < bytes_max:
                payload = self._telemetry.popleft()
                self._telemetry_bytes -= len(payload)
                payloads.append(payload)
                size += len(payload)
            while self._to_publish and len(payloads) < count_max and size < bytes_max:
                nonce = self._to_publish.popleft()
                waiting = self._unsettled.get(nonce)
                if waiting is None:
                    continue
                nonces.append(nonce)
                payloads.append(waiting.payload)
                size += len(waiting.payload)
            if not self._telemetry:
                self._dropping = False
            if not self._telemetry and not self._to_publish:
                self.filled.clear()
        return nonces, payloads

    def published(self, nonces: list[UUID]) -> None:
        """The broker confirmed these outcomes."""
        with self._lock:
            for nonce in nonces:
                if nonce in self._unsettled:
                    self._unsettled[nonce].published = True

    def unpublished(self, nonces: list[UUID], payloads: list[bytes]) -> None:
        """The broker did not confirm this batch: all of it waits again, in front."""
        with self._lock:
            outcomes = {self._unsettled[nonce].payload for nonce in nonces if nonce in self._unsettled}
            self._to_publish.extendleft(reversed([nonce for nonce in nonces if nonce in self._unsettled]))
            for payload in reversed([payload for payload in payloads if payload not in outcomes]):
                self._telemetry.appendleft(payload)
                self._telemetry_bytes += len(payload)
        self.filled.set()

    def unsettled(self, older_than_seconds: float = 0.0) -> list[Unsettled]:
        """Outcomes that are not known to be recorded, oldest first."""
        limit = time.monotonic() - older_than_seconds
        with self._lock:
            return [item for item in self._unsettled.values() if item.since <= limit]

    def settle(self, nonces: frozenset[UUID] | set[UUID]) -> None:
        """These are recorded or void: nobody needs them any more."""
        with self._lock:
            for nonce in nonces:
                self._unsettled.pop(nonce, None)

    def holds(self, nonce: UUID) -> bool:
        """Whether an outcome for this nonce waits here."""
        with self._lock:
            return nonce in self._unsettled

    def empty(self) -> bool:
        """Nothing left to publish."""
        with self._lock:
            return not self._to_publish and not self._telemetry
