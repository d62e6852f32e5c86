"""The database's clock, also where the database is away."""

from __future__ import annotations

import socket
from datetime import UTC, datetime, timedelta

import pytest
from django.db import OperationalError, connection, connections

import tasks_app.clock
from tasks_app.clock import DatabaseClock

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.postgresql_only]


def nowhere():
    """A database at a port where nobody listens."""
    other = connections["default"].copy()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        other.settings_dict = other.settings_dict | {"HOST": "127.0.0.1", "PORT": free.getsockname()[1]}
    return other


@pytest.fixture
def away(monkeypatch):
    """From now on the clock's database is away."""
    return lambda: monkeypatch.setattr(tasks_app.clock, "connection", nowhere())


def near(instant: datetime) -> bool:
    return abs(instant - datetime.now(UTC)) < timedelta(seconds=60)


def test_a_clock_that_was_read_goes_on_without_the_database(away):
    clock = DatabaseClock(resync_seconds=0.0)
    before = clock.now()
    away()
    assert near(before)
    assert before <= clock.now() < before + timedelta(seconds=60)


def test_a_clock_that_was_never_read_says_so(away):
    away()
    with pytest.raises(OperationalError):
        DatabaseClock().now()


def test_a_pool_process_tells_the_time_before_it_could_ask_and_asks_again(away, monkeypatch):
    away()
    clock = DatabaseClock(host_until_read=True)
    monkeypatch.setattr(tasks_app.clock, "RETRY_SECONDS", 0.0)
    assert near(clock.now())
    monkeypatch.setattr(tasks_app.clock, "connection", connection)
    monkeypatch.setattr(DatabaseClock, "_read", staticmethod(lambda: datetime(2001, 1, 1, tzinfo=UTC)))
    assert clock.now().year == 2001
