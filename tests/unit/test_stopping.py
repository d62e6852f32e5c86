"""Asking bodies to stop, and killing those that do not: with a real table and real processes."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from uuid import UUID

import pytest

from tests.processes import alive, forked, until
from tests.unit.test_registry import nonce, registry, sleep_for_ever, start_one
from workers_app.execution import interruption
from workers_app.execution.registry import StopReason, boottime_ns
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


# -- bodies in threads of this process ---------------------------------------------------------------------------------


@contextmanager
def thread(table, *, seconds: float = 0.0, shell: bool = False):
    """A thread that computes as a body with so much time; yields what it ended with, in a list."""
    ends: list[BaseException | None] = []
    begun, leave = threading.Event(), threading.Event()

    def run() -> None:
        record = table.take_seat(in_worker=True).register(RUN, 1, bytes(16), NONCE.bytes)
        assert record.grant(boottime_ns() + int(seconds * 1e9) if seconds else 0, shell=shell)
        assert record.start()
        try:
            with interruption.Body(NONCE.bytes, "it"):
                interruption.entered("it")
                begun.set()
                while not leave.is_set():
                    sum(range(100))
                interruption.left("it")
        except interruption.Interruption as end:
            ends.append(end)
        record.finish()

    one = threading.Thread(target=run, daemon=True)
    one.start()
    assert begun.wait(5)
    yield ends
    leave.set()
    one.join(5)
    assert not one.is_alive()


def test_a_thread_is_interrupted_where_a_process_would_be_killed(table):
    with thread(table) as ends:
        stopping = Stopping(table, grace_seconds=0.1)
        stopping.ask(stopping.active()[NONCE], StopReason.CANCEL)
        stopping.look(lambda _: ())
        assert not ends, "it has its grace"
        until(lambda: stopping.look(lambda _: ()) or ends, "the interruption")
        assert ends[0].stop_reason == "cancel"


def test_a_thread_is_never_killed(table):
    with thread(table), pytest.raises(ValueError, match="cannot be killed"):
        table.kill(Stopping(table, 1.0).active()[NONCE])


def test_the_deadline_of_a_thread_is_held_here_and_that_of_a_command_by_its_supervisor(table):
    with thread(table, seconds=0.1) as ends:
        stopping = Stopping(table, grace_seconds=0.01)
        stopping.ask_overdue_threads()
        assert reason_in(table) is StopReason.NONE
        until(lambda: stopping.ask_overdue_threads() or stopping.look(lambda _: ()) or ends, "the timeout")
        assert ends[0].stop_reason == "timeout"
    with thread(table, seconds=0.01, shell=True) as ends:
        time.sleep(0.05)
        stopping.ask_overdue_threads()
        assert {view.stop_reason for view in table.snapshot() if view.shell} == {StopReason.NONE}


def test_threads_are_ended_before_the_lease_ends_the_whole_worker(table):
    with thread(table) as ends:
        stopping = Stopping(table, grace_seconds=1.0)
        table.set_lease(boottime_ns() + 2 * 10**9)
        stopping.ask_overdue_threads()
        assert reason_in(table) is StopReason.NONE
        table.set_lease(boottime_ns() + 10**9 // 2)
        until(lambda: stopping.ask_overdue_threads() or stopping.look(lambda _: ()) or ends, "the interruption")
        assert ends[0].stop_reason == "lease"
        assert table.lease_valid()


def test_a_thread_that_is_asked_twice_has_its_first_reason(table):
    with thread(table) as ends:
        stopping = Stopping(table, grace_seconds=0.1)
        stopping.ask(stopping.active()[NONCE], StopReason.CANCEL)
        stopping.ask(stopping.active()[NONCE], StopReason.DRAIN)
        until(lambda: stopping.look(lambda _: ()) or ends, "the interruption")
        assert ends[0].stop_reason == "cancel"
