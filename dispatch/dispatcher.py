"""The dispatcher's loop: fire schedules, claim, publish, take back what was not confirmed, wait for the bell.

Nothing is published inside a transaction: a claim is committed first. A dispatcher that dies between the two leaves
rows whose permit deadline passes, and the reaper hands them out again.

It never ends by itself. A database that is away is tried again after a pause; a broker that is away stops the claims,
so that the backlog stays in the database in the right order, until a probe succeeds.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from django.db import Error as DatabaseFailure
from django.db import connection

from dispatch import metrics, queries
from dispatch.broker import Broker, BrokerAway
from dispatch.circuit import Circuit
from dispatch.claiming import Claiming, Round
from dispatch.conf import DispatchSettings
from dispatch.doorbell import Doorbell
from dispatch.firing import fire_due
from tasks_app import lifecycle
from tasks_app.clock import Clock
from tasks_app.conf import conf as tasks_conf
from tasks_app.crashpoints import reach
from tasks_app.lifecycle import Claimed, Finished
from tasks_app.messages.execution import Execution, WireMessage, build, queue_for
from tasks_app.messages.signing import KeyRing
from tasks_app.process_health import LoopBeat
from tasks_app.states import Outcome

logger = logging.getLogger(__name__)

#: Shortest pause between looks when nothing is known to come sooner.
SOON_SECONDS = 0.005
#: Another dispatcher holds a queue with due rows: it serves them, this is only in case that it cannot.
CONTENDED_SECONDS = 0.02
QUEUES_CHECKED_SECONDS = 60.0


@dataclass
class Tick:
    """What one round did: runs fired, claimed, published and taken back, and how long nothing is expected to happen."""

    fired: int = 0
    claimed: int = 0
    published: int = 0
    returned: int = 0
    wait_seconds: float = 0.0


class Dispatcher:
    """One dispatcher. Any number may run; each has its own database connection and broker."""

    def __init__(
        self, clock: Clock, broker: Broker, settings: DispatchSettings, *, doorbell: Doorbell | None = None
    ) -> None:
        """Nothing is opened before the first tick."""
        self.beat = LoopBeat()
        self._clock, self._broker, self._settings = clock, broker, settings
        self._doorbell = doorbell or Doorbell()
        self._ring = KeyRing(tasks_conf().signing_keys, tasks_conf().signing_key_id)
        self._claiming = Claiming(
            batch_max=settings.claim_batch_max,
            per_slot_max=settings.look_ahead_per_slot_max,
            permit_within=timedelta(seconds=settings.permit_within_seconds),
        )
        self._stopping = threading.Event()
        self._rung = False
        self._broker_circuit = Circuit()
        self._database_circuit = Circuit()
        self._queue_circuits: dict[str, Circuit] = {}
        #: (run, token) of claims whose message did not go out and that could not be taken back yet.
        self._unreturned: list[tuple[int, UUID]] = []
        self._queues_checked = float("-inf")
        self._next_fire: datetime | None = None
        self._schedules_seen = float("-inf")
        metrics.BROKER_UP.set(1)
        metrics.DATABASE_UP.set(1)

    def run(self) -> None:
        """Go round until `stop`."""
        logger.info("dispatcher started")
        while not self._stopping.is_set():
            self.beat.beat()
            wait = self._guarded_tick()
            self._rung = wait > 0 and not self._stopping.is_set() and self._doorbell.wait(wait)
        self._doorbell.close()
        self._broker.close()
        connection.close()
        logger.info("dispatcher stopped")

    def stop(self) -> None:
        """Finish the round under way, then end. Safe from signal handlers."""
        self._stopping.set()
        self._doorbell.ring()

    def tick(self, now: datetime) -> Tick:
        """One round. Raises django.db.Error while the database is away."""
        tick, at = Tick(), time.monotonic()
        self._return_unpublished(now)
        self._check_queues(at)
        more_fires = self._fire(tick, now, at)
        if not self._broker_answers(at):
            tick.wait_seconds = 0.0 if more_fires else self._broker_circuit.wait_seconds(at)
            return tick
        suspended = [name for name, circuit in self._queue_circuits.items() if circuit.open(at)]
        metrics.ROUNDS.inc()
        first = self._claiming.at_once(now, without=suspended) if self._rung else []
        self._send(tick, first, now, at)
        done = self._claiming.round(now, at, without=suspended, expecting=self._rung)
        self._send(tick, done.claimed, now, at)
        tick.wait_seconds = 0.0 if more_fires else self._wait_after(done, suspended, now, at)
        return tick

    # -- one round's parts ---------------------------------------------------------------------------------------

    def _guarded_tick(self) -> float:
        """A round, and the seconds to wait after it; a database that fails is waited for."""
        at = time.monotonic()
        if self._database_circuit.open(at):
            return self._database_circuit.wait_seconds(at)
        try:
            tick = self.tick(self._clock.now())
        except DatabaseFailure as error:
            connection.close()
            metrics.DATABASE_UP.set(0)
            if self._database_circuit.failed(time.monotonic()):
                logger.warning("database failed, trying again", extra={"error": f"{type(error).__name__}: {error}"})
            return self._database_circuit.wait_seconds(time.monotonic())
        except Exception:
            # A defect in one round must not end a process that others wait for; it is seen in the log and the metric.
            logger.exception("dispatch round failed")
            connection.close()
            self._database_circuit.failed(time.monotonic())
            return self._database_circuit.wait_seconds(time.monotonic())
        if self._database_circuit.succeeded():
            logger.info("database answers again")
        metrics.DATABASE_UP.set(1)
        return tick.wait_seconds

    def _fire(self, tick: Tick, now: datetime, at: float) -> bool:
        """Fire what is due; True when more is. Rounds may be milliseconds apart: the schedules are asked less often."""
        due = self._next_fire is not None and self._next_fire <= now
        if not due and at - self._schedules_seen < self._settings.tick_seconds * 0.9:
            return False
        fired = fire_due(now)
        tick.fired = fired.runs
        metrics.FIRED.labels("fired").inc(fired.runs)
        metrics.FIRED.labels("skipped").inc(fired.skipped)
        self._next_fire = queries.next_fire()
        self._schedules_seen = at
        return fired.more

    def _wait_after(self, done: Round, suspended: Sequence[str], now: datetime, at: float) -> float:
        if done.more:
            return 0.0
        if done.contended:
            return CONTENDED_SECONDS
        if done.soon is not None:
            return done.soon
        longest = self._settings.tick_seconds if self._doorbell.rings else self._settings.poll_seconds
        waits = [longest, *(self._queue_circuits[name].wait_seconds(at) for name in suspended)]
        # A little more than to the instant, so that it has come when the database is asked.
        waits += [
            max(0.0, (instant - now).total_seconds()) + 0.001
            for instant in (done.next_due_at, self._next_fire)
            if instant is not None
        ]
        return max(SOON_SECONDS, min(waits))

    def _send(self, tick: Tick, claimed: Sequence[Claimed], now: datetime, at: float) -> None:
        if claimed:
            returned = self._publish(claimed, now)
            tick.claimed += len(claimed)
            tick.returned += returned
            tick.published += len(claimed) - returned
            metrics.ROUND_SECONDS.observe(time.monotonic() - at)

    def _publish(self, claimed: Sequence[Claimed], now: datetime) -> int:
        """Publish the claims and take back what is not confirmed; how many that were."""
        messages: list[WireMessage] = []
        unbuildable: list[Finished] = []
        for run in claimed:
            metrics.CLAIMED.labels(run.task_type).inc()
            metrics.CLAIM_DELAY.observe(max(0.0, (now - run.due_at).total_seconds()))
            try:
                messages.append(build(_execution(run), self._ring, now=now))
            except (KeyError, TypeError, ValueError) as error:
                # A row that somebody wrote past the checks: it must not keep the others from going out, and claimed
                # again it would fail again, for ever.
                logger.exception("message could not be built", extra={"run_id": run.id})
                unbuildable.append(_unbuildable(run, error))
        unconfirmed = self._broker.publish(messages)
        reach("publish.after_confirm")
        at = time.monotonic()
        metrics.PUBLISHED.inc(len(messages) - len(unconfirmed))
        metrics.UNCONFIRMED.inc(len(unconfirmed))
        self._judge_broker(messages, unconfirmed, at)
        if unconfirmed:
            self._unreturned.extend((message.run_id, message.token) for message in unconfirmed)
            self._return_unpublished(self._clock.now())
        if unbuildable:
            lifecycle.finish(unbuildable, now=self._clock.now())
        return len(unconfirmed) + len(unbuildable)

    def _judge_broker(self, messages: Sequence[WireMessage], unconfirmed: Sequence[WireMessage], at: float) -> None:
        if unconfirmed and not self._broker.available:
            self._broker_failed(at)
            return
        failed = {message.queue for message in unconfirmed}
        for queue in {message.queue for message in messages}:
            name = queue.removeprefix(queue_for(""))
            if queue in failed:
                if self._queue_circuits.setdefault(name, Circuit()).failed(at):
                    logger.warning("queue takes no messages", extra={"queue": queue})
            elif name in self._queue_circuits:
                del self._queue_circuits[name]

    def _broker_answers(self, at: float) -> bool:
        if not self._broker_circuit.failing:
            return True
        if self._broker_circuit.open(at):
            return False
        try:
            self._broker.declare(())
        except BrokerAway:
            self._broker_failed(time.monotonic())
            return False
        self._broker_circuit.succeeded()
        metrics.BROKER_UP.set(1)
        logger.info("broker answers again")
        return True

    def _broker_failed(self, at: float) -> None:
        metrics.BROKER_UP.set(0)
        if self._broker_circuit.failed(at):
            logger.warning("broker is away, claims are held back until it answers")

    def _return_unpublished(self, now: datetime) -> None:
        """Take back claims whose message did not go out. What fails here is kept for the next round."""
        while self._unreturned:
            batch = self._unreturned[:1000]
            lifecycle.unpublish(batch, now=now, reason="not confirmed by the broker")
            del self._unreturned[: len(batch)]

    def _check_queues(self, at: float) -> None:
        if at - self._queues_checked > QUEUES_CHECKED_SECONDS:
            queries.add_missing_queues()
            self._queues_checked = at


def _unbuildable(run: Claimed, error: Exception) -> Finished:
    return Finished(
        run.id, run.attempt, run.token, Outcome.FAILED, error_type=type(error).__name__,
        error_message=f"no message can be made of this run: {error}", retryable=False,
    )  # fmt: skip


def _execution(run: Claimed) -> Execution:
    return Execution(
        run_id=run.id, task_id=run.task_id, task_name=run.task_name, task_type=run.task_type, executor=run.executor,
        parameters=run.parameters, attempt=run.attempt, token=run.token, timeout_seconds=run.timeout_seconds,
        correlation_id=run.correlation_id, traceparent=run.traceparent,
    )  # fmt: skip
