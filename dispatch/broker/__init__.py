"""The port to the broker and its adapters.

The broker is a doorbell: whatever it holds can be made again from the database. So an adapter promises only one thing,
and that strictly: a message that `publish` does *not* return was taken over by the broker and routed to a queue. For a
message that it returns nothing is known; the dispatcher takes the claim back, and should the message have got through
all the same, its token is out of date and the permit refuses it.

* `port`    what dispatcher and ingest ask of a broker
* `amqp`    RabbitMQ: a batch is written in one go and its confirms are awaited together
* `redis`   Redis and Valkey in the wire format of kombu's stock transport, and in that of `redis_stream`
* `redis_stream` a Kombu transport on Redis Streams, for any Celery app
* `reports` taking reports and heartbeats from each of them, by kombu
* `memory`  in this process, for tests

Adapters may fail in any way below `publish`, and are not left broken by it: the next call connects again. One contract
suite runs over all of them.
"""

from dispatch.broker.port import Broker, BrokerAway, Delivery, ReportSource
from tasks_app.messages.compression import ABOVE_BYTES

__all__ = ["Broker", "BrokerAway", "Delivery", "ReportSource", "from_url"]


def from_url(
    url: str,
    *,
    confirm_seconds: float = 10.0,
    queue_type: str = "classic",
    compress_above_bytes: int = ABOVE_BYTES,
) -> Broker:
    """The adapter for a broker's URL. Raises ValueError for a scheme that none knows."""
    scheme = url.partition(":")[0]
    if scheme in {"amqp", "amqps", "pyamqp"}:
        from dispatch.broker.amqp import AmqpBroker

        return AmqpBroker(
            url, confirm_seconds=confirm_seconds, queue_type=queue_type, compress_above_bytes=compress_above_bytes
        )
    if scheme in {"redis", "rediss"}:
        from dispatch.broker.redis import RedisBroker

        return RedisBroker(url, timeout_seconds=confirm_seconds, compress_above_bytes=compress_above_bytes)
    if scheme in {"redis-stream", "rediss-stream"}:
        from dispatch.broker.redis import RedisStreamBroker

        return RedisStreamBroker(url, timeout_seconds=confirm_seconds, compress_above_bytes=compress_above_bytes)
    raise ValueError(
        f'no adapter for the broker scheme "{scheme}"; use amqp://, redis:// or redis-stream:// (Valkey too)'
    )
