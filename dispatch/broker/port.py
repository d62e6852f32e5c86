"""What dispatcher and ingest ask of a broker."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from tasks_app.messages.execution import WireMessage


class BrokerAway(ConnectionError):
    """The broker does not answer, or ended the connection."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message from a worker: where it came from, its headers and body, and what acknowledges it."""

    queue: str
    headers: dict[str, Any]
    body: bytes
    receipt: Any = field(compare=False)


class ReportSource(Protocol):
    """Deliveries of reports and heartbeats, each kept by the broker until it is acknowledged."""

    def receive(self, timeout: float) -> list[Delivery]:
        """What arrived, at once if anything is there, else after at most `timeout` seconds. Raises BrokerAway.

        After BrokerAway every delivery that was not acknowledged comes again; receipts from before are void.
        """

    def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """These may be forgotten. Raises BrokerAway."""

    def keep_alive(self) -> None:
        """Tell the broker that this process lives; to be called while nothing is received. Raises BrokerAway."""

    def close(self) -> None:
        """Give the connection up; what was not acknowledged comes again elsewhere."""


class Broker(Protocol):
    """Somewhere to put messages that start runs, and to take reports from."""

    @property
    def available(self) -> bool:
        """False since a call failed by the connection, until one succeeds; costs nothing to ask."""

    def publish(self, messages: Sequence[WireMessage]) -> list[WireMessage]:
        """Hand the batch over; returns what is not known to be on a queue (unroutable, unconfirmed). Never raises."""

    def declare(self, queues: Iterable[str]) -> None:
        """Make these queues, which hold messages for runs, where they do not exist. Raises BrokerAway."""

    def depths(self, queues: Collection[str]) -> dict[str, int]:
        """Messages that wait in each of these queues; one that does not exist is absent. Raises BrokerAway."""

    def reports(self, *, prefetch: int) -> ReportSource:
        """A source of reports and heartbeats with a connection of its own, made at the first receive."""

    def close(self) -> None:
        """Give connections up; a later call makes new ones."""
