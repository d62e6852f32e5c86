"""Quorum queues on a real RabbitMQ: made as the setting says, and one of the other type is named with its cure."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from uuid import uuid4

import amqp
import pytest
from kombu import Connection

from dispatch.broker import BrokerAway, from_url
from dispatch.broker.reports import KombuReports
from tasks_app.messages.execution import Execution, build, queue_for
from tasks_app.messages.signing import KeyRing
from tests.integration.domain import NOW
from tests.servers import RabbitMQServer
from workers_app.execution.publisher import report_queue
from workers_app.queue_types import QueueTypeDiffers, require
from workers_app.running import shared_queues


@pytest.fixture
def empty(rabbitmq: RabbitMQServer) -> Iterator[RabbitMQServer]:
    rabbitmq.delete_all_queues()
    yield rabbitmq
    rabbitmq.delete_all_queues()


def is_quorum(server: RabbitMQServer, queue: str) -> bool:
    """By what the node says when somebody declares it as a classic one."""
    with server.connect() as connection, connection.channel() as channel:
        try:
            channel.queue_declare(queue, durable=True, auto_delete=False)
        except amqp.PreconditionFailed as error:
            return "x-queue-type" in str(error)
    return False


def test_worker_and_dispatcher_declare_the_same_quorum_queue_and_messages_pass(empty):
    kind = f"t{uuid4().hex[:8]}"
    with Connection(empty.url) as connection:
        require(connection, [*shared_queues([kind], "quorum"), report_queue("quorum")], "quorum")
    broker = from_url(empty.url, queue_type="quorum", confirm_seconds=10)
    message = build(
        Execution(
            run_id=1, task_id=1, task_name="a", task_type=kind, executor="python",
            parameters={"function": "f", "args": [], "kwargs": {}}, attempt=1, token=uuid4(), timeout_seconds=60,
            correlation_id=uuid4(),
        ),
        KeyRing({"k": "s" * 40}, "k"), now=NOW,
    )  # fmt: skip
    try:
        assert broker.publish([message]) == []
        source = broker.reports(prefetch=10)
        assert source.receive(0.1) == []
        source.close()
    finally:
        broker.close()
    assert is_quorum(empty, queue_for(kind))
    assert is_quorum(empty, "status.update")
    assert not is_quorum(empty, "worker.heartbeat")
    with empty.connect() as connection, connection.channel() as channel:
        assert channel.basic_get(queue_for(kind), no_ack=True) is not None


def test_a_worker_refuses_a_queue_of_the_other_type_and_says_what_to_do(empty):
    kind = f"t{uuid4().hex[:8]}"
    with Connection(empty.url) as connection:
        require(connection, shared_queues([kind], "classic"), "classic")
        with pytest.raises(QueueTypeDiffers, match=f"rabbitmqctl delete_queue {queue_for(kind)}"):
            require(connection, shared_queues([kind], "quorum"), "quorum")


def test_a_dispatcher_names_the_queue_and_its_messages_pass_all_the_same(empty, caplog):
    queue = queue_for(f"t{uuid4().hex[:8]}")
    first, second = (from_url(empty.url, queue_type=name, confirm_seconds=10) for name in ("classic", "quorum"))
    try:
        first.declare([queue])
        with caplog.at_level(logging.ERROR):
            second.declare([queue])
    finally:
        first.close()
        second.close()
    assert f"rabbitmqctl delete_queue {queue}" in caplog.text


def test_an_ingest_says_what_to_do_about_a_report_queue_of_the_other_type(empty):
    with Connection(empty.url) as connection:
        require(connection, [report_queue("classic")], "classic")
    source = KombuReports(empty.url, prefetch=10, queue_type="quorum")
    try:
        with pytest.raises(BrokerAway, match=r"rabbitmqctl delete_queue status\.update"):
            source.receive(0.1)
    finally:
        source.close()


def test_a_broker_that_is_away_is_no_reason_to_refuse():
    with Connection("amqp://guest:guest@127.0.0.1:9//") as connection:
        require(connection, shared_queues(["default"], "quorum"), "quorum")
