"""A broker inside this process: for tests of the dispatcher and the ingest, and for users' own tests."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from dispatch.broker.port import BrokerAway, Delivery
from tasks_app.messages.execution import WireMessage


class MemoryBroker:
    """`Broker` and `ReportSource` in one, with switches for what real ones do on bad days.

    away: every call fails. unroutable: names of queues whose messages come back. deaf: messages are taken and never
    confirmed.
    """

    def __init__(self) -> None:
        """Empty and in good health."""
        self.queues: dict[str, deque[WireMessage]] = {}
        self.away = False
        self.deaf = False
        self.unroutable: set[str] = set()
        self.waiting: deque[Delivery] = deque()
        self.unacknowledged: list[Delivery] = []
        self._available = True
        self._receipts = 0

    @property
    def available(self) -> bool:
        """False since a call failed, until one succeeds."""
        return self._available

    def publish(self, messages: Sequence[WireMessage]) -> list[WireMessage]:
        """Put the messages on their queues; see the port."""
        if self.away:
            self._available = False
            return list(messages)
        self._available = True
        failed = []
        for message in messages:
            if message.queue in self.unroutable:
                failed.append(message)
                continue
            self.queues.setdefault(message.queue, deque()).append(message)
        if self.deaf:
            self._available = False
            return list(messages)
        return failed

    def declare(self, queues: Iterable[str]) -> None:
        """Make the queues."""
        self._call()
        for queue in queues:
            self.queues.setdefault(queue, deque())

    def depths(self, queues: Collection[str]) -> dict[str, int]:
        """Messages that wait in each queue."""
        self._call()
        return {queue: len(self.queues[queue]) for queue in queues if queue in self.queues}

    def reports(self, *, prefetch: int) -> MemoryBroker:  # noqa: ARG002  (of the port)
        """This object itself is the source."""
        return self

    def close(self) -> None:
        """Nothing to give up."""

    def take(self) -> list[WireMessage]:
        """As a worker that serves every queue: all messages, queue by queue, and they are gone."""
        taken = [message for queue in self.queues.values() for message in queue]
        for queue in self.queues.values():
            queue.clear()
        return taken

    # The source of reports

    def put_report(self, queue: str, headers: dict[str, Any], body: bytes) -> None:
        """What a worker would send."""
        self._receipts += 1
        self.waiting.append(Delivery(queue, headers, body, self._receipts))

    def receive(self, timeout: float) -> list[Delivery]:  # noqa: ARG002  (nothing can arrive while waiting)
        """Everything that waits."""
        self._call()
        arrived = list(self.waiting)
        self.waiting.clear()
        self.unacknowledged.extend(arrived)
        return arrived

    def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """Forget these."""
        self._call()
        done = {delivery.receipt for delivery in deliveries}
        self.unacknowledged = [delivery for delivery in self.unacknowledged if delivery.receipt not in done]

    def keep_alive(self) -> None:
        """A sign of life."""
        self._call()

    def lose_connection(self) -> None:
        """As when a consumer's connection breaks: what was not acknowledged comes again, first."""
        self.waiting.extendleft(reversed(self.unacknowledged))
        self.unacknowledged = []

    def _call(self) -> None:
        if self.away:
            self._available = False
            raise BrokerAway("switched off")
        self._available = True
