"""Reports and heartbeats from workers, taken by kombu from either kind of broker.

Reports wait in one durable queue, `status.update`, bound to the topic exchange `signalbox`; any number of ingests share
it. Heartbeats have a short queue of their own that drops the oldest when nobody reads: telemetry must not fill a disk.
Both are declared by whoever comes first, worker or ingest, as the workers' publisher defines them.
"""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Sequence
from typing import Any, Final

from kombu import Connection, Consumer

from dispatch.broker import redis_stream  # noqa: F401  (makes redis-stream:// known)
from dispatch.broker.port import BrokerAway, Delivery
from tasks_app.messages.reports import QUEUE as REPORTS
from tasks_app.messages.reports import broker_url
from workers_app.execution.publisher import HEARTBEAT_PREFIX, HEARTBEAT_QUEUE, report_queue
from workers_app.queue_types import cure, differs

logger = logging.getLogger(__name__)

HEARTBEAT_SECONDS: Final = 15
#: What a killed ingest held goes to another after so many seconds.
REDIS_OPTIONS: Final = {"polling_interval": 1.0, "consumer_lease": 10.0}


class KombuReports:
    """`ReportSource` on any broker that kombu speaks to. Not for several threads at once."""

    def __init__(self, url: str, *, prefetch: int, connect_seconds: float = 3.0, queue_type: str = "classic") -> None:
        """prefetch: messages that may be here unacknowledged. Nothing connects before the first receive."""
        self._url = url
        self._prefetch = prefetch
        self._queue_type = queue_type
        self._connect_seconds = connect_seconds
        self._connection: Connection | None = None
        self._consumer: Consumer | None = None
        self._arrived: list[Delivery] = []
        self._errors: tuple[type[BaseException], ...] = (OSError,)

    def receive(self, timeout: float) -> list[Delivery]:
        """What arrived; see the port."""
        try:
            connection = self._connected()
            # Take what is there without waiting; wait only while there is nothing at all.
            wait = timeout
            while len(self._arrived) < self._prefetch:
                try:
                    connection.drain_events(timeout=wait)
                except TimeoutError:
                    break
                wait = 0.001
            connection.heartbeat_check()
        except self._errors as error:
            raise self._lost(error) from error
        arrived, self._arrived = self._arrived, []
        return arrived

    def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """Acknowledge; see the port."""
        try:
            for delivery in deliveries:
                delivery.receipt.ack()
        except self._errors as error:
            raise self._lost(error) from error

    def keep_alive(self) -> None:
        """Send a heartbeat when one is due."""
        if self._connection is None:
            return
        try:
            # Reading is what tells that the broker ended the connection; deliveries wait in the list meanwhile.
            with contextlib.suppress(TimeoutError, socket.timeout):
                self._connection.drain_events(timeout=0.001)
            self._connection.heartbeat_check()
        except self._errors as error:
            raise self._lost(error) from error

    def close(self) -> None:
        """Give the connection up."""
        connection, self._connection, self._consumer = self._connection, None, None
        self._arrived = []
        if connection is not None:
            with contextlib.suppress(*self._errors, AttributeError):
                connection.collect(socket_timeout=0.5)

    def _connected(self) -> Connection:
        if self._connection is not None:
            return self._connection
        connection = Connection(
            broker_url(self._url),
            connect_timeout=self._connect_seconds,
            heartbeat=HEARTBEAT_SECONDS,
            transport_options={} if self._url.startswith("amqp") else dict(REDIS_OPTIONS),
        )
        self._errors = (OSError, *connection.connection_errors, *connection.channel_errors)
        self._connection = connection
        connection.connect()
        channel = connection.default_channel
        queues = [queue.bind(channel) for queue in (report_queue(self._queue_type), HEARTBEAT_QUEUE)]
        self._consumer = Consumer(channel, queues=queues, accept=["json"], on_message=self._on_message)
        self._consumer.qos(prefetch_count=self._prefetch)
        self._consumer.consume()
        return connection

    def _on_message(self, message: Any) -> None:
        body = message.body
        data = bytes(body) if isinstance(body, bytes | bytearray | memoryview) else str(body).encode("utf-8", "replace")
        routing_key = str(message.delivery_info.get("routing_key", ""))
        queue = HEARTBEAT_QUEUE.name if routing_key.startswith(HEARTBEAT_PREFIX) else REPORTS
        self._arrived.append(Delivery(queue, dict(message.headers or {}), data, message))

    def _lost(self, error: BaseException) -> BrokerAway:
        self.close()
        said = cure(REPORTS, self._queue_type) if differs(error) else f"{type(error).__name__}: {error}"
        return BrokerAway(said)
