"""The private servers keep their word: they start, they keep data, they leave nothing behind."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import amqp
import psycopg
import pytest

from tests.servers import PostgresServer, RabbitMQServer, RedisServer, ServerMissing, ValkeyServer, leash
from tests.servers.process import Server, answers, free_port, wait_until

ROOT = Path(__file__).resolve().parents[2]


@contextlib.contextmanager
def own(kind: type[Server]) -> Iterator[Server]:
    """A server for one test alone, which may break it."""
    try:
        server = kind()
    except ServerMissing as error:
        pytest.skip(str(error))
    with server:
        yield server


def assert_gone(pids: list[int], directory: Path) -> None:
    table = leash.processes()
    assert [pid for pid in pids if pid in table] == []
    assert not directory.exists()


@pytest.mark.parametrize("kind", [RedisServer, ValkeyServer])
def test_redis_and_valkey_keep_their_data_over_a_stop_and_leave_nothing_behind(
    kind: type[RedisServer],
) -> None:
    with own(kind) as server:
        assert isinstance(server, RedisServer)
        with contextlib.closing(server.client()) as client:
            client.lpush("queue", "message")
        server.stop()
        assert not server.running
        assert not answers(server.port)
        server.start()
        assert server.depth("queue") == 1
        server.purge_all()
        assert server.depth("queue") == 0
        pids = server.pids
    assert_gone(pids, server.directory)


@pytest.mark.parametrize("end", ["stop", "kill", "kill_immediate"])
def test_postgres_keeps_what_was_committed_over_every_kind_of_end(end: str) -> None:
    with own(PostgresServer) as server:
        assert isinstance(server, PostgresServer)
        with psycopg.connect(server.url, autocommit=True) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 1 AS n")
            assert connection.execute("SHOW fsync").fetchone() == ("on",)
        session = psycopg.connect(server.url)
        session.execute("INSERT INTO kept VALUES (2)")
        getattr(server, end)()
        assert not server.running
        session.close()
        server.start()
        with psycopg.connect(server.url) as connection:
            assert connection.execute("SELECT n FROM kept").fetchall() == [(1,)]
        pids = server.pids
    assert_gone(pids, server.directory)


def test_rabbitmq_keeps_durable_messages_over_stop_and_kill_and_leaves_no_erlang_behind() -> None:
    with own(RabbitMQServer) as server:
        assert isinstance(server, RabbitMQServer)
        with server.connect() as connection, connection.channel() as channel:
            channel.confirm_select()
            channel.queue_declare("durable.queue", durable=True, auto_delete=False)
            channel.basic_publish_confirm(amqp.Message("kept", delivery_mode=2), routing_key="durable.queue")
        pids = server.pids
        server.stop()
        server.start()
        assert server.depths() == {"durable.queue": 1}
        pids += server.pids
        server.kill()
        assert not answers(server.epmd_port)
        server.start()
        assert server.depth("durable.queue") == 1
        assert server.depth("no.such.queue") == 0
        assert server.purge_all() == 1
        assert server.depth("durable.queue") == 0
        server.delete_all_queues()
        assert server.depths() == {}
        pids += server.pids
    assert_gone(pids, server.directory)


def test_servers_listen_on_loopback_only(
    rabbitmq: RabbitMQServer, postgres: PostgresServer, redis_server: RedisServer, valkey: ValkeyServer
) -> None:
    import psutil

    for server in (rabbitmq, postgres, redis_server, valkey):
        for pid in server.pids:
            for connection in psutil.Process(pid).net_connections(kind="tcp"):
                if connection.status == psutil.CONN_LISTEN:
                    assert connection.laddr.ip in {"127.0.0.1", "::1"}, (server.name, connection)


def test_a_stopped_server_goes_on_where_it_stood(valkey: ValkeyServer) -> None:
    valkey.pause()
    try:
        with socket.create_connection(("127.0.0.1", valkey.port), timeout=0.2) as connection:
            connection.sendall(b"PING\r\n")
            with pytest.raises(TimeoutError):
                connection.recv(1)
    finally:
        valkey.resume()
    with contextlib.closing(valkey.client()) as client:
        assert client.ping()


def test_servers_of_a_killed_process_are_ended_by_the_leash() -> None:
    script = (
        "import sys\n"
        "from tests.servers import ValkeyServer\n"
        "server = ValkeyServer().start()\n"
        "print(server.pid, server.directory, flush=True)\n"
        "sys.stdin.read()\n"
    )
    with own(ValkeyServer):
        process = subprocess.Popen(
            [sys.executable, "-c", script], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        pid, directory = process.stdout.readline().split()
        assert int(pid) in leash.processes()
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        wait_until(
            lambda: int(pid) not in leash.processes() and not Path(directory).exists(),
            seconds=10,
            what="the server outlives the process that started it",
        )


def test_a_free_port_is_free() -> None:
    assert not answers(free_port())
