"""Asking bodies to stop, and killing those that do not: with a real table and real processes."""

from __future__ import annotations

from contextlib import contextmanager
from uuid import UUID

import pytest

from tests.processes import alive, forked, until
from tests.unit.test_registry import nonce, registry, sleep_for_ever, start_one
from workers_app.execution.registry import StopReason
from workers_app.execution.stopping import Stopping

RUN = 7
NONCE = UUID(bytes=nonce(RUN))


@pytest.fixture
def table():
    return registry()


@contextmanager
def body(table, *, keep_running: bool = False):
    """A process in which a body runs."""

    def run() -> None:
        start_one(table.take_seat(), RUN, keep_running=keep_running)
        sleep_for_ever()

    with forked(run) as pid:
        until(lambda: any(view.started_ns for view in table.snapshot()), "the body to begin")
        yield pid


def reason_in(table) -> StopReason:
    [view] = table.snapshot()
    return view.stop_reason


def test_a_body_is_asked_first_and_killed_when_its_grace_is_over(table):
    with body(table) as pid:
        stopping = Stopping(table, grace_seconds=0.1)
        stopping.ask(stopping.active()[NONCE], StopReason.CANCEL)
        stopping.look(lambda _: ())
        assert alive(pid)
        assert reason_in(table) is StopReason.CANCEL
        until(lambda: stopping.look(lambda _: ()) or not alive(pid), "the kill")


def test_what_is_on_its_way_is_stopped_when_it_begins(table):
    stopping = Stopping(table, grace_seconds=60)
    stopping.when_begun([NONCE], lambda _: StopReason.CANCEL)
    stopping.look(list)
    with body(table):
        stopping.look(list)
        assert reason_in(table) is StopReason.CANCEL


def test_what_never_begins_is_awaited_no_longer_than_the_pool_has_it(table):
    stopping = Stopping(table, grace_seconds=60)
    stopping.when_begun([NONCE], lambda _: StopReason.CANCEL)
    stopping.look(lambda _: ())
    with body(table):
        stopping.look(lambda _: ())
        assert reason_in(table) is StopReason.NONE


def test_a_body_that_may_outlive_its_lease_is_left_alone_then_and_only_then(table):
    with body(table, keep_running=True) as pid:
        stopping = Stopping(table, grace_seconds=60)
        view = stopping.active()[NONCE]
        stopping.ask(view, StopReason.LEASE)
        stopping.kill_overdue()
        assert alive(pid)
        assert reason_in(table) is StopReason.NONE
        stopping.ask(view, StopReason.CANCEL)
        assert reason_in(table) is StopReason.CANCEL


def test_a_lease_that_is_over_leaves_no_grace(table):
    with body(table) as pid:
        stopping = Stopping(table, grace_seconds=60)
        stopping.ask(stopping.active()[NONCE], StopReason.LEASE)
        until(lambda: stopping.kill_overdue() or not alive(pid), "the kill")
