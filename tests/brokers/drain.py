"""How fast a plain Celery worker with two prefork slots drains a queue of each broker, in turns."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import amqp
from celery import Celery

from tests.servers import RabbitMQServer, RedisServer, RedisStreamServer

ROOT: Final = Path(__file__).parents[2]
QUEUE: Final = "drain"
BROKERS: Final = ("rabbitmq", "redis", "redis-stream")
_SERVERS: Final = {"rabbitmq": RabbitMQServer, "redis": RedisServer, "redis-stream": RedisStreamServer}


def measure(rounds: int, messages: int, say: Callable[[str], None]) -> list[dict[str, float]]:
    """For each round the messages a second of each broker. Who begins changes with each round."""
    found = []
    for number in range(rounds):
        order = BROKERS[number % 3 :] + BROKERS[: number % 3]
        one = {name: _drained(name, messages) for name in order}
        found.append(one)
        say(f"round {number + 1}: " + ", ".join(f"{name} {one[name]:,.0f}/s" for name in BROKERS))
    return found


def _drained(name: str, messages: int) -> float:
    with _SERVERS[name]() as server:
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("DJANGO_", "SIGNALBOX_"))}
        environment |= {"DRAIN_BROKER_URL": server.url, "PYTHONPATH": str(ROOT)}
        _fill(server.url, messages)
        worker = subprocess.Popen(
            [sys.executable, "-m", "celery", "-A", "tests.brokers.app", "worker", "-c", "2", "-l", "ERROR",
             "--without-gossip", "--without-mingle"],
            cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        try:
            return _rate(lambda: _depth(server), messages)
        finally:
            # Told to end under load, Celery takes half a minute.
            os.killpg(worker.pid, signal.SIGKILL)
            worker.wait()


def _fill(url: str, messages: int) -> None:
    app = Celery("fill", broker=url, set_as_current=False)
    app.conf.update(task_serializer="json", task_default_queue=QUEUE, task_ignore_result=True)
    with app.connection_for_write() as connection, app.amqp.Producer(connection) as producer:
        for number in range(messages):
            app.send_task("drain.noop", [number], producer=producer)


def _rate(depth: Callable[[], int], messages: int) -> float:
    """Between a tenth and nine tenths of the way: without the worker's start and the tail."""
    first = last = (time.monotonic(), messages)
    deadline = time.monotonic() + 120
    while last[1] > messages * 0.1:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{last[1]} of {messages} messages are left after two minutes")
        time.sleep(0.02)
        last = (time.monotonic(), depth())
        if first[1] > messages * 0.9:
            first = last
    return (first[1] - last[1]) / (last[0] - first[0])


def _depth(server: RabbitMQServer | RedisServer) -> int:
    if isinstance(server, RedisServer):
        return server.depth(QUEUE)
    try:
        return server.depths().get(QUEUE, 0)
    except amqp.exceptions.NotFound:
        return 0
