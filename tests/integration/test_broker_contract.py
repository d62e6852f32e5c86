"""One contract for all brokers: what is not returned by `publish` is on a queue, readable by stock Celery and kombu."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from kombu import Connection, Exchange, Producer, Queue

from dispatch.broker import Broker, BrokerAway, Delivery, from_url
from dispatch.broker.memory import MemoryBroker
from tasks_app.messages.compression import packed
from tasks_app.messages.execution import Execution, WireMessage, build, queue_for, verify
from tasks_app.messages.reports import Batch, broker_url, pack, unpack
from tasks_app.messages.signing import KeyRing
from tests.integration.domain import NOW
from tests.servers.process import Server

RING = KeyRing({"k": "s" * 40}, "k")


@dataclass
class Bench:
    """A broker of one kind, and the other side of it."""

    broker: Broker
    url: str = ""
    server: Server | None = None
    task_type: str = field(default_factory=lambda: f"t{uuid4().hex[:12]}")

    @property
    def queue(self) -> str:
        return queue_for(self.task_type)

    @property
    def memory(self) -> MemoryBroker | None:
        return self.broker if isinstance(self.broker, MemoryBroker) else None

    def messages(self, count: int = 1, text: str = "naïve ✓") -> list[WireMessage]:
        return [
            build(
                Execution(
                    run_id=n + 1, task_id=1, task_name="a task", task_type=self.task_type, executor="python",
                    parameters={"function": "bench.add", "args": [n, {"text": text}], "kwargs": {"b": 2}}, attempt=1,
                    token=uuid4(), timeout_seconds=60, correlation_id=uuid4(),
                ),
                RING, now=NOW,
            )
            for n in range(count)
        ]  # fmt: skip

    def taken(self, count: int, seconds: float = 10) -> list[tuple[dict[str, Any], Any]]:
        """(headers, decoded body) of what a stock kombu consumer gets."""
        if self.memory is not None:
            return [(m.headers, json.loads(m.body)) for m in self.memory.queues[self.queue]]
        found: list[tuple[dict[str, Any], Any]] = []
        with Connection(self.url) as connection:
            queue = Queue(self.queue, Exchange("", type="direct"), routing_key=self.queue, durable=True)

            def on_message(body: Any, message: Any) -> None:
                found.append((message.headers, body))
                message.ack()

            with connection.Consumer(queue, callbacks=[on_message], accept=["json"]):
                deadline = time.monotonic() + seconds
                while len(found) < count and time.monotonic() < deadline:
                    try:
                        connection.drain_events(timeout=0.5)
                    except TimeoutError:
                        continue
        return found

    def stop(self) -> None:
        if self.memory is not None:
            self.memory.away = True
        else:
            assert self.server is not None
            self.server.stop()

    def start(self) -> None:
        if self.memory is not None:
            self.memory.away = False
        else:
            assert self.server is not None
            self.server.start()

    def send_report(self, body: bytes, headers: dict[str, Any]) -> None:
        if self.memory is not None:
            self.memory.put_report("status.update", headers, body)
            return
        with Connection(broker_url(self.url)) as connection:
            exchange = Exchange("signalbox", type="topic", durable=True)
            queue = Queue("status.update", exchange, routing_key="status.update.#", durable=True)
            Producer(connection).publish(
                body, exchange=exchange, routing_key="status.update.w1", headers=headers, declare=[queue],
                content_type="application/json", content_encoding="utf-8",
            )  # fmt: skip

    def lose_consumer(self, source: Any) -> None:
        if self.memory is not None:
            self.memory.lose_connection()
        else:
            source.close()


KINDS = ("rabbitmq", "redis", "valkey", "redis-stream", "valkey-stream", "memory")


def bench_of(kind: str, request: pytest.FixtureRequest) -> Bench:
    if kind == "memory":
        return Bench(MemoryBroker())
    name = kind.removesuffix("-stream")
    server = request.getfixturevalue({"redis": "redis_server"}.get(name, name))
    url = server.url.replace("redis://", "redis-stream://") if kind.endswith("-stream") else server.url
    return Bench(from_url(url, confirm_seconds=5), url, server)


@pytest.fixture(params=KINDS)
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    made = bench_of(request.param, request)
    yield made
    made.broker.close()


def eventually(condition: Callable[[], bool], seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def test_what_is_published_is_read_back_whole_and_in_order_by_a_stock_consumer(bench: Bench):
    sent = bench.messages(20)
    assert bench.broker.publish(sent) == []
    got = bench.taken(20)
    assert [body for _, body in got] == [json.loads(message.body) for message in sent]
    for headers, body in got:
        ticket = verify(headers, headers["task"], body[0], body[1], bench.queue, RING)
        assert ticket.task_name == "a task"
    assert [headers for headers, _ in got] == [message.headers for message in sent]


def test_a_large_message_passes(bench: Bench):
    [sent] = bench.messages(1, text="x" * 250_000)
    assert bench.broker.publish([sent]) == []
    [(headers, body)] = bench.taken(1)
    assert len(body[0][1]["text"]) == 250_000
    if bench.memory is None:
        assert headers["compression"] == "application/zstd"
    ticket = verify(headers, headers["task"], body[0], body[1], bench.queue, RING)
    assert ticket.run_id == sent.run_id


def test_depths_count_what_waits_and_leave_out_queues_that_do_not_exist(bench: Bench):
    bench.broker.publish(bench.messages(3))
    assert bench.broker.depths([bench.queue, "task.execution.nonesuch"]) == {bench.queue: 3}
    assert bench.broker.publish(bench.messages(1)) == []


def test_an_empty_batch_is_nothing(bench: Bench):
    assert bench.broker.publish([]) == []


def test_a_queue_may_be_declared_again_and_again(bench: Bench):
    for _ in range(2):
        bench.broker.declare([bench.queue])
    assert bench.broker.available


def test_a_broker_that_is_away_confirms_nothing_and_is_found_again(bench: Bench):
    assert bench.broker.publish(bench.messages(2)) == []
    bench.stop()
    try:
        sent = bench.messages(3)
        assert bench.broker.publish(sent) == sent
        assert not bench.broker.available
        with pytest.raises(BrokerAway):
            bench.broker.declare([bench.queue])
        with pytest.raises(BrokerAway):
            bench.broker.depths([bench.queue])
    finally:
        bench.start()
    bench.broker.declare([bench.queue])
    assert bench.broker.available
    assert bench.broker.publish(bench.messages(1)) == []
    # Durable: what was confirmed before is still there.
    assert len(bench.taken(3)) == 3


def test_a_report_comes_with_its_headers_and_again_until_it_is_acknowledged(bench: Bench):
    headers, body = pack(Batch("w1", "i1", [{"kind": "finish", "n": bench.task_type}]), RING)
    source = bench.broker.reports(prefetch=10)
    source.receive(0.1)
    bench.send_report(body, headers)
    got = received(source, 1)
    assert unpack(got[0].headers, got[0].body, RING).reports[0]["n"] == bench.task_type
    bench.lose_consumer(source)
    again = received(source, 1)
    assert [delivery.body for delivery in again] == [body]
    source.acknowledge(again)
    source.keep_alive()
    bench.lose_consumer(source)
    assert source.receive(0.5) == []
    source.close()


def received(source: Any, count: int, seconds: float = 10) -> list[Delivery]:
    got: list[Delivery] = []
    deadline = time.monotonic() + seconds
    while len(got) < count and time.monotonic() < deadline:
        got += source.receive(0.5)
    assert len(got) == count
    return got


def test_a_compressed_batch_of_reports_is_read_as_it_was_signed(bench: Bench):
    headers, body = pack(Batch("w1", "i1", [{"kind": "log", "text": "x" * 100_000, "n": bench.task_type}]), RING)
    small, how = packed(body, 16 * 1024)
    assert len(small) < len(body) / 10
    source = bench.broker.reports(prefetch=10)
    source.receive(0.1)
    if bench.memory is None:
        bench.send_report(small, headers | how)
    else:
        bench.send_report(body, headers)
    [got] = received(source, 1)
    assert unpack(got.headers, got.body, RING).reports[0]["n"] == bench.task_type
    source.acknowledge([got])
    source.close()


def test_a_source_whose_broker_is_away_says_so_and_goes_on_later(bench: Bench):
    source = bench.broker.reports(prefetch=10)
    source.receive(0.1)
    bench.stop()
    try:
        eventually(lambda: is_away(source))
    finally:
        bench.start()
    headers, body = pack(Batch("w1", "i1", []), RING)
    bench.send_report(body, headers)
    eventually(lambda: any_received(source))
    source.close()


def is_away(source: Any) -> bool:
    try:
        source.receive(0.1)
    except BrokerAway:
        return True
    return False


def any_received(source: Any) -> bool:
    try:
        got = source.receive(0.5)
        source.acknowledge(got)
    except BrokerAway:
        return False
    return bool(got)


@pytest.mark.parametrize("kind", ["rabbitmq", "redis", "redis-stream"])
def test_a_stock_celery_worker_runs_what_is_published(kind: str, request: pytest.FixtureRequest, tmp_path: Path):
    bench = bench_of(kind, request)
    sent = bench.messages(5)
    assert bench.broker.publish(sent) == []
    bench.broker.close()
    output = tmp_path / "ran"
    output.touch()
    worker = subprocess.Popen(
        [sys.executable, "-m", "tests.integration.stock_worker", bench.url, bench.queue, str(output)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        # Otherwise Celery would set Django up, and with it this project.
        env={name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"},
    )  # fmt: skip
    try:
        eventually(lambda: len(output.read_text().splitlines()) == 5, seconds=30)
    finally:
        worker.kill()
        worker.wait()
    ran = [json.loads(line) for line in output.read_text().splitlines()]
    assert ran == [[n, "naïve ✓", 2, message.headers["id"]] for n, message in enumerate(sent)]


@pytest.fixture
def rabbit(rabbitmq: Any) -> Iterator[Bench]:
    made = Bench(from_url(rabbitmq.url, confirm_seconds=1), rabbitmq.url, rabbitmq)
    yield made
    made.broker.close()


# -- what only RabbitMQ can do -----------------------------------------------------------------------------------------


def test_a_message_for_a_queue_that_was_deleted_comes_back_alone(rabbit: Bench, rabbitmq: Any):
    bench, other = rabbit, Bench(rabbit.broker)
    bench.broker.declare([bench.queue, other.queue])
    with rabbitmq.connect() as connection, connection.channel() as channel:
        channel.queue_delete(bench.queue)
    mixed = [m for pair in zip(bench.messages(3), other.messages(3), strict=True) for m in pair]
    unconfirmed = bench.broker.publish(mixed)
    assert [m.queue for m in unconfirmed] == [bench.queue] * 3
    assert bench.broker.available
    # Declared afresh for the next ones.
    assert bench.broker.publish(unconfirmed) == []


def test_messages_for_a_queue_that_is_full_come_back(rabbit: Bench, rabbitmq: Any):
    bench = rabbit
    with rabbitmq.connect() as connection, connection.channel() as channel:
        channel.queue_declare(
            bench.queue, durable=True, auto_delete=False, arguments={"x-max-length": 2, "x-overflow": "reject-publish"}
        )
    sent = bench.messages(5)
    unconfirmed = bench.broker.publish(sent)
    assert len(unconfirmed) == 3
    assert bench.broker.available


def test_a_broker_that_stands_still_confirms_nothing_within_the_deadline(rabbit: Bench, rabbitmq: Any):
    bench = rabbit
    bench.broker.declare([bench.queue])
    rabbitmq.pause()
    try:
        began = time.monotonic()
        sent = bench.messages(2)
        assert bench.broker.publish(sent) == sent
        assert time.monotonic() - began < 4
    finally:
        rabbitmq.resume()
    eventually(lambda: bench.broker.publish(bench.messages(1)) == [])


def test_a_connection_that_was_cut_is_made_again_within_the_next_publish(rabbit: Bench, rabbitmq: Any):
    bench = rabbit
    bench.broker.publish(bench.messages(1))
    bench.broker._kombu.connection.transport.sock.close()  # type: ignore[attr-defined]
    sent = bench.messages(2)
    first = bench.broker.publish(sent)
    assert first in ([], sent)
    assert bench.broker.publish(first) == []
