"""Each claim about the transport on streams can fail."""

from __future__ import annotations

import math

from tests.brokers.claims import CLAIMS, lost_value, ratio_value
from tests.brokers.cuts import Outcome

ROUNDS = [{"redis-stream": 1600.0 * drift, "redis": 700.0 * drift, "rabbitmq": 1700.0 * drift} for drift in (1, 0.7)]


def holds(claim_id: str, value: float) -> bool:
    [claim] = [one for one in CLAIMS if one.id == claim_id]
    return claim.holds(value)


def test_a_fast_drain_holds_and_a_slow_one_does_not():
    assert holds("broker.redis_stream.vs_stock", ratio_value(ROUNDS, "redis")[0])
    assert holds("broker.redis_stream.vs_rabbitmq", ratio_value(ROUNDS, "rabbitmq")[0])
    slow = [one | {"redis-stream": one["redis"] * 1.9} for one in ROUNDS]
    assert not holds("broker.redis_stream.vs_stock", ratio_value(slow, "redis")[0])
    assert not holds("broker.redis_stream.vs_rabbitmq", ratio_value(slow, "rabbitmq")[0])


def test_one_lost_message_is_too_many_and_nothing_struck_shows_nothing():
    stock = Outcome("redis", 1000, 25, 0, 5, 3)
    good = Outcome("redis-stream", 1000, 0, 4, 5, 3)
    value, detail = lost_value(good, stock)
    assert holds("broker.redis_stream.lost", value)
    assert "25 of 1,000 lost" in detail
    assert not holds("broker.redis_stream.lost", lost_value(Outcome("redis-stream", 1000, 1, 0, 5, 3), stock)[0])
    for idle in (Outcome("redis-stream", 1000, 0, 0, 0, 3), Outcome("redis-stream", 1000, 0, 0, 5, 0)):
        assert lost_value(idle, stock)[0] == math.inf
