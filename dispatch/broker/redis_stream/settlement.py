"""What was delivered and not acknowledged, and the acknowledgements on their way.

Acknowledgements are sent for many at once: by whoever acknowledges when `ack_batch` of them have gathered, else by a
thread after `ACK_SECONDS`. The thread also renews the consumer's life: it must go on while a pool of threads or a
solo worker is busy with a task, and while Kombu's loop stands in a blocking read. So it renews queues that expire when
nobody uses them (`x-expires`) as well, while they are consumed from.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final

import redis
from kombu.transport import virtual

from dispatch.broker.redis_stream import wire
from dispatch.broker.redis_stream.liveness import Liveness

logger = logging.getLogger(__name__)

ACK_SECONDS: Final = 0.05
_ERRORS: Final = (OSError, redis.RedisError)


class Acknowledgements:
    """Entries that are done with, until the server knows it. For any thread."""

    def __init__(self, streams: wire.Streams, client: Callable[[], redis.Redis], batch: int) -> None:
        """Client gives one whose connections are not used for blocking reads."""
        self._streams, self._client, self._batch = streams, client, batch
        self._gathered: deque[wire.Entry] = deque()
        self._sending = threading.Lock()
        self._heir: Callable[[list[wire.Entry]], None] | None = None
        self.some = threading.Event()

    def add(self, entry: wire.Entry) -> None:
        """This one is done with. After `hand_over` it is the heir's to say so."""
        self._gathered.append(entry)
        if self._heir is not None:  # asked afterwards: `hand_over` may have emptied what has gathered just before
            self._bequeath(self._heir)
        elif len(self._gathered) >= self._batch:
            self.send()
        elif not self.some.is_set():
            self.some.set()

    def send(self) -> None:
        """Tell the server of all that have gathered. What it may not have heard is told again by the next call."""
        with self._sending:
            self.some.clear()
            batch = self._take()
            if not batch:
                return
            try:
                self._streams.acknowledge(self._client(), batch)
            except _ERRORS as error:
                self._gathered.extendleft(reversed(batch))
                self.some.set()
                logger.debug("acknowledgements not sent", extra={"error": type(error).__name__})
                if self._heir is not None:
                    self._bequeath(self._heir)

    def unsent(self) -> list[wire.Entry]:
        """What the server may not have heard of yet. Waits for a sending that is under way."""
        with self._sending:
            return list(self._gathered)

    def hand_over(self, heir: Callable[[list[wire.Entry]], None]) -> None:
        """The channel is closed: what could not be sent, and what a body acknowledges yet, goes to the heir."""
        with self._sending:
            self._heir = heir
        self._bequeath(heir)

    def _bequeath(self, heir: Callable[[list[wire.Entry]], None]) -> None:
        if left := self._take():
            heir(left)

    def _take(self) -> list[wire.Entry]:
        """All that have gathered. Each goes to one caller, whoever else takes at the same time."""
        taken: list[wire.Entry] = []
        with suppress(IndexError):
            while True:
                taken.append(self._gathered.popleft())
        return taken


class Keeper:
    """The thread of one consumer: renews its life and its queues', and sends acknowledgements that fill no batch."""

    def __init__(
        self,
        liveness: Liveness,
        client: Callable[[], redis.Redis],
        acks: Acknowledgements,
        expiring: Callable[[], Mapping[str, int]],
    ) -> None:
        """Nothing is done before `start`. Expiring gives the queues to be renewed, with their milliseconds."""
        self._liveness, self._client, self._acks, self._expiring = liveness, client, acks, expiring
        self._stopping = False
        self._thread = threading.Thread(target=self._loop, name="redis-stream-keeper", daemon=True)

    @property
    def started(self) -> bool:
        """Whether it was started."""
        return self._thread.ident is not None

    def start(self) -> None:
        """Begin, with the consumer known to be alive. Raises redis.RedisError."""
        self._liveness.renew(self._client(), self._expiring())
        self._thread.start()

    def look_again(self) -> None:
        """There may be a queue that must be renewed sooner than what it waits for."""
        self._acks.some.set()

    def stop(self) -> None:
        """End soon. Not waited for: a server that does not answer must not hold up a closing connection."""
        self._stopping = True
        self._acks.some.set()

    def _loop(self) -> None:
        renewed_at = time.monotonic()
        while not self._stopping:
            try:
                renew_at = renewed_at + self._liveness.renew_seconds(self._expiring())
                if self._acks.some.wait(timeout=max(0.0, renew_at - time.monotonic())) and not self._stopping:
                    time.sleep(ACK_SECONDS)
                    self._acks.send()
                if time.monotonic() >= renew_at and not self._stopping:
                    renewed_at = time.monotonic() - self._late()
            except Exception:
                # A channel that is closed this very moment has no connection to make a client of.
                if not self._stopping:
                    logger.exception("a consumer's thread failed, it goes on")
                    time.sleep(1.0)

    def _late(self) -> float:
        """Renew; by how many seconds the next time comes sooner, because the server did not answer."""
        expiring = self._expiring()
        try:
            self._liveness.renew(self._client(), expiring)
        except _ERRORS as error:
            logger.debug("consumer's life not renewed", extra={"error": type(error).__name__})
            return max(0.0, self._liveness.renew_seconds(expiring) - 1.0)
        return 0.0


class QoS(virtual.QoS):
    """Kombu's view: the prefetch, and what goes back when a channel closes."""

    def ack(self, delivery_tag: str) -> None:
        """Done with this one."""
        # In this order: at each moment it is delivered, or an acknowledgement on its way, or gone from the server.
        self.channel.acks.add(wire.entry_of(delivery_tag))
        super().ack(delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Drop it, or put it at the end of its queue as a new entry. Raises redis.RedisError."""
        if requeue:
            message = self._delivered.get(delivery_tag)
            if message is None:  # put back already, with all that its channel held
                return
            self._put_back([(wire.entry_of(delivery_tag), message)])
            self._quick_ack(delivery_tag)
        else:
            self.ack(delivery_tag)

    def restore_unacked(self) -> list[tuple[BaseException, Any]]:
        """Put everything back that was delivered and not acknowledged; what fails with what it failed by."""
        self._flush()
        held = [(wire.entry_of(tag), message) for tag, message in self._delivered.items()]
        self._delivered.clear()
        try:
            if held:
                self._put_back(held)
        except _ERRORS as error:
            # It is held by a consumer that ends: whoever finds it dead takes it over.
            logger.debug("unacknowledged messages not put back", extra={"error": type(error).__name__})
        return []

    def _put_back(self, held: list[tuple[wire.Entry, Any]]) -> None:
        entries = []
        for entry, message in held:
            payload = message.serializable()
            payload["headers"]["redelivered"] = True
            payload["properties"].get("delivery_info", {})["redelivered"] = True
            entries.append((entry, payload))
        self.channel.streams.put_back(self.channel.plain_client(), entries)
