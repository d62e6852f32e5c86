"""Compares the truth with leases and deadlines, every few seconds, in a thread with a database connection of its own.

Each tick: judge leases; end what incarnations hold whose lease is over; take back what was not permitted in time or
whose message the broker lost; ask for a stop of what runs past its deadline. Any number of reapers may do this at once:
each write is guarded by everything it was decided on, and sweeps skip rows that somebody else holds.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta

from django.db import Error as DatabaseFailure
from django.db import connection

from dispatch import control, metrics
from dispatch.broker.port import Broker, BrokerAway
from dispatch.conf import DispatchSettings
from dispatch.leases import Lease, LeaseWatch
from dispatch.missing import MissingMessages
from tasks_app import lifecycle
from tasks_app.clock import Clock
from tasks_app.crashpoints import reach
from tasks_app.models import TaskRun
from workers_app.models import WorkerIncarnation

logger = logging.getLogger(__name__)

_SWEEP = 500


class Reaper:
    """One reaper. `tick` is one round; `start` goes round in a thread."""

    def __init__(
        self,
        clock: Clock,
        settings: DispatchSettings,
        *,
        broker: Broker | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """broker: one of the reaper's own, asked for depths; without it lost messages come back by their deadline only.

        monotonic counts the leases.
        """
        self._clock, self._settings, self._monotonic = clock, settings, monotonic
        self._watch = LeaseWatch(settings.reaper_tick_seconds)
        self._broker = broker
        self._missing = MissingMessages(broker) if broker else None
        self._stopping = threading.Event()
        self._failing = False
        self._thread = threading.Thread(target=self._loop, name="signalbox-reaper", daemon=True)

    def start(self) -> None:
        """Begin in a thread."""
        self._thread.start()

    def stop(self, timeout: float = 5.0) -> None:
        """End after the round under way, waiting for it at most so long."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout)

    @property
    def alive(self) -> bool:
        """Whether the thread goes round."""
        return self._thread.is_alive()

    def tick(self, now: datetime) -> None:
        """One round. Raises django.db.Error while the database is away."""
        self._judge(now)
        self._end_lost(now)
        self._take_back(now)
        self._find_missing(now)
        self._stop_overdue(now)

    def _loop(self) -> None:
        while not self._stopping.is_set():
            began = self._monotonic()
            try:
                self.tick(self._clock.now())
            except DatabaseFailure as error:
                self._interrupted(f"{type(error).__name__}: {error}")
            except Exception:
                # The reaper is the last net: a defect in one round must not take it away.
                logger.exception("reaper round failed")
                self._interrupted("defect")
            else:
                if self._failing:
                    logger.info("reaper goes on, every lease began afresh")
                self._failing = False
                metrics.REAPER_TICKS.labels("ok").inc()
            self._stopping.wait(max(0.0, self._settings.reaper_tick_seconds - (self._monotonic() - began)))
        connection.close()
        if self._broker:
            self._broker.close()

    def _interrupted(self, why: str) -> None:
        connection.close()
        self._watch.interrupted()
        metrics.REAPER_TICKS.labels("failed").inc()
        if not self._failing:
            logger.warning("reaper cannot read, leases are not judged", extra={"error": why})
        self._failing = True

    def _judge(self, now: datetime) -> None:
        asked_at = self._monotonic()
        rows = list(WorkerIncarnation.objects.live().order_by().values_list("id", "counter", "lease_seconds"))
        over = self._watch.observe(
            {row[0]: Lease(row[1], row[2]) for row in rows}, asked_at=asked_at, answered_at=self._monotonic()
        )
        for incarnation_id, counter in sorted(over.items()):
            # The whole guard: renewed in the last moment, or judged by another reaper, it stays as it is.
            moved = WorkerIncarnation.objects.filter(pk=incarnation_id, counter=counter, over_at__isnull=True).update(
                over_at=now
            )
            if moved:
                metrics.LEASES_OVER.inc()
                logger.warning("worker lost: its lease is over", extra={"incarnation_id": str(incarnation_id)})
        if over:
            reach("reap.after_verdict")

    def _end_lost(self, now: datetime) -> None:
        # Runs first, incarnations second: whoever was permitted in between is live in the second answer.
        found = TaskRun.objects.running().order_by().values_list("incarnation_id", flat=True).distinct()
        holders = {holder for holder in found if holder is not None}
        live = set(WorkerIncarnation.objects.live().order_by().filter(pk__in=holders).values_list("pk", flat=True))
        gone = holders - live
        while gone and (ended := lifecycle.lose(gone, now=now, limit=_SWEEP)):
            metrics.REAPED.labels("lost").inc(len(ended))
            for end in ended:
                logger.warning(
                    "attempt lost",
                    extra={
                        "run_id": end.before.id, "attempt": end.before.attempt, "worker_id": end.before.worker_id,
                        "next": end.next.status.value,
                    },
                )  # fmt: skip

    def _take_back(self, now: datetime) -> None:
        while moved := lifecycle.retract_unpermitted(now=now, limit=_SWEEP):
            metrics.REAPED.labels("not_permitted").inc(len(moved))
            logger.info("not permitted in time, sent again", extra={"runs": len(moved)})
            if len(moved) < _SWEEP:
                return

    def _find_missing(self, now: datetime) -> None:
        if self._missing is None:
            return
        try:
            moved = self._missing.take_back(now)
        except BrokerAway:
            self._missing.forget()
            return
        if moved:
            metrics.REAPED.labels("missing").inc(len(moved))
            logger.warning("the broker lost messages, sent again", extra={"runs": len(moved)})

    def _stop_overdue(self, now: datetime) -> None:
        grace = timedelta(seconds=self._settings.deadline_grace_seconds)
        stops = lifecycle.request_timeout_stops(now=now, grace=grace, limit=_SWEEP)
        if stops:
            metrics.REAPED.labels("overdue").inc(len(stops))
            control.cancel(control.by_worker(stops))
