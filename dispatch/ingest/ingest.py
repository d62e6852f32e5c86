"""The ingest's loop: gather, apply, acknowledge.

A batch is applied until it is: while the database is away nothing is acknowledged, the broker connection is kept
alive, and the reports stay where they are safe. When the broker connection breaks meanwhile, the batch comes again and
changes nothing the second time.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Any

from django.db import Error as DatabaseFailure
from django.db import connection

from dispatch import metrics
from dispatch.broker.port import BrokerAway, Delivery, ReportSource
from dispatch.circuit import Circuit
from dispatch.conf import DispatchSettings
from dispatch.ingest import applying
from dispatch.ingest.heartbeats import apply_heartbeats
from dispatch.ingest.poison import halved, keep, leave_broken_connection, passes_by_itself
from dispatch.ingest.sorting import Limits, Poison, Sorted
from tasks_app.clock import Clock
from tasks_app.conf import conf as tasks_conf
from tasks_app.crashpoints import reach
from tasks_app.messages.signing import KeyRing
from tasks_app.process_health import LoopBeat

logger = logging.getLogger(__name__)

IDLE_SECONDS = 1.0


class Ingest:
    """One ingest. `step` is one round; `run` goes round until stopped."""

    def __init__(self, clock: Clock, source: ReportSource, settings: DispatchSettings) -> None:
        """Nothing is opened before the first step."""
        self.beat = LoopBeat()
        self.connected = False
        self._clock, self._source, self._settings = clock, source, settings
        section = tasks_conf()
        self._ring = KeyRing(section.signing_keys, section.signing_key_id)
        self._limits = Limits(section.result_bytes_max, section.error_bytes_max)
        self._stopping = threading.Event()
        self._broker_circuit = Circuit()

    def run(self) -> None:
        """Go round until `stop`."""
        logger.info("ingest started")
        while not self._stopping.is_set():
            self.beat.beat()
            try:
                self.step()
            except BrokerAway as error:
                self.connected = False
                if self._broker_circuit.failed(time.monotonic()):
                    logger.warning("broker is away, trying again", extra={"error": str(error)})
                self._stopping.wait(self._broker_circuit.wait_seconds(time.monotonic()))
            else:
                self.connected = True
                if self._broker_circuit.succeeded():
                    logger.info("broker answers again")
        self._source.close()
        connection.close()
        logger.info("ingest stopped")

    def stop(self) -> None:
        """Finish the batch under way, then end. Safe from signal handlers."""
        self._stopping.set()

    def step(self, idle_seconds: float = IDLE_SECONDS) -> int:
        """Gather a batch, apply it, acknowledge it; how many reports it held. Raises BrokerAway."""
        deliveries, batch = self._gather(idle_seconds)
        if not deliveries:
            return 0
        began = time.monotonic()
        if not self._apply(batch):
            return 0  # stopped while the database was away: nothing is acknowledged
        reach("ingest.after_commit")
        self._source.acknowledge(deliveries)
        metrics.INGEST_BATCH.observe(len(batch))
        metrics.INGEST_SECONDS.observe(time.monotonic() - began)
        return len(batch)

    def _gather(self, idle_seconds: float) -> tuple[list[Delivery], Sorted]:
        """What arrives until the batch is full or the linger has passed since its first report."""
        batch = Sorted()
        deliveries: list[Delivery] = []
        wait, until = idle_seconds, float("inf")
        while not self._stopping.is_set():
            arrived = self._source.receive(wait)
            now = self._last_known_now() if arrived else None
            for delivery in arrived:
                self._sort(batch, delivery, now)
            deliveries.extend(arrived)
            if not deliveries or len(batch) >= self._settings.ingest_batch_max:
                break
            until = min(until, time.monotonic() + self._settings.ingest_linger_seconds)
            wait = until - time.monotonic()
            if wait <= 0 or len(deliveries) >= self._settings.ingest_prefetch:
                break
        return deliveries, batch

    def _sort(self, batch: Sorted, delivery: Delivery, now: datetime | None) -> None:
        assert now is not None
        if delivery.queue.startswith("worker.heartbeat"):
            batch.add_heartbeat(delivery, self._ring)
        else:
            batch.add_reports(delivery, self._ring, self._limits, now)

    def _apply(self, batch: Sorted) -> bool:
        """Apply every part, each as often as it takes. False when it was stopped before that."""
        parts: list[Callable[[], None]] = []
        if batch.finishes:
            parts.append(partial(self._part, batch.finishes, applying.apply_finishes))
        if batch.hand_backs:
            parts.append(partial(self._part, batch.hand_backs, applying.apply_hand_backs))
        if batch.chunks:
            parts.append(partial(self._part, batch.chunks, lambda items, _now: applying.apply_chunks(items)))
        if batch.progress:
            parts.append(partial(self._part, batch.progress, lambda items, _now: applying.apply_progress(items)))
        if batch.heartbeats:
            parts.append(partial(self._heartbeats, batch.heartbeats))
        parts.extend(partial(self._keep, poison) for poison in batch.poison)
        return all(self._persist(part) for part in parts)

    def _part(self, items: Sequence[Any], apply: Callable[[Sequence[Any], datetime], None]) -> None:
        now = self._clock.now()
        halved(items, lambda some: apply(some, now), self._set_aside)

    def _heartbeats(self, newest: dict[str, dict[str, Any]]) -> None:
        now = self._clock.now()
        halved(list(newest.items()), lambda some: apply_heartbeats(dict(some), now), self._set_aside)

    def _keep(self, poison: Poison) -> None:
        keep(poison, self._clock.now())

    def _set_aside(self, item: Any, error: Exception) -> None:
        worker_id = getattr(item, "worker_id", "")
        keep(Poison(worker_id, _as_text(item), f"{type(error).__name__}: {error}", "apply"), self._clock.now())

    def _persist(self, part: Callable[[], None]) -> bool:
        """Do it until it is done, waiting for the database. False when stopped before that."""
        circuit = Circuit()
        while True:
            try:
                part()
            except DatabaseFailure as error:
                leave_broken_connection()
                metrics.DATABASE_UP.set(0)
                if not passes_by_itself(error):
                    # Only setting aside can end here, and what is set aside is cut to fit: a defect, not a bad report.
                    logger.exception("report could not be set aside")
                    return True
                if circuit.failed(time.monotonic()):
                    logger.warning("database failed, trying again", extra={"error": f"{type(error).__name__}: {error}"})
                if not self._wait_alive(circuit):
                    return False
            else:
                if circuit.succeeded():
                    logger.info("database answers again")
                metrics.DATABASE_UP.set(1)
                return True

    def _wait_alive(self, circuit: Circuit) -> bool:
        """Wait for the next try with the broker connection kept alive. False when stopped."""
        while circuit.open(time.monotonic()):
            self.beat.beat()
            self._source.keep_alive()
            if self._stopping.wait(min(0.5, circuit.wait_seconds(time.monotonic()))):
                return False
        return not self._stopping.is_set()

    def _last_known_now(self) -> datetime:
        """The clock goes on by itself while the database is away; only its very first reading needs it."""
        circuit = Circuit()
        while True:
            try:
                return self._clock.now()
            except DatabaseFailure:
                connection.close()
                circuit.failed(time.monotonic())
                self.beat.beat()
                time.sleep(circuit.wait_seconds(time.monotonic()))


def _as_text(item: Any) -> str:
    try:
        return json.dumps(item._asdict() if hasattr(item, "_asdict") else item, default=repr)
    except (TypeError, ValueError):
        return repr(item)
