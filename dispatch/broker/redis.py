"""Redis and Valkey: in the wire format of kombu's stock transport, and in that of `redis_stream`.

Stock: a queue is a list with the oldest message at its right end; priority 0 is the list under the queue's plain name.
A message is JSON: a base64 body, headers, and properties with a delivery tag of its own (see
"kombu.transport.virtual": `Channel.prepare_message` and `_inplace_augment_message`). One LPUSH a queue carries the
whole batch: it is atomic, and its answer is the confirm. Streams: the same text, one XADD each, in one MULTI.
"""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import uuid
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any
from urllib.parse import unquote, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from dispatch.broker.port import BrokerAway, ReportSource
from dispatch.broker.redis_stream.wire import Streams
from dispatch.broker.reports import KombuReports
from tasks_app.crashpoints import reach
from tasks_app.messages.compression import packed
from tasks_app.messages.execution import WireMessage

logger = logging.getLogger(__name__)

_ERRORS: tuple[type[BaseException], ...] = (OSError, redis.RedisError)


class RedisBroker:
    """`Broker` on Redis. Not for several threads at once."""

    def __init__(
        self, url: str, *, timeout_seconds: float = 10.0, connect_seconds: float = 3.0, compress_above_bytes: int = 0
    ) -> None:
        """timeout_seconds bounds each command. Nothing connects before the first call."""
        self._url = url
        self._timeout_seconds = timeout_seconds
        self._connect_seconds = connect_seconds
        self._compress_above_bytes = compress_above_bytes
        self._client: redis.Redis | None = None
        self._available = True

    @property
    def available(self) -> bool:
        """False since a call failed by the connection, until one succeeds."""
        return self._available

    def publish(self, messages: Sequence[WireMessage]) -> list[WireMessage]:
        """Hand the batch over; see the port."""
        by_queue: dict[str, list[WireMessage]] = {}
        for message in messages:
            by_queue.setdefault(message.queue, []).append(message)
        unconfirmed = list(messages)
        try:
            client = self._connected()
            for index, (queue, batch) in enumerate(by_queue.items()):
                self._push(client, queue, [wire_text(message, self._compress_above_bytes) for message in batch])
                if index == 0:
                    reach("publish.after_first")
                taken = {id(message) for message in batch}
                unconfirmed = [message for message in unconfirmed if id(message) not in taken]
            reach("publish.before_confirm")
        except _ERRORS as error:
            self._lost(error)
        else:
            self._available = True
        return unconfirmed

    def declare(self, queues: Iterable[str]) -> None:  # noqa: ARG002  (of the port)
        """Lists make themselves; this only finds out whether the server answers."""
        with self._calling():
            self._connected().ping()

    def depths(self, queues: Collection[str]) -> dict[str, int]:
        """Lengths of the lists; an empty list does not exist."""
        names = list(queues)
        with self._calling():
            return self._lengths(self._connected(), names)

    def reports(self, *, prefetch: int) -> ReportSource:
        """Reports and heartbeats, on connections of their own."""
        return KombuReports(self._url, prefetch=prefetch, connect_seconds=self._connect_seconds)

    def close(self) -> None:
        """Close the connection."""
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(*_ERRORS):
                client.close()

    def _push(self, client: redis.Redis, queue: str, texts: Sequence[str]) -> None:
        client.lpush(queue, *texts)

    def _lengths(self, client: redis.Redis, names: Sequence[str]) -> dict[str, int]:
        pipeline = client.pipeline(transaction=False)
        for name in names:
            pipeline.llen(name)
        return {name: length for name, length in zip(names, pipeline.execute(), strict=True) if length}

    def _connected(self) -> redis.Redis:
        if self._client is None:
            parameters = _connection_parameters(self._url)
            self._client = redis.Redis(
                **parameters,
                socket_timeout=self._timeout_seconds,
                socket_connect_timeout=self._connect_seconds,
                socket_keepalive=True,
                # A command that was cut off may have been carried out: never sent again by itself.
                retry=Retry(NoBackoff(), 0),
                single_connection_client=True,
            )
        return self._client

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


class RedisStreamBroker(RedisBroker):
    """`Broker` on Redis Streams, for workers that read `redis-stream://`."""

    _streams = Streams()

    def _push(self, client: redis.Redis, queue: str, texts: Sequence[str]) -> None:
        with client.pipeline(transaction=True) as pipeline:
            for text in texts:
                self._streams.add(pipeline, queue, text)
            pipeline.execute()

    def _lengths(self, client: redis.Redis, names: Sequence[str]) -> dict[str, int]:
        return self._streams.waiting(client, names)


def wire_text(message: WireMessage, compress_above_bytes: int = 0) -> str:
    """The message as kombu's Redis transport writes it."""
    body, how = packed(message.body.encode("utf-8", "surrogatepass"), compress_above_bytes)
    properties = {
        **message.properties,
        "delivery_info": {"exchange": "", "routing_key": message.queue},
        "body_encoding": "base64",
        "delivery_tag": str(uuid.uuid4()),
    }
    return json.dumps(
        {
            "body": base64.b64encode(body).decode("ascii"),
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": message.headers | how,
            "properties": properties,
        },
        separators=(",", ":"),
    )


def _connection_parameters(url: str) -> dict[str, Any]:
    """Host, port, database, credentials and TLS of the URL."""
    parts = urlsplit(url)
    parameters: dict[str, Any] = {
        "host": parts.hostname or "127.0.0.1",
        "port": parts.port or 6379,
        "db": int(parts.path.strip("/") or 0),
        "username": unquote(parts.username) if parts.username else None,
        "password": unquote(parts.password) if parts.password else None,
    }
    if parts.scheme in {"rediss", "rediss-stream"}:
        parameters["ssl"] = True
    return parameters
