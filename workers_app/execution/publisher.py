"""Publishes report batches and heartbeats on a connection of its own, in a thread of its own.

Not on Celery's connection: while the main process reconnects, its loop stands still, and reports must not wait for it.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import deque
from typing import Any, Final

from celery import Celery
from kombu import Connection, Exchange, Producer, Queue

from tasks_app.crashpoints import reach
from tasks_app.messages import reports
from tasks_app.messages.compression import packed
from tasks_app.messages.signing import KeyRing
from workers_app.execution.identity import SharedIdentity
from workers_app.execution.outbox import Outbox
from workers_app.metrics import REPORTS_FAILED, REPORTS_PUBLISHED
from workers_app.queue_types import arguments_of

logger = logging.getLogger(__name__)

EXCHANGE: Final = Exchange("signalbox", type="topic", durable=True)
HEARTBEAT_PREFIX: Final = "worker.heartbeat."
HEARTBEAT_QUEUE: Final = Queue(
    "worker.heartbeat", EXCHANGE, routing_key=HEARTBEAT_PREFIX + "#", durable=True, max_length=10_000
)
BATCH_BYTES_MAX: Final = 512 * 1024


def report_queue(queue_type: str) -> Queue:
    """The durable queue of reports, as worker and ingest declare it."""
    return Queue(
        reports.QUEUE, EXCHANGE, routing_key=reports.ROUTING_PREFIX + "#", durable=True,
        queue_arguments=arguments_of(queue_type),
    )  # fmt: skip


class Publisher:
    """Takes from the outbox every `flush_seconds` and publishes; what is not confirmed goes back."""

    def __init__(
        self, app: Celery, outbox: Outbox, identity: SharedIdentity, ring: KeyRing, *, flush_seconds: float,
        batch_max: int, compress_above_bytes: int = 0, queue_type: str = "classic",
    ) -> None:  # fmt: skip
        """Nothing is opened before `start`."""
        self._app, self._outbox, self._identity, self._ring = app, outbox, identity, ring
        self._flush_seconds, self._batch_max = flush_seconds, batch_max
        self._compress_above_bytes, self._queue_type = compress_above_bytes, queue_type
        self._heartbeats: deque[dict[str, Any]] = deque(maxlen=1)
        self._connection: Connection | None = None
        self._producer: Producer | None = None
        self._stopping = threading.Event()
        self._doubted = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="signalbox-publish", daemon=True)

    def start(self) -> None:
        """Begin to publish."""
        self._thread.start()

    def stop(self, deadline_seconds: float) -> None:
        """Publish what is left, for at most so long."""
        self._stopping.set()
        self._outbox.filled.set()
        self._thread.join(timeout=deadline_seconds)

    def heartbeat(self, body: dict[str, Any]) -> None:
        """Send this heartbeat with the next flush; an older one that still waits is dropped."""
        self._heartbeats.append(body)
        self._outbox.filled.set()

    def doubt(self) -> None:
        """What the broker took over did not arrive: connect and declare again before the next batch.

        On Redis a binding is data like any other, and a broker that was emptied takes messages for nobody.
        """
        self._doubted.set()

    def _loop(self) -> None:
        pause = self._flush_seconds
        give_up, flushed_at = float("inf"), float("-inf")
        while True:
            self._outbox.filled.wait(timeout=1.0)
            if self._stopping.is_set():
                give_up = min(give_up, time.monotonic() + 3.0)
            else:
                # After a rest at once; under load a batch gathers for as long as this.
                time.sleep(max(0.0, flushed_at + pause - time.monotonic()))
            flushed_at = time.monotonic()
            try:
                self.flush()
                pause = self._flush_seconds
            except Exception as error:  # noqa: BLE001  (a thread's edge: kombu and transports raise anything)
                REPORTS_FAILED.inc()
                logger.warning("reports not published", extra={"error": f"{type(error).__name__}: {error}"})
                self._disconnect()
                pause = min(2.0, pause * 2)
                self._stopping.wait(pause) if not self._stopping.is_set() else time.sleep(0.1)
            if self._stopping.is_set() and (self._outbox.empty() or time.monotonic() > give_up):
                self._disconnect()
                return

    def flush(self) -> None:
        """Publish what waits now. Raises what the broker's client raises; what did not go out waits again."""
        if self._doubted.is_set():
            self._doubted.clear()
            self._disconnect()
        while self._heartbeats:
            body = json.dumps(self._heartbeats.popleft(), separators=(",", ":")).encode()
            headers = {"key_id": self._ring.active, "signature": self._ring.sign(body)}
            self.publish(HEARTBEAT_PREFIX + self._identity.worker_id, headers, body, 1)
        while True:
            nonces, payloads = self._outbox.batch(self._batch_max, BATCH_BYTES_MAX)
            if not payloads:
                return
            reach("report.before_flush")
            try:
                headers, body = reports.pack_encoded(
                    self._identity.worker_id, str(self._identity.incarnation_id), payloads, self._ring
                )
                body, how = packed(body, self._compress_above_bytes)
                self.publish(reports.routing_key(self._identity.worker_id), headers | how, body, 2)
            except BaseException:
                self._outbox.unpublished(nonces, payloads)
                raise
            self._outbox.published(nonces)
            REPORTS_PUBLISHED.inc(len(payloads))

    def publish(self, key: str, headers: dict[str, Any], body: bytes, delivery_mode: int) -> None:
        """One message to the exchange; returns when the broker has it."""
        if self._producer is None:
            # With confirms publish returns when the broker has it.
            self._connection = self._app.connection_for_write(
                reports.broker_url(str(self._app.conf.broker_write_url)),
                heartbeat=0,
                transport_options={"confirm_publish": True},
            )
            self._connection.ensure_connection(max_retries=1, timeout=5)
            self._producer = Producer(self._connection, auto_declare=False)
            for known in (report_queue(self._queue_type), HEARTBEAT_QUEUE):
                known(self._connection.default_channel).declare()
        self._producer.publish(
            body,
            exchange=EXCHANGE,
            routing_key=key,
            headers=headers,
            content_type="application/json",
            content_encoding="utf-8",
            serializer=None,
            delivery_mode=delivery_mode,
            timeout=5,
            confirm_timeout=10,
        )
        if delivery_mode == 2:
            reach("report.after_flush")

    def _disconnect(self) -> None:
        connection, self._connection, self._producer = self._connection, None, None
        if connection is not None:
            try:
                connection.release()
            except Exception as error:  # noqa: BLE001  (broken already)
                logger.debug("closing a broken connection failed", extra={"error": str(error)})
