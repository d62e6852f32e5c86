"""Ending a body that runs in a thread of the worker's own process, by an exception that is raised inside it.

A thread cannot be killed. CPython can be told to raise an exception in another thread before that thread's next
instruction; it is all there is. So it reaches Python code, and waits for what blocks in C code to return. A body may
catch it (it is no `Exception`, so that only those do who mean to), and its `finally` takes the time that it takes: the
caller comes again, at growing intervals.

It must hit the body and nothing else. Between Celery's `task_prerun` and `task_postrun` the thread is *inside*: Celery
has pushed what it pops again in a `finally`, and nothing of ours runs. Whoever interrupts holds the lock and looks
whether the thread is inside; whoever leaves takes the lock, and withdraws what was raised and has not arrived. What the
platform does for a body in between (a report on its way out) is shielded in the same way.
"""

from __future__ import annotations

import contextlib
import ctypes
import threading
from collections.abc import Iterator
from typing import ClassVar, Final, Self


class Interruption(BaseException):
    """The platform ends this body. `stop_reason` says why; a body may clean up, and should let it pass."""

    stop_reason: ClassVar[str]


class Cancelled(Interruption):
    """Somebody cancelled the run."""

    stop_reason = "cancel"


class TimedOut(Interruption):
    """The run's timeout is over."""

    stop_reason = "timeout"


class LeaseOver(Interruption):
    """The worker cannot renew its lease."""

    stop_reason = "lease"


class Drained(Interruption):
    """The worker shuts down."""

    stop_reason = "drain"


KINDS: Final = {kind.stop_reason: kind for kind in (Cancelled, TimedOut, LeaseOver, Drained)}

_lock = threading.Lock()
_bodies: dict[bytes, Body] = {}
_here = threading.local()


class Body:
    """The body of one attempt in the present thread, for as long as the `with` lasts."""

    __slots__ = ("_celery_id", "_inside", "_nonce", "_thread", "interrupted")

    def __init__(self, nonce: bytes, celery_id: str) -> None:
        """celery_id: of the delivery; what the body calls itself has others, and the same signals."""
        self._nonce, self._celery_id = nonce, celery_id
        self._thread = threading.get_ident()
        self._inside = False
        self.interrupted = False

    def __enter__(self) -> Self:
        _here.body = self
        with _lock:
            _bodies[self._nonce] = self
        return self

    def __exit__(self, *_: object) -> None:
        self.leave(self._celery_id)
        with _lock:
            del _bodies[self._nonce]
        _here.body = None

    def enter(self, celery_id: str) -> None:
        """It may be interrupted from now on."""
        if celery_id == self._celery_id:
            with _lock:
                self._inside = True

    def leave(self, celery_id: str) -> None:
        """It cannot be any more; what was raised and has not arrived does not."""
        while celery_id == self._celery_id:
            try:
                with _lock:
                    self._inside = False
                    _raise_in(self._thread, None)
            except Interruption:
                continue
            return

    @contextlib.contextmanager
    def shield(self) -> Iterator[None]:
        """Not now. What was raised before arrives before this begins."""
        if not self._inside:
            yield
            return
        try:
            with _lock:
                self._inside = False
            yield
        finally:
            with _lock:
                self._inside = True

    def interrupt(self, reason: str) -> bool:
        """For `interrupt`, under the lock."""
        if self._inside:
            self.interrupted = True
            _raise_in(self._thread, KINDS[reason])
        return self._inside


def entered(task_id: str) -> None:
    """`task_prerun`: what a thread does from now on is a body."""
    body: Body | None = getattr(_here, "body", None)
    if body is not None:
        body.enter(task_id)


def left(task_id: str) -> None:
    """`task_postrun`: it is not any more."""
    body: Body | None = getattr(_here, "body", None)
    if body is not None:
        body.leave(task_id)


def shielded() -> contextlib.AbstractContextManager[None]:
    """For what the platform does on a body's thread while the body waits for it."""
    body: Body | None = getattr(_here, "body", None)
    return contextlib.nullcontext() if body is None else body.shield()


def interrupt(nonce: bytes, reason: str) -> bool:
    """Raise the reason's exception in the body of this attempt. False when its thread is not inside a body."""
    with _lock:
        body = _bodies.get(nonce)
        return body is not None and body.interrupt(reason)


def _raise_in(thread: int, kind: type[Interruption] | None) -> None:
    """None: withdraw what has not arrived."""
    exception = ctypes.py_object() if kind is None else ctypes.py_object(kind)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), exception)
