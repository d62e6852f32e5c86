"""What makes Redis lists cheaper in a worker's main process, on the brokers themselves."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from celery import Celery
from celery.worker.request import Request
from kombu import Connection, Queue

from tests.servers import RabbitMQServer, RedisServer
from workers_app.execution.redis_lists import acknowledge_all, keep_client

QUEUE = Queue("acknowledging", routing_key="acknowledging", durable=True)


class Consumer:
    """One connection that has taken messages and holds them."""

    def __init__(self, url: str) -> None:
        self.app = Celery(broker=url, set_as_current=False)
        self.connection = Connection(url)
        self.channel = self.connection.channel()
        self.requests: list[Request] = []

    def take(self, count: int) -> list[Request]:
        with self.connection.Producer() as producer:
            for number in range(count):
                producer.publish(
                    [[number], {}, {}], routing_key="acknowledging", declare=[QUEUE],
                    headers={"task": "a.task", "id": f"id-{number}", "lang": "py"},
                )  # fmt: skip
        consumer = self.connection.Consumer([QUEUE], channel=self.channel, callbacks=[self._received])
        consumer.qos(prefetch_count=count)
        with consumer:
            while len(self.requests) < count:
                self.connection.drain_events(timeout=10)
        return self.requests

    def _received(self, _body: Any, message: Any) -> None:
        self.requests.append(
            Request(
                message, app=self.app, on_ack=message.ack_log_error, task=Celery(set_as_current=False).Task(),
                connection_errors=self.connection.connection_errors, hostname="here",
            )
        )  # fmt: skip


@pytest.fixture
def on_redis(redis_server: RedisServer) -> Iterator[Consumer]:
    consumer = Consumer(redis_server.url)
    yield consumer
    consumer.connection.release()
    redis.Redis.from_url(redis_server.url).flushdb()


def kept(server: RedisServer) -> tuple[int, int]:
    client = redis.Redis.from_url(server.url)
    return int(client.hlen("unacked")), int(client.zcard("unacked_index"))


def test_redis_keeps_nothing_of_what_was_acknowledged_together(on_redis: Consumer, redis_server: RedisServer):
    requests = on_redis.take(5)
    assert kept(redis_server) == (5, 5)
    acknowledge_all(requests[:4])
    assert kept(redis_server) == (1, 1), "the fifth was not among them"
    assert all(one.acknowledged and one.message.acknowledged for one in requests[:4])
    qos = on_redis.requests[0].message.channel.qos
    qos._flush()
    assert list(qos._delivered) == [requests[4].message.delivery_tag], "four may be read in their place"


def test_it_is_one_exchange_with_redis(on_redis: Consumer, redis_server: RedisServer):
    requests = on_redis.take(6)
    client = redis.Redis.from_url(redis_server.url)
    before = client.info("commandstats")["cmdstat_exec"]["calls"]
    acknowledge_all(requests)
    assert client.info("commandstats")["cmdstat_exec"]["calls"] - before == 1


def test_what_was_acknowledged_already_is_left_alone(on_redis: Consumer, redis_server: RedisServer):
    requests = on_redis.take(2)
    requests[0].acknowledge()
    acknowledge_all(requests)
    assert kept(redis_server) == (0, 0)


def test_a_connection_that_broke_is_logged_and_redis_keeps_them(
    on_redis: Consumer, redis_server: RedisServer, caplog: pytest.LogCaptureFixture
):
    requests = on_redis.take(2)
    channel = requests[0].message.channel

    def refuse(*_: Any, **__: Any) -> Any:
        raise redis.ConnectionError("cut")

    channel.pool.get_connection = refuse
    with caplog.at_level(logging.CRITICAL):
        acknowledge_all(requests)
    del channel.pool.get_connection
    assert "could not be acknowledged" in caplog.text
    assert not requests[0].message.acknowledged
    assert kept(redis_server) == (2, 2), "they come again, and their permits refuse them"


def test_on_rabbitmq_each_goes_its_usual_way(rabbitmq: RabbitMQServer):
    consumer = Consumer(rabbitmq.url)
    try:
        requests = consumer.take(3)
        acknowledge_all(requests)
        assert all(one.message.acknowledged for one in requests)
        consumer.connection.release()
        with Connection(rabbitmq.url) as again:
            assert QUEUE(again.default_channel).get() is None
    finally:
        rabbitmq.delete_all_queues()


def test_a_channel_uses_one_client_for_as_long_as_it_has_its_connections(on_redis: Consumer, redis_server: RedisServer):
    keep_client(on_redis.channel)
    first = on_redis.channel._create_client()
    requests = on_redis.take(2)
    assert on_redis.channel._create_client() is first
    on_redis.channel._disconnect_pools()
    assert on_redis.channel._create_client() is not first, "its connections are closed"
    acknowledge_all(requests)
    assert kept(redis_server) == (0, 0)


def test_channels_of_other_brokers_are_left_as_they_are(rabbitmq: RabbitMQServer):
    with Connection(rabbitmq.url) as connection:
        channel = connection.channel()
        before = dict(vars(channel))
        keep_client(channel)
        assert vars(channel) == before
