"""A worker's main process without a worker: who is told when children come, speak and go."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from celery import Celery

from tasks_app.clock import clock
from workers_app.conf import WorkerSettings
from workers_app.control_plane.database import DatabaseControlPlane
from workers_app.control_plane.port import Hello
from workers_app.execution.channel import TELEMETRY, ChildEnd
from workers_app.execution.node import Node
from workers_app.execution.registry import boottime_ns


class HostClock:
    def now(self) -> datetime:
        return datetime.now(UTC)


class NoGuardian:
    def __init__(self, _registry: Any) -> None: ...

    def alive(self) -> bool:
        return True

    def stop(self) -> None: ...


def a_node(pool: str = "prefork") -> Node:
    hello = Hello(
        worker_id="w", task_types=[], functions=[], labels={}, slots=1, pool=pool, host="", pid=os.getpid(),
        code_version="",
    )  # fmt: skip
    settings = WorkerSettings(permits="each")
    return Node(
        Celery("node", set_as_current=False), hello, settings, DatabaseControlPlane(clock, 60.0), guard=NoGuardian
    )


@pytest.fixture
def node() -> Iterator[Node]:
    made = a_node()
    made.registry.set_lease(boottime_ns() + 10**12)
    with clock.replaced_by(HostClock()), contextlib.closing(made.channel):
        yield made
    os.close(made.registry.fd)


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_worker_is_not_ready_while_nobody_reads_its_outcomes(node):
    with pytest.raises(RuntimeError, match="not read"):
        node.check_outcomes()
    node.channel.start()
    node.check_outcomes()
    node.channel.close()
    with pytest.raises(RuntimeError, match="not read"):
        node.check_outcomes()


def test_a_worker_whose_bodies_run_in_its_own_process_reads_nothing():
    node = a_node("threads")
    with contextlib.closing(node.channel):
        node.check_outcomes()
    os.close(node.registry.fd)


def test_a_child_that_is_gone_and_concluded_is_forgotten(node):
    node.channel.start()
    for number in (1, 2, 3):
        pid = os.fork()
        if pid == 0:
            record = node.registry.take_seat(os.getpid()).register(number, 1, bytes(16), bytes([number]) * 16)
            told = ChildEnd(node.channel.path)
            assert record.grant(0)
            record.start()
            told.send(TELEMETRY, bytes(16), b"began")
            os.kill(os.getpid(), signal.SIGKILL)
        os.waitpid(pid, 0)

        def concluded(number: int = number) -> bool:
            node._bury_dead()  # as the watch does
            return len(node.outbox.unsettled()) == number and not node._gone

        wait_for(concluded)
    assert node.registry.snapshot() == []


def test_a_child_that_is_gone_is_known_for_as_long_as_its_seat_is_taken(node):
    node.registry.take_seat(os.getpid())
    node._child_gone(os.getpid())
    node._bury_dead()
    assert node._gone == {os.getpid()}
