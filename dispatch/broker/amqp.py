"""RabbitMQ: one connection and one channel in confirm mode; a batch is written whole, its confirms awaited together.

A confirm for each message costs a round trip each and more than halves the throughput. Messages are published
`mandatory`, so that one for a queue that does not exist comes back instead of vanishing: the broker sends the return
before that message's confirm.

py-amqp writes each message to the socket by itself, and each would wake the broker, which costs it and this process a
third of what a short message costs them at all (measured): on Linux the kernel keeps a batch together until it is full
packets or complete.

kombu opens the connection (it knows the URLs); publishing goes to py-amqp directly. Its `basic_publish` is passed by,
because it reads the socket before each message; what it looks for there, `connection.blocked`, ends here as confirms
that do not come.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

import amqp
from amqp import spec
from kombu import Connection

from dispatch.broker.port import BrokerAway, ReportSource
from dispatch.broker.reports import KombuReports
from tasks_app.crashpoints import reach
from tasks_app.messages.compression import packed
from tasks_app.messages.execution import WireMessage
from workers_app.queue_types import arguments_of, cure, differs

logger = logging.getLogger(__name__)

_PUBLISH_ARGUMENTS = "Bssbb"
_ERRORS: tuple[type[BaseException], ...] = (OSError, amqp.AMQPError)


class _Batch:
    """What the broker said so far about the messages of one batch, by delivery tag."""

    def __init__(self, first_tag: int) -> None:
        self._lowest = first_tag
        self.waiting: dict[int, WireMessage] = {}
        self.failed: list[WireMessage] = []

    def acknowledged(self, tag: int, multiple: bool) -> None:
        for settled in self._tags(tag, multiple):
            self.waiting.pop(settled, None)

    def refused(self, tag: int, multiple: bool) -> None:
        for settled in self._tags(tag, multiple):
            message = self.waiting.pop(settled, None)
            if message is not None:
                self.failed.append(message)

    def returned(self, message_id: str) -> None:
        """An unroutable message; it is confirmed all the same right after."""
        for tag, message in self.waiting.items():
            if message.properties.get("correlation_id") == message_id:
                del self.waiting[tag]
                self.failed.append(message)
                return

    def _tags(self, tag: int, multiple: bool) -> Iterable[int]:
        if not multiple:
            return (tag,)
        settled = range(self._lowest, tag + 1)
        self._lowest = max(self._lowest, tag + 1)
        return settled


class AmqpBroker:
    """`Broker` on RabbitMQ. Not for several threads at once."""

    def __init__(
        self, url: str, *, confirm_seconds: float = 10.0, queue_type: str = "classic", connect_seconds: float = 3.0,
        compress_above_bytes: int = 0,
    ) -> None:  # fmt: skip
        """confirm_seconds bounds each write and the wait for a batch's confirms. Connects at the first call."""
        self._compress_above_bytes = compress_above_bytes
        self._url = url
        self._confirm_seconds = confirm_seconds
        self._connect_seconds = connect_seconds
        self._queue_arguments = arguments_of(queue_type)
        self._queue_type = queue_type
        self._kombu: Connection | None = None
        self._channel: Any = None
        self._next_tag = 1
        self._batch: _Batch | None = None
        self._declared: set[str] = set()
        self._available = True

    @property
    def available(self) -> bool:
        """False since a call failed by the connection, until one succeeds."""
        return self._available

    def publish(self, messages: Sequence[WireMessage]) -> list[WireMessage]:
        """Hand the batch over; see the port."""
        batch: _Batch | None = None
        unsent = list(messages)
        try:
            self._connected()
            missing = {message.queue for message in messages} - self._declared
            if missing:
                self.declare(missing)
            batch = self._batch = _Batch(self._next_tag)
            with _together(self._channel.connection.transport.sock):
                for index, message in enumerate(messages):
                    batch.waiting[self._next_tag] = message
                    self._next_tag += 1
                    del unsent[:1]
                    self._send(message)
                    if index == 0:
                        reach("publish.after_first")
            reach("publish.before_confirm")
            self._await_confirms(batch)
        except _ERRORS as error:  # BrokerAway is an OSError, too
            self._lost(error)
        finally:
            self._batch = None
        if batch is None:
            return list(messages)
        if batch.failed:
            # The queue may have been deleted by somebody: declare it again before the next message for it.
            self._declared.difference_update(message.queue for message in batch.failed)
        return [*batch.failed, *batch.waiting.values(), *unsent]

    def declare(self, queues: Iterable[str]) -> None:
        """Make the queues durable, as Celery's workers declare them."""
        with self._calling():
            self._connected()
            for queue in sorted(set(queues)):
                try:
                    self._channel.queue_declare(queue, durable=True, auto_delete=False, arguments=self._queue_arguments)
                except amqp.PreconditionFailed as error:
                    # It exists, made differently by somebody: messages can go there. The refusal closed the channel.
                    if differs(error):
                        logger.error(cure(queue, self._queue_type))  # noqa: TRY400  (what to do, not where it was met)
                    else:
                        logger.warning("queue exists with other settings", extra={"queue": queue, "error": str(error)})
                    self._open_channel()
                self._declared.add(queue)

    def depths(self, queues: Collection[str]) -> dict[str, int]:
        """Ready messages in each queue."""
        found = {}
        with self._calling():
            # A passive declaration of what does not exist closes its channel: never the one that publishes.
            connection = self._connected().connection
            for queue in queues:
                with contextlib.suppress(amqp.NotFound), connection.channel() as channel:
                    found[queue] = int(channel.queue_declare(queue, passive=True).message_count)
        return found

    def reports(self, *, prefetch: int) -> ReportSource:
        """Reports and heartbeats, on a connection of their own."""
        return KombuReports(
            self._url, prefetch=prefetch, connect_seconds=self._connect_seconds, queue_type=self._queue_type
        )

    def close(self) -> None:
        """Close the connection without waiting for a broker that does not answer."""
        kombu, self._kombu, self._channel = self._kombu, None, None
        self._declared.clear()
        if kombu is None:
            return
        with contextlib.suppress(*_ERRORS, AttributeError):
            kombu.collect(socket_timeout=0.5)

    def _connected(self) -> Any:
        if self._channel is not None and self._channel.is_open and self._channel.connection.connected:
            return self._channel
        self.close()
        self._kombu = Connection(
            self._url,
            connect_timeout=self._connect_seconds,
            heartbeat=0,
            transport_options={"read_timeout": self._confirm_seconds, "write_timeout": self._confirm_seconds},
        )
        return self._open_channel()

    def _open_channel(self) -> Any:
        assert self._kombu is not None
        self._channel = self._kombu.connection.channel()
        self._channel.confirm_select()
        self._channel.events["basic_ack"].add(self._on_ack)
        self._channel.events["basic_nack"].add(self._on_nack)
        self._channel.events["basic_return"].add(self._on_return)
        self._next_tag = 1
        return self._channel

    def _send(self, message: WireMessage) -> None:
        body, how = packed(message.body.encode("utf-8", "surrogatepass"), self._compress_above_bytes)
        self._channel.send_method(
            spec.Basic.Publish,
            _PUBLISH_ARGUMENTS,
            (0, "", message.queue, True, False),
            amqp.Message(
                body,
                channel=None,
                content_type="application/json",
                content_encoding="utf-8",
                application_headers=message.headers | how,
                **message.properties,
            ),
        )

    def _await_confirms(self, batch: _Batch) -> None:
        deadline = time.monotonic() + self._confirm_seconds
        connection = self._channel.connection
        while batch.waiting:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"{len(batch.waiting)} messages were not confirmed in {self._confirm_seconds} s")
            connection.drain_events(timeout=left)
            if not self._channel.is_open:
                raise BrokerAway("the broker closed the channel")
        self._available = True

    def _on_ack(self, tag: int, multiple: bool) -> None:
        if self._batch is not None:
            self._batch.acknowledged(tag, multiple)

    def _on_nack(self, tag: int, multiple: bool) -> None:
        if self._batch is not None:
            self._batch.refused(tag, multiple)

    def _on_return(self, _error: Exception, _exchange: str, routing_key: str, message: Any) -> None:
        logger.warning("message came back unroutable", extra={"queue": routing_key})
        if self._batch is not None:
            self._batch.returned(message.properties.get("correlation_id", ""))

    def _lost(self, error: BaseException) -> None:
        if self._available:
            logger.warning("broker connection failed", extra={"error": f"{type(error).__name__}: {error}"})
        self._available = False
        self.close()

    @contextlib.contextmanager
    def _calling(self) -> Iterator[None]:
        try:
            yield
        except _ERRORS as error:
            self._lost(error)
            raise BrokerAway(str(error)) from error
        self._available = True


@contextlib.contextmanager
def _together(connected: socket.socket) -> Iterator[None]:
    """What is written meanwhile leaves in as few packets as it fills, the last one at the end, also of a process."""
    cork = getattr(socket, "TCP_CORK", None)
    if cork is None:
        yield
        return
    connected.setsockopt(socket.IPPROTO_TCP, cork, 1)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            connected.setsockopt(socket.IPPROTO_TCP, cork, 0)
