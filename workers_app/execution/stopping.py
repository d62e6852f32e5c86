"""Bodies that must not go on: asked first, ended when their grace is over.

A body in a process of its own is killed. One in a thread of this process is interrupted, again and again, at growing
intervals: it may be cleaning up, or stand where nothing reaches it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import Final
from uuid import UUID

from workers_app.execution import interruption
from workers_app.execution.registry import RecordView, Registry, State, StopReason, boottime_ns
from workers_app.metrics import BODIES_ENDED

ACTIVE: Final = (State.GRANTED, State.STARTED)
#: Between the first and the second interruption; each further one waits twice as long, up to the other.
INTERRUPTED_AGAIN_SECONDS: Final = 0.5
INTERRUPTED_AGAIN_SECONDS_MAX: Final = 10.0


class Stopping:
    """What one worker was told to stop. A kill never hits the next attempt in the same child: see `table`."""

    def __init__(self, registry: Registry, grace_seconds: float) -> None:
        """grace_seconds: between asking and killing."""
        self._registry = registry
        self._grace_seconds = grace_seconds
        #: When (monotonic) bodies that were asked to stop are killed.
        self._kills: dict[UUID, float] = {}
        #: How long each interrupted body is left alone next time.
        self._pauses: dict[UUID, float] = {}
        #: What is to be stopped as soon as it begins: it is on its way through the pool.
        self._ahead: dict[UUID, StopReason] = {}

    def active(self) -> dict[UUID, RecordView]:
        """Bodies under way, by nonce."""
        return {UUID(bytes=view.nonce): view for view in self._registry.snapshot() if view.state in ACTIVE}

    def ask(self, view: RecordView, reason: StopReason) -> None:
        """Ask a body to stop, once; it is ended after its grace. One that may outlive its lease is left alone then."""
        nonce = UUID(bytes=view.nonce)
        if nonce in self._kills or (reason is StopReason.LEASE and view.keep_running):
            return
        self._registry.request_stop(view.nonce, reason)
        BODIES_ENDED.labels(reason=reason.name.lower()).inc()
        at_once = reason is StopReason.LEASE or (view.in_worker and reason is StopReason.TIMEOUT)
        grace = 0.0 if at_once else self._grace_seconds
        # A shell body needs its own grace inside this one: TERM, then KILL by its supervisor.
        self._kills[nonce] = time.monotonic() + grace * 1.5

    def when_begun(self, nonces: Collection[UUID], reason_of: Callable[[UUID], StopReason]) -> None:
        """Ask these to stop as soon as they begin."""
        for nonce in nonces:
            self._ahead[nonce] = reason_of(nonce)

    def forget(self, nonce: UUID) -> None:
        """It has ended."""
        self._kills.pop(nonce, None)
        self._pauses.pop(nonce, None)

    def ask_overdue_threads(self) -> None:
        """Ask the threads of this process that are past their deadline: nobody else holds it for them.

        (A shell command's supervisor does, so that its output is kept.) And all of them shortly before the lease ends,
        which would end this whole process if a body was still there.
        """
        now_ns = boottime_ns()
        lease_ends = now_ns >= self._registry.lease_until_ns - int(self._grace_seconds * 1e9)
        for view in self.active().values():
            if lease_ends:
                self.ask(view, StopReason.LEASE)
            elif not view.shell and 0 < view.deadline_ns <= now_ns:
                self.ask(view, StopReason.TIMEOUT)

    def look(self, on_the_way: Callable[[Collection[UUID]], Collection[UUID]]) -> None:
        """Ask those that began meanwhile, and kill those whose grace is over.

        on_the_way: which of these the pool still has. It is asked before the table is read, the way that attempts go.
        """
        if self._ahead:
            awaited = dict(self._ahead)
            still = set(on_the_way(awaited.keys()))
            active = self.active()
            for nonce, reason in awaited.items():
                if nonce in active:
                    self.ask(active[nonce], reason)
                if nonce in active or nonce not in still:
                    self._ahead.pop(nonce, None)
        self.kill_overdue()

    def kill_overdue(self) -> None:
        """Kill, or interrupt, those whose grace is over."""
        now = time.monotonic()
        due = [nonce for nonce, when in list(self._kills.items()) if when <= now]
        if not due:
            return
        active = self.active()
        for nonce in due:
            view = active.get(nonce)
            if view is not None and view.in_worker:
                self._interrupt(view, nonce, now)
            elif view is None or not self._registry.kill(view):
                self.forget(nonce)

    def _interrupt(self, view: RecordView, nonce: UUID, now: float) -> None:
        # The first reason that was written: it is what the body's end is judged by.
        if interruption.interrupt(view.nonce, view.stop_reason.name.lower()):
            pause = self._pauses.get(nonce, INTERRUPTED_AGAIN_SECONDS)
            self._kills[nonce] = now + pause
            self._pauses[nonce] = min(INTERRUPTED_AGAIN_SECONDS_MAX, pause * 2)
