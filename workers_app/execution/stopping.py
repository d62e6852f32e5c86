"""Bodies that must not go on: asked first, killed when their grace is over."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import Final
from uuid import UUID

from workers_app.execution.registry import RecordView, Registry, State, StopReason
from workers_app.metrics import BODIES_ENDED

ACTIVE: Final = (State.GRANTED, State.STARTED)


class Stopping:
    """What one worker was told to stop. A kill never hits the next attempt in the same child: see `table`."""

    def __init__(self, registry: Registry, grace_seconds: float) -> None:
        """grace_seconds: between asking and killing."""
        self._registry = registry
        self._grace_seconds = grace_seconds
        #: When (monotonic) bodies that were asked to stop are killed.
        self._kills: dict[UUID, float] = {}
        #: What is to be stopped as soon as it begins: it is on its way through the pool.
        self._ahead: dict[UUID, StopReason] = {}

    def active(self) -> dict[UUID, RecordView]:
        """Bodies under way, by nonce."""
        return {UUID(bytes=view.nonce): view for view in self._registry.snapshot() if view.state in ACTIVE}

    def ask(self, view: RecordView, reason: StopReason) -> None:
        """Ask a body to stop, once; it is killed after its grace. One that may outlive its lease is left alone then."""
        nonce = UUID(bytes=view.nonce)
        if nonce in self._kills or (reason is StopReason.LEASE and view.keep_running):
            return
        self._registry.request_stop(view.nonce, reason)
        BODIES_ENDED.labels(reason=reason.name.lower()).inc()
        grace = 0.0 if reason is StopReason.LEASE else self._grace_seconds
        # A shell body needs its own grace inside this one: TERM, then KILL by its supervisor.
        self._kills[nonce] = time.monotonic() + grace * 1.5

    def when_begun(self, nonces: Collection[UUID], reason_of: Callable[[UUID], StopReason]) -> None:
        """Ask these to stop as soon as they begin."""
        for nonce in nonces:
            self._ahead[nonce] = reason_of(nonce)

    def forget(self, nonce: UUID) -> None:
        """It has ended."""
        self._kills.pop(nonce, None)

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
        """Kill those whose grace is over."""
        now = time.monotonic()
        due = [nonce for nonce, when in list(self._kills.items()) if when <= now]
        if not due:
            return
        active = self.active()
        for nonce in due:
            if nonce not in active or not self._registry.kill(active[nonce]):
                self._kills.pop(nonce, None)
