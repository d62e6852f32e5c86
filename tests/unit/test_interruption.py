"""Raising an exception in another thread's body, and nowhere else in that thread."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import pytest

from tests.processes import until
from workers_app.execution import interruption
from workers_app.execution.interruption import Body, Cancelled, Interruption, TimedOut

NONCE, CELERY_ID = b"n" * 16, "a-delivery"


class Thread:
    """A thread in which a body runs between the two signals, and what it ended with."""

    def __init__(self, body: Callable[[], object], after: Callable[[], object] = lambda: None) -> None:
        self.ended: BaseException | None = None
        self.body, self.after = body, after
        self.begun = threading.Event()
        self.interrupted = False
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()
        assert self.begun.wait(5)

    def run(self) -> None:
        body = Body(NONCE, CELERY_ID)
        try:
            with body:
                try:
                    interruption.entered(CELERY_ID)
                    self.begun.set()
                    self.body()
                finally:
                    interruption.left(CELERY_ID)
                    self.after()
        except BaseException as error:
            self.ended = error
        self.interrupted = body.interrupted

    def join(self) -> None:
        self.thread.join(10)
        assert not self.thread.is_alive()


def compute() -> None:
    while True:
        sum(range(100))


@pytest.mark.parametrize(("reason", "kind"), [("cancel", Cancelled), ("timeout", TimedOut)])
def test_a_body_that_computes_ends_by_the_exception_of_its_reason(reason, kind):
    thread = Thread(compute)
    assert interruption.interrupt(NONCE, reason)
    thread.join()
    assert isinstance(thread.ended, kind)
    assert thread.interrupted


def test_a_body_may_clean_up_and_one_that_catches_everything_is_interrupted_again():
    cleaned: list[str] = []

    def stubborn() -> None:
        with suppress(BaseException):
            compute()
        cleaned.append("once")
        compute()

    thread = Thread(stubborn)
    assert interruption.interrupt(NONCE, "cancel")
    until(lambda: cleaned, "the first one to arrive")
    assert interruption.interrupt(NONCE, "cancel")
    thread.join()
    assert isinstance(thread.ended, Cancelled)


def test_what_blocks_in_c_code_ends_when_it_returns():
    lock = threading.Lock()
    lock.acquire()
    returned: list[bool] = []

    def blocked() -> None:
        lock.acquire()
        returned.append(True)
        compute()

    thread = Thread(blocked)
    assert interruption.interrupt(NONCE, "cancel")
    time.sleep(0.05)
    assert thread.ended is None
    lock.release()
    thread.join()
    assert isinstance(thread.ended, Cancelled)


def test_nothing_is_raised_outside_of_a_body():
    go_on = threading.Event()
    thread = Thread(lambda: None, after=lambda: go_on.wait(10))
    until(lambda: not interruption.interrupt(NONCE, "cancel"), "the body to be left")
    go_on.set()
    thread.join()
    assert not interruption.interrupt(NONCE, "cancel"), "its attempt is over"


def test_what_is_raised_and_has_not_arrived_when_the_body_is_left_never_arrives():
    """Many bodies that end by themselves at the very moment at which they are interrupted."""
    strays: list[BaseException] = []

    def bodies() -> None:
        # At least so many, and until some were hit: on a busy machine the two threads may miss each other for long.
        while next(rounds) < 3000 or (not raised and time.monotonic() < until_at):
            with suppress(Interruption), Body(NONCE, CELERY_ID):
                try:
                    interruption.entered(CELERY_ID)
                finally:
                    interruption.left(CELERY_ID)
                    try:
                        sum(range(50))
                    except Interruption as stray:
                        strays.append(stray)
        over.set()

    over = threading.Event()
    raised: list[bool] = []
    rounds, until_at = itertools.count(), time.monotonic() + 20
    thread = threading.Thread(target=bodies, daemon=True)
    thread.start()
    while not over.is_set() and thread.is_alive():
        if interruption.interrupt(NONCE, "cancel"):
            raised.append(True)
    thread.join(10)
    assert over.is_set(), "it left the place where it is expected"
    assert not strays
    assert raised


def test_what_a_body_calls_itself_does_not_end_its_being_interruptible():
    def calls_another() -> None:
        interruption.entered("another")
        interruption.left("another")
        compute()

    thread = Thread(calls_another)
    until(lambda: interruption.interrupt(NONCE, "cancel"), "the body to be interrupted")
    thread.join()
    assert isinstance(thread.ended, Cancelled)


def test_what_the_platform_does_for_a_body_is_not_interrupted():
    inside, go_on = threading.Event(), threading.Event()
    done: list[bool] = []

    def reports() -> None:
        with interruption.shielded():
            inside.set()
            go_on.wait(10)
            done.append(True)
        compute()

    thread = Thread(reports)
    assert inside.wait(5)
    assert not interruption.interrupt(NONCE, "cancel")
    go_on.set()
    until(lambda: interruption.interrupt(NONCE, "cancel"), "the body to go on")
    thread.join()
    assert done == [True]
    assert isinstance(thread.ended, Cancelled)
