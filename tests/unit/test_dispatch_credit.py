"""How many messages may wait at the broker."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from dispatch.circuit import Circuit
from dispatch.credit import LookAhead, QueueLoad

AT = datetime(2030, 1, 1, tzinfo=UTC)


def busy(*, dispatched: int = 0, permitted: int = 1, waited: float = 0.01, **values: object) -> QueueLoad:
    return QueueLoad(2, 2, dispatched, permitted=permitted, permitted_wait_seconds=waited, **values)  # type: ignore[arg-type]


def test_a_queue_without_workers_gets_nothing():
    assert LookAhead(64).credit(QueueLoad(0, 0, 0), 0.0) == 0


def test_each_free_slot_is_worth_two_messages_less_what_waits():
    ahead = LookAhead(64)
    assert ahead.credit(QueueLoad(4, 1, 0), 0.0) == 6
    assert ahead.credit(QueueLoad(4, 1, 5), 1.0) == 1
    assert ahead.credit(QueueLoad(4, 4, 0), 2.0) == 0
    assert ahead.credit(QueueLoad(4, 9, 3), 3.0) == 0


def test_a_queue_of_long_jobs_gets_nothing_ahead_of_its_slots():
    ahead = LookAhead(64)
    ahead.claimed(4, ahead.credit(QueueLoad(2, 0, 0), 0.0))
    for second in range(1, 100):
        # Two run, two wait, for ever longer; every tenth second both are replaced.
        waited = float(second % 10)
        load = QueueLoad(2, 2, 2, waited, permitted=2 if second % 10 == 0 else 0, permitted_wait_seconds=9.0)
        assert ahead.credit(load, float(second)) == 0
        assert ahead.ahead == 0


def test_a_queue_that_drains_fast_reaches_its_limit_in_a_few_looks():
    ahead = LookAhead(64)
    looks = 0
    at = 10.0
    while ahead.ahead < 128:
        credit = ahead.credit(busy(), at)
        ahead.claimed(credit, credit)
        looks, at = looks + 1, at + 0.005
        assert looks < 10
    ahead.credit(busy(), at)
    assert ahead.ahead == 128


def test_a_look_ahead_is_filled_up_only_when_half_of_it_is_used():
    ahead = LookAhead(64)
    ahead.ahead = 100
    assert ahead.credit(busy(dispatched=80, waited=0.5), 0.0) == 0
    assert ahead.credit(busy(dispatched=51, waited=0.5), 1.0) == 0
    assert ahead.credit(busy(dispatched=50, waited=0.5), 2.0) == 50
    # A free slot is not kept waiting.
    assert ahead.credit(QueueLoad(2, 1, 80, permitted=1, permitted_wait_seconds=0.5), 3.0) == 22


def test_the_next_look_comes_before_the_queue_runs_dry():
    ahead = LookAhead(64)
    assert ahead.pause_seconds() == 0.005
    ahead.credit(busy(waited=0.1), 0.0)
    assert ahead.pause_seconds() == pytest.approx(0.025)
    ahead.credit(busy(waited=5.0), 1.0)
    assert ahead.pause_seconds() == 0.05


def test_it_does_not_grow_while_the_window_is_not_used():
    ahead = LookAhead(64)
    credit = ahead.credit(QueueLoad(2, 0, 0, permitted=1), 10.0)
    ahead.claimed(credit - 1, credit)
    ahead.credit(QueueLoad(2, 0, 0, permitted=1), 11.0)
    assert ahead.ahead == 0


def test_it_halves_while_messages_wait_long_and_does_not_grow_soon_after():
    ahead = LookAhead(64)
    ahead.ahead = 100
    ahead.credit(busy(dispatched=100, waited=1.5), 10.0)
    assert ahead.ahead == 50
    ahead.credit(busy(dispatched=50, waited=0.01), 10.5)
    assert ahead.ahead == 50
    ahead.credit(busy(dispatched=50, waited=0.01), 13.0)
    assert ahead.ahead == 104


def test_it_shrinks_to_nothing_when_nobody_permits_anything():
    ahead = LookAhead(64)
    ahead.ahead = 100
    for at in range(10):
        ahead.credit(QueueLoad(2, 2, 100, 2.0), float(at))
    assert ahead.ahead == 0


def test_messages_that_were_overtaken_are_told_apart():
    ahead = LookAhead(64)
    ahead.credit(busy(newest_permitted=AT), 0.0)
    assert ahead.overtaken_before == AT - timedelta(seconds=1)
    ahead.credit(busy(newest_permitted=AT - timedelta(seconds=30)), 1.0)
    assert ahead.overtaken_before == AT - timedelta(seconds=1)


def test_the_limit_follows_the_slots_down():
    ahead = LookAhead(10)
    ahead.ahead = 40
    ahead.credit(QueueLoad(1, 1, 0), 0.0)
    assert ahead.ahead == 10


def test_a_circuit_waits_twice_as_long_after_each_failure_up_to_its_limit():
    circuit = Circuit(0.1, 2.0)
    assert not circuit.open(0.0)
    assert circuit.failed(0.0)
    waits = []
    at = 0.0
    for _ in range(7):
        waits.append(circuit.wait_seconds(at))
        at += circuit.wait_seconds(at)
        assert not circuit.open(at)
        assert not circuit.failed(at)
    assert waits == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0])
    assert circuit.succeeded()
    assert not circuit.failing
    assert not circuit.succeeded()
