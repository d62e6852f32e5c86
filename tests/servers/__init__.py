"""Real servers for tests, the fault harness and the benchmark: private, on free ports, gone afterwards.

Each server is a context manager that owns one temporary directory and the processes that it started itself,
in a session of their own. Nothing is looked up by name and nothing that somebody else started is touched.
Data survives `stop()` and `start()` on the same object, as a restart of the machine's service would; leaving
the context removes it.

A process of ours that is killed cannot clean up. So the first server that is started brings along the *leash*
(`leash.py`): it holds the other end of a pipe and, when that closes, ends what is still on its list.

    with PostgresServer() as postgres, RabbitMQServer() as rabbitmq:
        environment = {"SIGNALBOX_DATABASE_URL": postgres.url, "SIGNALBOX_BROKER_URL": rabbitmq.url}
"""

from tests.servers.postgres import PostgresServer
from tests.servers.process import ServerError, ServerMissing
from tests.servers.rabbitmq import RabbitMQServer
from tests.servers.redis import RedisServer, RedisStreamServer
from tests.servers.valkey import ValkeyServer

__all__ = [
    "PostgresServer",
    "RabbitMQServer",
    "RedisServer",
    "RedisStreamServer",
    "ServerError",
    "ServerMissing",
    "ValkeyServer",
]
