"""Who is alive, and what the dead held.

Each consumer keeps a key that expires; the thread of `settlement` renews it. A consumer whose key is gone is dead, or
has been standing still for so long that it counts as dead. What it held is claimed by whoever looks first: XCLAIM with
a least idle time is atomic, and resets the idle time. A consumer that stood still and goes on finds that its messages
were taken over; its acknowledgements then only say what is true, that the message was worked off.
"""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import redis

from dispatch.broker.redis_stream.wire import GROUP, Streams, text

#: Deletes a dead consumer that holds nothing. Asked and done in one step: deleting one that holds entries would leave
#: them to nobody. KEYS: stream, key of its life. ARGV: group, consumer.
_BURY: Final = """
if redis.call('EXISTS', KEYS[2]) == 1 or redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
local held = redis.pcall('XPENDING', KEYS[1], ARGV[1], '-', '+', 1, ARGV[2])
if held.err or #held > 0 then return 0 end
redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
return 1
"""


def new_consumer() -> str:
    """A name that no other consumer has: host, process and a random part."""
    return f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:12]}"


class Liveness:
    """One consumer: its own life, and its looks after the others of its queues."""

    def __init__(self, streams: Streams, consumer: str, lease_seconds: float) -> None:
        """lease_seconds: how long a consumer counts as alive without a word."""
        self._streams, self.consumer = streams, consumer
        self._lease_ms = max(2, int(lease_seconds * 1000))

    def renew(self, client: redis.Redis, expiring: Mapping[str, int]) -> None:
        """Alive for a lease from now on; and queues that expire unless they are used live so many milliseconds."""
        with client.pipeline(transaction=False) as pipe:
            pipe.set(self._streams.life(self.consumer), b"1", px=self._lease_ms)
            for queue, expires_ms in expiring.items():
                pipe.pexpire(self._streams.key(queue), expires_ms)
            pipe.execute()

    def renew_seconds(self, expiring: Mapping[str, int]) -> float:
        """How often to do so: two calls may fail before something ends."""
        return max(0.1, min((self._lease_ms, *expiring.values())) / 3000)

    def leave(self, client: redis.Redis, queues: Iterable[str]) -> None:
        """Dead from now on. What it could not put back is taken over like that of any other dead consumer."""
        client.delete(self._streams.life(self.consumer))
        for queue in queues:
            self._bury(client, queue, self.consumer)

    def taken_over(self, client: redis.Redis, queue: str, limit: int) -> list[tuple[str, Any]]:
        """At most `limit` entries (id, fields) that dead consumers held; this one holds them now."""
        found: list[tuple[str, Any]] = []
        for name, pending in self._others(client, queue):
            if client.exists(self._streams.life(name)):
                continue
            if pending:
                held = self._held(client, queue, name, limit - len(found))
                found += self._claim(client, queue, held, idle_ms=self._lease_ms // 2)
            else:
                self._bury(client, queue, name)
            if len(found) >= limit:
                break
        return found

    def unknown(self, client: redis.Redis, queue: str, known: set[str]) -> list[tuple[str, Any]]:
        """Entries that this consumer holds without knowing it: the answer that named them was lost."""
        held = [one for one in self._held(client, queue, self.consumer, 10_000) if one not in known]
        return self._claim(client, queue, held, idle_ms=0)

    def _others(self, client: redis.Redis, queue: str) -> Iterator[tuple[str, int]]:
        try:
            consumers = client.xinfo_consumers(self._streams.key(queue), GROUP)
        except redis.ResponseError as error:
            if "NOGROUP" in str(error) or "no such key" in str(error):
                return
            raise
        for one in consumers:
            name = text(one["name"])
            if name != self.consumer:
                yield name, int(one["pending"])

    def _held(self, client: redis.Redis, queue: str, name: str, limit: int) -> list[str]:
        key = self._streams.key(queue)
        rows = client.xpending_range(key, GROUP, min="-", max="+", count=limit, consumername=name)
        return [text(row["message_id"]) for row in rows]

    def _claim(self, client: redis.Redis, queue: str, ids: list[str], *, idle_ms: int) -> list[tuple[str, Any]]:
        if not ids:
            return []
        wanted: list[int | bytes | str | memoryview[int]] = [*ids]
        claimed: Any = client.xclaim(self._streams.key(queue), GROUP, self.consumer, idle_ms, wanted)
        return [(text(entry_id), fields) for entry_id, fields in claimed if entry_id is not None]

    def _bury(self, client: redis.Redis, queue: str, name: str) -> None:
        client.eval(_BURY, 2, self._streams.key(queue), self._streams.life(name), GROUP, name)
