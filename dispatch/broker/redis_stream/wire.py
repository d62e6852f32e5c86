"""Keys and entries, and what is done to them. Pure redis-py: dispatcher, transport and tests share it.

A queue `q` is the stream `kombu.stream.q`, not `q` itself, so that the stock transport's list of that name may exist
beside it. Its one consumer group is `kombu`. An entry has one field, `m`, with the JSON that the stock transport would
push on its list. An acknowledged entry is deleted: the stream's length is what waits plus what is held.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import redis

GROUP: Final = "kombu"
FIELD: Final = "m"
_STREAM: Final = "kombu.stream."
_ALIVE: Final = "kombu.alive."

Entry = tuple[str, str]
"""Queue and entry id."""


def tag_of(queue: str, entry_id: str) -> str:
    """The delivery tag of an entry: it says by itself what there is to acknowledge."""
    return f"{entry_id} {queue}"


def entry_of(tag: str) -> Entry:
    """Queue and entry id of a delivery tag."""
    entry_id, _, queue = tag.partition(" ")
    return queue, entry_id


def dumps(payload: Mapping[str, Any]) -> str:
    """An entry's text."""
    return json.dumps(payload, separators=(",", ":"))


def loads(fields: Sequence[bytes] | Mapping[bytes, bytes]) -> dict[str, Any]:
    """The payload of an entry, from its fields as either version of the protocol gives them. Raises ValueError."""
    found = fields if isinstance(fields, Mapping) else dict(zip(fields[::2], fields[1::2], strict=True))
    payload = json.loads(found.get(FIELD.encode(), b"null"))
    if isinstance(payload, dict) and isinstance(payload.get("properties"), dict):
        return payload
    raise ValueError("not a message")


def text(value: Any) -> str:
    """What the server calls something, whether or not the client decodes."""
    return value.decode() if isinstance(value, bytes) else str(value)


class Streams:
    """The streams of one server under one prefix. The client is the caller's: one, or a pipeline where it says so."""

    def __init__(self, prefix: str = "") -> None:
        """prefix: Kombu's `global_keyprefix`."""
        self.prefix = prefix

    def key(self, queue: str) -> str:
        """The stream of a queue."""
        return f"{self.prefix}{_STREAM}{queue}"

    def queue(self, key: bytes | str) -> str:
        """The queue of a stream."""
        return text(key).removeprefix(self.prefix).removeprefix(_STREAM)

    def life(self, consumer: str) -> str:
        """The key that exists while a consumer lives."""
        return f"{self.prefix}{_ALIVE}{consumer}"

    def make_group(self, client: redis.Redis, queue: str) -> None:
        """See that stream and group are there; all that is in the stream is for the group."""
        try:
            client.xgroup_create(self.key(queue), GROUP, id="0", mkstream=True)
        except redis.ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise

    def add(self, client: redis.Redis, queue: str, entry: str, *, length_max: int | None = None) -> None:
        """Append an entry, also in a pipeline. `length_max` drops the oldest, at about that length."""
        client.xadd(self.key(queue), {FIELD: entry}, maxlen=length_max, approximate=True)

    def acknowledge(self, client: redis.Redis, entries: Iterable[Entry]) -> None:
        """Forget these entries, all in one step of the server."""
        by_queue: dict[str, list[str]] = {}
        for queue, entry_id in entries:
            by_queue.setdefault(queue, []).append(entry_id)
        with client.pipeline(transaction=True) as pipe:
            for queue, ids in by_queue.items():
                pipe.xack(self.key(queue), GROUP, *ids)
                pipe.xdel(self.key(queue), *ids)
            pipe.execute()

    def put_back(self, client: redis.Redis, entries: Iterable[tuple[Entry, Mapping[str, Any]]]) -> None:
        """Append these entries' payloads anew and forget the old ones, in one step of the server."""
        with client.pipeline(transaction=True) as pipe:
            for (queue, entry_id), payload in entries:
                self.add(pipe, queue, dumps(payload))
                pipe.xack(self.key(queue), GROUP, entry_id)
                pipe.xdel(self.key(queue), entry_id)
            pipe.execute()

    def waiting(self, client: redis.Redis, queues: Sequence[str]) -> dict[str, int]:
        """Entries of each queue that nobody holds; a queue that does not exist is absent."""
        with client.pipeline(transaction=True) as pipe:
            for queue in queues:
                pipe.exists(self.key(queue))
                pipe.xlen(self.key(queue))
                pipe.xpending(self.key(queue), GROUP)
            answers = pipe.execute(raise_on_error=False)
        found = {}
        for queue, (exists, length, pending) in zip(queues, zip(*[iter(answers)] * 3, strict=True), strict=True):
            for answer in (exists, length, pending):
                if isinstance(answer, Exception) and "NOGROUP" not in str(answer):
                    raise answer
            if exists:
                held = 0 if isinstance(pending, Exception) else int(pending["pending"])
                found[queue] = max(0, int(length) - held)
        return found

    def purge(self, client: redis.Redis, queue: str, *, batch: int = 1000) -> int:
        """Delete what nobody holds; returns how many. What is held stays, as on other brokers."""
        purged = 0
        while (last := self._last_delivered(client, queue)) is not None:
            entries: Any = client.xrange(self.key(queue), min=f"({last}", count=batch)
            ids = [text(entry_id) for entry_id, _ in entries]
            if not ids:
                break
            purged += int(client.xdel(self.key(queue), *ids))
        return purged

    def _last_delivered(self, client: redis.Redis, queue: str) -> str | None:
        try:
            groups = client.xinfo_groups(self.key(queue))
        except redis.ResponseError as error:
            if "no such key" in str(error):
                return None
            raise
        named = [text(group["last-delivered-id"]) for group in groups if text(group["name"]) == GROUP]
        return named[0] if named else "0"
