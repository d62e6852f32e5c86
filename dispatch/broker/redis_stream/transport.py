"""The channel and the transport that Kombu sees: the stock Redis transport with streams in the place of lists.

What is taken from the stock transport: connections and their options, exchanges and bindings, fanout by PUBSUB, and
the poller with its one outstanding blocking read a channel (`_brpop_start` sends it, `_brpop_read` reads the answer;
the names are the poller's).
"""

from __future__ import annotations

import logging
import ssl
import threading
from collections import deque
from collections.abc import Callable
from queue import Empty
from time import monotonic
from typing import Any, Final

import redis
from kombu.transport import redis as stock

from dispatch.broker.redis_stream import wire
from dispatch.broker.redis_stream.liveness import Liveness, new_consumer
from dispatch.broker.redis_stream.settlement import Acknowledgements, Keeper, QoS

logger = logging.getLogger(__name__)

_ERRORS: Final = (OSError, redis.RedisError)
TAKE_OVER_MAX: Final = 100

#: Acknowledgements that a closing channel could not send any more, by server and database. The next channel to the
#: same place sends them: a task that was acknowledged before it ran must not come again because a connection was cut.
_left_over: dict[tuple[Any, ...], deque[wire.Entry]] = {}
_left_over_lock = threading.Lock()


class Poller(stock.MultiChannelPoller):
    """Without an event loop one message for each call, as on other transports; each channel looks after the dead.

    Callers count calls (Celery's `inspect` does). What a read brought beyond the first waits for the next ones.
    """

    def get(self, callback: Any, timeout: float | None = None) -> None:
        """One message, at once where one is here. Raises Empty."""
        if not any(channel.deliver_one() for channel in list(self._channels)):
            super().get(callback, timeout)

    def on_poll_init(self, poller: Any) -> None:
        """An event loop begins."""
        self.poller = poller
        self.maybe_restore_messages()

    def maybe_restore_messages(self) -> None:
        """Take over what the dead held: the stock transport asks one channel for all, here each has queues of its own.

        A server that does not answer is left to the reading to find; it is not asked once more for each channel.
        """
        for channel in list(self._channels):
            try:
                channel.take_over()
            except channel.connection_errors as error:
                logger.debug("dead consumers not looked after", extra={"error": type(error).__name__})
                return

    @property
    def one_by_one(self) -> bool:
        """Whether somebody called for one message; False in an event loop."""
        return bool(self._in_protected_read)


class Channel(stock.Channel):
    """A channel is one consumer of each of its queues' groups."""

    QoS = QoS

    consumer_lease = 30.0
    read_batch = 100
    ack_batch = 32
    #: A server that does not answer must not hold up the thread that renews the consumer's life.
    socket_timeout = 10.0
    socket_connect_timeout = 5.0
    from_transport_options = (*stock.Channel.from_transport_options, "consumer_lease", "read_batch", "ack_batch")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """As Kombu calls it. Raises redis.RedisError when the server does not answer."""
        self._plain: redis.Redis | None = None
        self._lengths_max: dict[str, int] = {}
        #: Queues in whose groups this consumer is known.
        self._joined: set[str] = set()
        #: Read and not delivered, because the prefetch was full: queue, id and fields.
        self._surplus: deque[tuple[str, str, Any]] = deque()
        #: The answer to a read was lost; it may have named entries that are this consumer's now.
        self._answer_lost = False
        self._looked_at = float("-inf")
        super().__init__(*args, **kwargs)
        self.streams = wire.Streams(self.global_keyprefix)
        self.liveness = Liveness(self.streams, new_consumer(), self.consumer_lease)
        self.acks = Acknowledgements(self.streams, self.plain_client, self.ack_batch)
        self._keeper = Keeper(self.liveness, self.plain_client, self.acks, self._expiring)
        info = self.connection.client
        self._place = (info.hostname, info.port, info.virtual_host, self.global_keyprefix)
        self._send_left_over()

    def plain_client(self) -> redis.Redis:
        """A client of the pool, without Kombu's prefixes; for any thread.

        Kept, because making one costs more than a call.
        """
        pool, client = self.pool, self._plain
        if client is None or client.connection_pool is not pool:
            client = self._plain = redis.Redis(connection_pool=pool)
        return client

    # -- queues ----------------------------------------------------------------------------------------------------

    def _new_queue(self, queue: str, auto_delete: bool = False, **kwargs: Any) -> None:
        # Nothing is made yet: the queue may turn out to be one of a fanout exchange, which is no stream.
        super()._new_queue(queue, auto_delete=auto_delete, **kwargs)
        length_max = (kwargs.get("arguments") or {}).get("x-max-length")
        if length_max:
            self._lengths_max[queue] = int(length_max)

    def _put(self, queue: str, message: dict[str, Any], **kwargs: Any) -> None:
        entry, length_max, expires = wire.dumps(message), self._lengths_max.get(queue), self._expires.get(queue)
        batch = kwargs.pop("_publish_batch", None)
        if batch is not None:
            batch.add("xadd", self.streams.key(queue), {wire.FIELD: entry}, "*", length_max)
        elif expires is None:
            self.streams.add(self.plain_client(), queue, entry, length_max=length_max)
        else:
            with self.plain_client().pipeline(transaction=True) as pipe:
                self.streams.add(pipe, queue, entry, length_max=length_max)
                pipe.pexpire(self.streams.key(queue), expires)
                pipe.execute()

    def _size(self, queue: str) -> int:
        return self.streams.waiting(self.plain_client(), [queue]).get(queue, 0)

    def _has_queue(self, queue: str, **_: Any) -> bool:
        return bool(self.plain_client().exists(self.streams.key(queue)))

    def _purge(self, queue: str) -> int:
        return self.streams.purge(self.plain_client(), queue)

    def _delete(self, queue: str, exchange: str, routing_key: str, pattern: str, *args: Any, **kwargs: Any) -> None:
        super()._delete(queue, exchange, routing_key, pattern, *args, **kwargs)
        self.plain_client().delete(self.streams.key(queue))

    # -- reading ---------------------------------------------------------------------------------------------------

    def basic_consume(self, queue: str, no_ack: bool, callback: Any, consumer_tag: str, **kwargs: Any) -> Any:
        """Consume; without acknowledgements an entry is done with when it is delivered."""
        result = super().basic_consume(queue, no_ack, callback, consumer_tag, **kwargs)
        if queue in self.active_fanout_queues:
            return result
        if no_ack:
            deliver: Callable[[dict[str, Any]], Any] = self.connection._callbacks[queue]

            def deliver_and_forget(payload: dict[str, Any]) -> Any:
                self.acks.add(wire.entry_of(payload["properties"]["delivery_tag"]))
                return deliver(payload)

            self.connection._callbacks[queue] = deliver_and_forget
        self._join(queue)
        return result

    def basic_get(self, queue: str, no_ack: bool = False, **kwargs: Any) -> Any:
        """One message at once, or None."""
        message = super().basic_get(queue, no_ack=no_ack, **kwargs)
        if message is not None and no_ack:
            self.acks.add(wire.entry_of(message.delivery_tag))
        return message

    def _get(self, queue: str) -> dict[str, Any]:
        self._join(queue)
        answer = self.plain_client().xreadgroup(
            wire.GROUP, self.liveness.consumer, {self.streams.key(queue): ">"}, count=1
        )
        for _, entry_id, fields in self._entries(answer):
            payload = self._payload(queue, entry_id, fields)
            if payload is not None:
                return payload
        raise Empty

    def _join(self, queue: str) -> None:
        client = self.plain_client()
        self.streams.make_group(client, queue)
        self._joined.add(queue)
        if queue in self._expires:
            client.pexpire(self.streams.key(queue), self._expires[queue])
        if not self._keeper.started:
            self._keeper.start()
        elif queue in self._expires:
            self._keeper.look_again()

    def _expiring(self) -> dict[str, int]:
        return {queue: expires for queue in self.active_queues if (expires := self._expires.get(queue)) is not None}

    def _brpop_start(self, timeout: float | None = None) -> None:
        """Deliver what is here already; then, if more may be held, send the blocking read."""
        self._deliver_surplus()
        if self._answer_lost:
            self._find_unknown()
        room = self._room()
        queues = self._queue_cycle.consume(len(self.active_queues))
        if not queues or room <= 0:
            return
        connection = self.client.connection
        self._in_poll = connection
        self._brpop_sent_at = monotonic()
        wait = self.brpop_timeout if timeout is None else timeout
        # COUNT is for each stream; what comes beyond the prefetch waits in `_surplus`.
        connection.send_command(
            "XREADGROUP", "GROUP", wire.GROUP, self.liveness.consumer, "COUNT", max(1, room // len(queues)),
            "BLOCK", int((wait or 0) * 1000), "STREAMS", *map(self.streams.key, queues), *[">"] * len(queues),
        )  # fmt: skip

    def _brpop_read(self, **options: Any) -> bool:
        connection = self.client.connection
        try:
            answer = connection.read_response(**options)
        except redis.ResponseError as error:
            if "NOGROUP" not in str(error) and "no longer exists" not in str(error):
                raise
            self._in_poll = None
            self._begin_again()
            raise Empty from error
        except self.connection_errors:
            connection.disconnect()
            raise
        finally:
            self._in_poll = None
            self._flush_brpop_reauth()
        self._surplus.extend(self._entries(answer))
        if not self.deliver_one():
            raise Empty
        self._deliver_surplus()
        return True

    def _on_connection_disconnect(self, connection: Any) -> None:
        # Whoever drops it, an error of the read or Kombu's health check: entries of an answer that was lost are ours.
        if self._in_poll is connection:
            self._answer_lost = True
        super()._on_connection_disconnect(connection)

    def _entries(self, answer: Any) -> list[tuple[str, str, Any]]:
        """Queue, id and fields of an XREADGROUP's answer: a mapping in version 3 of the protocol, else pairs."""
        pairs = answer.items() if isinstance(answer, dict) else answer or ()
        return [
            (self.streams.queue(key), wire.text(entry_id), fields)
            for key, entries in pairs
            for entry_id, fields in entries
        ]

    def _room(self) -> int:
        most = self.qos.can_consume_max_estimate()
        return self.read_batch if most is None else min(self.read_batch, most - len(self._surplus))

    def deliver_one(self) -> bool:
        """The next message that was read and not delivered; False when there is none, or the prefetch is full."""
        while self._surplus and self.qos.can_consume():
            queue, entry_id, fields = self._surplus.popleft()
            payload = self._payload(queue, entry_id, fields)
            if payload is not None:
                self.connection._deliver(payload, queue)
                return True
        return False

    def _deliver_surplus(self) -> None:
        """As much as the prefetch allows, in an event loop; otherwise the callers take one after the other."""
        while not self.connection.cycle.one_by_one and self.deliver_one():
            pass

    def _payload(self, queue: str, entry_id: str, fields: Any) -> dict[str, Any] | None:
        """What Kombu delivers; None for an entry that is no message, or was deleted meanwhile: it is dropped."""
        try:
            payload = wire.loads(fields or ())
        except ValueError:
            logger.warning("entry of a stream is no message, dropped", extra={"queue": queue, "entry": entry_id})
            self.acks.add((queue, entry_id))
            return None
        payload["properties"]["delivery_tag"] = wire.tag_of(queue, entry_id)
        return payload

    def _begin_again(self) -> None:
        """The server was emptied, or a queue deleted: streams and groups are made again, and this consumer lives."""
        for queue in self.active_queues:
            self._join(queue)
        self.liveness.renew(self.plain_client(), {})

    # -- what nobody would deliver ---------------------------------------------------------------------------------

    def take_over(self) -> None:
        """Deliver what dead consumers of this channel's queues held; it looks every third of a lease."""
        now = monotonic()
        if now - self._looked_at < self.consumer_lease / 3:
            return
        self._looked_at = now
        self._send_left_over()
        client = self.plain_client()
        for queue in self.active_queues:
            room = min(TAKE_OVER_MAX, self._room())
            if room > 0:
                try:
                    entries = self.liveness.taken_over(client, queue, room)
                except self.connection_errors:
                    # What it names was claimed all the same.
                    self._answer_lost = True
                    raise
                self._redeliver(queue, entries)

    def _find_unknown(self) -> None:
        known = {wire.entry_of(tag) for tag in list(self.qos._delivered)}
        known.update((queue, entry_id) for queue, entry_id, _ in self._surplus)
        # Last: what is acknowledged meanwhile leaves the others only when it is among these.
        known.update(self.acks.unsent())
        client = self.plain_client()
        for queue in self.active_queues:
            ids = {entry_id for of, entry_id in known if of == queue}
            self._redeliver(queue, self.liveness.unknown(client, queue, ids))
        self._answer_lost = False

    def _redeliver(self, queue: str, entries: list[tuple[str, Any]]) -> None:
        if entries:
            logger.info("messages found that nobody worked on", extra={"queue": queue, "messages": len(entries)})
            self._surplus.extend((queue, entry_id, fields) for entry_id, fields in entries)
            self._deliver_surplus()

    # -- the end ---------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Acknowledge what is acknowledged, put back what is not, and end as a consumer."""
        if self.closed:
            return
        client = self.plain_client()  # afterwards there is no connection to make one of
        self._keeper.stop()
        try:
            self.acks.send()
            super().close()
        finally:
            self.acks.hand_over(self._keep_left_over)
            if self._keeper.started:
                self._leave(client)
            client.connection_pool.disconnect()
            self._disconnect_pools()

    def _leave(self, client: redis.Redis) -> None:
        held = [
            ((queue, entry_id), payload)
            for queue, entry_id, fields in self._surplus
            if (payload := self._payload(queue, entry_id, fields)) is not None
        ]
        self._surplus.clear()
        try:
            if held:
                self.streams.put_back(client, held)
            self.liveness.leave(client, sorted(self._joined))
        except _ERRORS as error:
            logger.debug("consumer did not take its leave", extra={"error": type(error).__name__})

    def _send_left_over(self) -> None:
        with _left_over_lock:
            left = _left_over.pop(self._place, ())
        for entry in left:
            self.acks.add(entry)
        self.acks.send()

    def _keep_left_over(self, left: list[wire.Entry]) -> None:
        with _left_over_lock:
            _left_over.setdefault(self._place, deque(maxlen=10_000)).extend(left)


class Transport(stock.Transport):
    """`redis-stream://`."""

    Channel = Channel
    driver_name = "redis-stream"

    def __init__(self, client: Any, **kwargs: Any) -> None:
        """As Kombu calls it."""
        super().__init__(client, **kwargs)
        self.cycle = Poller()


class TlsTransport(Transport):
    """`rediss-stream://`: TLS, with the server's certificate verified unless `broker_use_ssl` says otherwise."""

    def __init__(self, client: Any, **kwargs: Any) -> None:
        """As Kombu calls it."""
        if not client.ssl:
            client.ssl = {"ssl_cert_reqs": ssl.CERT_REQUIRED}
        super().__init__(client, **kwargs)
