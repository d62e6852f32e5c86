"""A private Redis from the system's package, with an append-only file and a random password."""

from __future__ import annotations

import contextlib
import secrets
import shutil

import redis

from dispatch.broker.redis_stream.wire import Streams
from tests.servers.process import Server, ServerMissing, free_port


class RedisServer(Server):
    """One server; database 0 is the broker's."""

    name = "redis"

    def __init__(self, *, fsync: str = "everysec") -> None:
        """`fsync` is Redis' appendfsync: everysec (its default), always or no."""
        super().__init__()
        self.port = free_port()
        self.password = secrets.token_hex(12)
        self.fsync = fsync

    @property
    def url(self) -> str:
        """The broker's database."""
        return f"redis://:{self.password}@127.0.0.1:{self.port}/0"

    def program(self) -> str:
        """The server's program. Raises ServerMissing."""
        found = shutil.which("redis-server")
        if found is None:
            raise ServerMissing("Redis is not installed: sudo tests/servers/install.sh")
        return found

    def require(self) -> None:
        """Raise ServerMissing when the program is not there."""
        self.program()

    def launch(self) -> None:
        """Start, and return when it answers PING (loading its file included)."""
        # The password goes into a file: arguments can be read by everybody on the machine.
        config = self.directory / "server.conf"
        config.touch(0o600)
        config.write_text(
            f"port {self.port}\nbind 127.0.0.1\nrequirepass {self.password}\ndir {self.directory}\n"
            f'appendonly yes\nappendfsync {self.fsync}\nsave ""\ndaemonize no\n'
        )
        self.spawn([self.program(), config])
        self.wait_for(self._accepts)

    def _accepts(self) -> bool:
        with self.client() as client:
            try:
                return bool(client.ping())
            except redis.ConnectionError:
                return False

    def client(self) -> redis.Redis:
        """A connection pool of its own; close it."""
        return redis.Redis(host="127.0.0.1", port=self.port, password=self.password, socket_timeout=5)

    def depth(self, queue: str) -> int:
        """How many messages wait in a list."""
        with contextlib.closing(self.client()) as client:
            return int(client.llen(queue))

    def purge_all(self) -> None:
        """Empty the broker."""
        with contextlib.closing(self.client()) as client:
            client.flushall()

    def delete_all_queues(self) -> None:
        """Remove every queue with its bindings, and what is unacknowledged: here that is everything."""
        self.purge_all()

    def version(self) -> str:
        """Of the server's program."""
        with contextlib.closing(self.client()) as client:
            return str(client.info("server")["redis_version"])


class RedisStreamServer(RedisServer):
    """The same server, used by the transport on streams."""

    name = "redis-stream"

    @property
    def url(self) -> str:
        """The broker's database, by the scheme of the transport on streams."""
        return super().url.replace("redis://", "redis-stream://")

    def depth(self, queue: str) -> int:
        """How many messages wait in a stream."""
        with contextlib.closing(self.client()) as client:
            return Streams().waiting(client, [queue]).get(queue, 0)
