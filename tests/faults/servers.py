"""The database server and the broker under a system: private ones, or an installation's own that was set aside."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import amqp

from tests.servers import PostgresServer, RabbitMQServer, RedisServer, RedisStreamServer, ValkeyServer

#: A broker that loses what it confirmed when it is killed would only show what everybody knows: each writes first.
BROKERS: dict[str, Callable[[], RabbitMQServer | RedisServer]] = {
    "rabbitmq": RabbitMQServer,
    "rabbitmq-quorum": RabbitMQServer,
    "valkey": lambda: ValkeyServer(fsync="always"),
    "redis": lambda: RedisServer(fsync="always"),
    "redis-stream": lambda: RedisStreamServer(fsync="always"),
}


class Servers:
    """A database server and a broker, for one system after the other."""

    #: Whether they may be stopped.
    ours = True

    def __init__(self, combination: str) -> None:
        """A database, `postgresql` or `sqlite`, `+` and one of BROKERS; nothing runs yet."""
        database, _, broker = combination.partition("+")
        self.database = PostgresServer() if database == "postgresql" else None
        self.broker: RabbitMQServer | RedisServer = BROKERS[broker]()
        #: What a system on these servers is told beside their URLs.
        self.settings = {"SIGNALBOX_WORKERS__QUEUE_TYPE": "quorum"} if broker == "rabbitmq-quorum" else {}
        self._made = 0

    @property
    def broker_url(self) -> str:
        """By which a system finds the broker."""
        return self.broker.url

    def start(self) -> None:
        """Start what does not run."""
        if self.database is not None:
            self.database.start()
        self.broker.start()

    def fresh(self, folder: Path) -> str:
        """An empty broker and an empty database; its URL."""
        if isinstance(self.broker, RabbitMQServer):
            self.broker.delete_all_queues()
        else:
            self.broker.purge_all()
        if self.database is None:
            return f"sqlite:///{folder / 'faults.sqlite3'}"
        self._made += 1
        return self.database.create_database(f"faults_{self._made}")

    def empty(self) -> None:
        """Throw away what waits at the broker: every message on RabbitMQ, everything on Valkey."""
        if not isinstance(self.broker, RabbitMQServer):
            self.broker.purge_all()
            return
        with self.broker.connect() as connection:
            for name in self.broker.depths():
                # Queues that belong to one connection (Celery's own remote control) cannot be emptied from another.
                with contextlib.suppress(amqp.exceptions.AMQPError), connection.channel() as channel:
                    channel.queue_purge(name)

    def close(self) -> None:
        """Stop and remove both."""
        self.broker.close()
        if self.database is not None:
            self.database.close()


class GivenServers(Servers):
    """An installation's own PostgreSQL and broker, set aside for this; they are used, never stopped."""

    ours = False

    def __init__(self, database_url: str, broker_url: str) -> None:
        """The database must be empty or one that was used for this before; the broker is emptied."""
        self.database = None
        self.broker = _GivenBroker(broker_url)  # type: ignore[assignment]
        self.settings = {}
        self._database_url = database_url

    def start(self) -> None:
        """They run."""

    def fresh(self, folder: Path) -> str:
        """The given database, with what earlier rounds left in it gone."""
        self.empty()
        return self._database_url

    def empty(self) -> None:
        """Throw away what waits in the queues that Signalbox uses."""
        from kombu import Connection

        with Connection(self.broker.url) as connection:
            for name in ("task.execution.default", "status.update", "worker.heartbeat"):
                with contextlib.suppress(*connection.channel_errors), connection.channel() as channel:
                    channel.queue_purge(name)

    def close(self) -> None:
        """They go on."""


@dataclass(frozen=True)
class _GivenBroker:
    url: str

    def depth(self, queue: str) -> int:
        """How many messages wait."""
        from kombu import Connection

        with Connection(self.url) as connection, connection.channel() as channel:
            return int(channel.queue_declare(queue, passive=True).message_count)


def given_servers() -> Servers | None:
    """Servers named by FAULTS_DATABASE_URL and FAULTS_BROKER_URL: an installation set aside for this."""
    database, broker = os.environ.get("FAULTS_DATABASE_URL"), os.environ.get("FAULTS_BROKER_URL")
    return GivenServers(database, broker) if database and broker else None
