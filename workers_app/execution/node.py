"""The main process's part: holds the lease, collects outcomes, ends bodies that must not go on.

Threads, beside Celery's own event loop: `signalbox-permits` asks for permits (`permit_desk`), `signalbox-collect` reads
the children's streams, `signalbox-publish` flushes reports, `signalbox-lease` renews and watches. None of them shares
state with the event loop but through the objects here.
"""

from __future__ import annotations

import collections
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Final, Protocol
from uuid import UUID, uuid4

from celery import Celery

from tasks_app.clock import clock
from tasks_app.conf import conf as tasks_conf
from tasks_app.crashpoints import reach
from tasks_app.lifecycle.facts import HandBack
from tasks_app.lifecycle.recede import Held
from tasks_app.messages.execution import Ticket
from tasks_app.messages.reports import finish_report, hand_back_report
from tasks_app.messages.signing import KeyRing
from tasks_app.process_health import LoopBeat
from tasks_app.states import Outcome
from workers_app.conf import WorkerSettings
from workers_app.control_plane.port import ControlPlane, Hello, Renewal, RenewalAnswer, Unreachable
from workers_app.execution.channel import FINISH, HAND_BACK, TELEMETRY, Frame, MainEnd
from workers_app.execution.guardian import start_guardian
from workers_app.execution.identity import SharedIdentity
from workers_app.execution.outbox import Outbox, Unsettled
from workers_app.execution.outcome import STOPPED
from workers_app.execution.permit_desk import Delivery, PermitDesk
from workers_app.execution.publisher import Publisher
from workers_app.execution.registry import RecordView, Registry, State, StopReason, boottime_ns
from workers_app.execution.stopping import ACTIVE, Stopping
from workers_app.metrics import CHILDREN_LOST, HANDED_IN, LEASE_LEFT, RENEWALS, UNSETTLED
from workers_app.pools import in_one_process

logger = logging.getLogger(__name__)

#: Pace of the watch: cancels, dead guardians and overdue kills are acted on within this many seconds.
WATCH_SECONDS: Final = 0.1
#: How long bodies in threads have to end when the drain is over, before the process ends with them.
LEAVE_SECONDS: Final = 5.0
#: After so many looks a dead child's attempts are concluded although its socket is still open somewhere.
DEAD_LOOKS: Final = 10
#: Deliveries that were given up are remembered for as long as the database might still think that they run.
GIVEN_UP_MAX: Final = 10_000
#: And at the end of the worker, so many of them are handed back once more.
GIVEN_UP_LATELY: Final = 1_000

_DIED: Final = (Outcome.LOST, "WorkerChildDied", "the pool process that ran the body died")
_REASONS: Final = collections.defaultdict(lambda: StopReason.TIMEOUT, cancel=StopReason.CANCEL)
_FORGOTTEN: Final = (Outcome.LOST, "NotRunning", "held by this worker, which does not run it and has no outcome for it")


class Guard(Protocol):
    """Who holds leases and deadlines when this process cannot: a guardian."""

    def alive(self) -> bool:
        """False when it died and another must be started."""

    def stop(self) -> None:
        """End it."""


@dataclass
class Node:
    """One worker's main process. Made before the pool forks, started when the worker is ready."""

    app: Celery
    hello: Hello
    settings: WorkerSettings
    control_plane: ControlPlane
    on_drain: Callable[[bool], None] = lambda _wanted: None
    on_watch: Callable[[], None] = lambda: None
    guard: Callable[[Registry], Guard] = start_guardian
    outbox: Outbox = field(default_factory=Outbox)
    beat: LoopBeat = field(default_factory=LoopBeat)
    _unknown: set[UUID] = field(default_factory=set)
    _given_up: dict[UUID, HandBack] = field(default_factory=dict)
    #: Children whose stream has ended and whose seat is not known to be free.
    _gone: set[int] = field(default_factory=set)
    #: (record, generation) of dead children's attempts -> how many looks ago they were first seen dead.
    _dead_looks: dict[tuple[int, int], int] = field(default_factory=dict)
    _gone_lock: threading.Lock = field(default_factory=threading.Lock)
    _stopping: threading.Event = field(default_factory=threading.Event)
    _renew_now: threading.Event = field(default_factory=threading.Event)
    _draining: bool = False
    _drain_until: float = float("inf")
    _told_to_drain: bool = False
    _closed: bool = False

    def __post_init__(self) -> None:
        """Make what children inherit: the table, the socket, the shared identity; and start the guardian."""
        self.one_process = in_one_process(self.hello.pool)
        self.identity = SharedIdentity(self.hello.worker_id)
        self.ring = KeyRing(tasks_conf().signing_keys, tasks_conf().signing_key_id)
        self.registry = Registry.create(seats=max(8, self.hello.slots * 4))
        self.stopping = Stopping(self.registry, self.settings.stop_grace_seconds)
        self.channel = MainEnd(self.hear, self._child_gone)
        self.publisher = Publisher(
            self.app, self.outbox, self.identity, self.ring,
            flush_seconds=self.settings.report_flush_seconds, batch_max=self.settings.report_batch_max,
            compress_above_bytes=self.settings.compress_above_bytes, queue_type=self.settings.queue_type,
        )  # fmt: skip
        self.desk: PermitDesk | None = None
        if self.settings.permits == "batched":
            self.desk = PermitDesk(
                control_plane=self.control_plane, identity=self.identity, registry=self.registry,
                slots=self.hello.slots, on_give_up=self._give_up, has_outcome=self.outbox.holds,
            )  # fmt: skip
        self.guardian = self.guard(self.registry)
        self._thread = threading.Thread(target=self._lease_loop, name="signalbox-lease", daemon=True)
        self._pid = os.getpid()

    # -- life ---------------------------------------------------------------------------------------------------

    def register(self) -> None:
        """Introduce this worker; the lease begins. Raises Unreachable."""
        sent = boottime_ns()
        self.identity.incarnation_id = self.control_plane.register(self.hello)
        self._hold_from(sent)
        logger.info(
            "worker registered",
            extra={"worker_id": self.hello.worker_id, "incarnation_id": str(self.identity.incarnation_id)},
        )

    def start(self) -> None:
        """Start the threads. The pool has been forked by now; children that are forked later inherit only memory."""
        if not self.one_process:
            self.channel.start()
        self.publisher.start()
        # The lease began with the registration, and the start may have taken most of it: what is begun now must not be
        # ended by it before the first renewal is due.
        self._renew_now.set()
        self._thread.start()
        if self.desk is not None:
            self.desk.start()

    def begin_drain(self, *, at_once: bool = False) -> None:
        """SIGTERM: no new body begins; running ones get `drain_seconds`, or no time at all."""
        self._drain_until = min(self._drain_until, time.monotonic() + (0 if at_once else self.settings.drain_seconds))
        if self._draining:
            return
        self._draining = True
        self.registry.set_draining()
        if self.desk is not None:
            self.desk.begin_drain()
        self._renew_now.set()
        logger.info("draining", extra={"worker_id": self.hello.worker_id, "running": self.running_count()})

    def renew_soon(self) -> None:
        """Renew now: the answer brings drains, resumes and cancels."""
        self._renew_now.set()

    def running_count(self) -> int:
        """Bodies under way."""
        return len(self.stopping.active())

    def stop(self) -> None:
        """Last act of a warm shutdown, when the pool is gone: flush, settle what is not recorded, say goodbye.

        The goodbye ends whatever this incarnation still holds as lost. So everything that never began is handed back
        before it, by the control plane: a report on its way through broker and ingest could come too late.
        """
        if self._closed or os.getpid() != self._pid:
            return
        if self.one_process:
            self._outlast_bodies()
        self._closed = True
        if self.desk is not None:
            self.desk.stop()
        self._stopping.set()
        self._renew_now.set()
        if self._thread.is_alive():
            self._thread.join(timeout=self.settings.renew_every_seconds + 5)
        self.channel.close()
        self._bury_dead()
        if self.desk is not None:
            self.desk.settle_all()
        try:
            self._settle()
            self.control_plane.goodbye(self.identity.incarnation_id)
        except Unreachable as error:
            logger.warning("could not say goodbye; the lease will run out", extra={"error": str(error)})
        self.guardian.stop()

    def _settle(self) -> None:
        """What is published already, and what is not, is recorded; what never began goes back. Raises Unreachable."""
        if self.publisher._thread.is_alive():
            self.publisher.stop(5.0)
        if self._given_up:
            self.control_plane.hand_back(list(self._given_up.values())[-GIVEN_UP_LATELY:])
        self._hand_in(self.outbox.unsettled())

    def _outlast_bodies(self) -> None:
        """In a process of its own a body is gone with the pool. In a thread it may still be there: ended now."""
        self.begin_drain(at_once=True)
        while self._thread.is_alive() and self.stopping.active():
            time.sleep(WATCH_SECONDS)

    def _leave_with_bodies(self) -> None:
        """End this process, and with it bodies that nothing else ends. No goodbye, which would say that they are gone.

        So what they run is lost when the lease is over, and not before.
        """
        left = list(self.stopping.active().values())
        extra = {"worker_id": self.hello.worker_id, "run_ids": [view.run_id for view in left]}
        logger.error("bodies that cannot be ended are left; the process ends with them", extra=extra)
        try:
            self._settle()
        except Unreachable as error:
            logger.warning("not settled before the end", extra={"error": str(error)})
        os._exit(1)

    # -- what children say ---------------------------------------------------------------------------------------

    def hear(self, frame: Frame) -> None:
        """One frame of a child."""
        if frame.kind == TELEMETRY:
            self.outbox.put_telemetry(frame.payload)
            return
        if frame.kind == HAND_BACK:
            report = json.loads(frame.payload)
            nonce = UUID(report["nonce"]) if report["nonce"] else None
            if nonce is not None:
                self._given_up[nonce] = HandBack(report["run"], UUID(report["token"]), nonce, report["reason"])
            self.outbox.put_telemetry(frame.payload)
            self._off_the_desk(nonce)
            return
        if frame.kind == FINISH:
            report = json.loads(frame.payload)
            held = Held(report["run"], report["attempt"], UUID(report["token"]), UUID(report["nonce"]))
            self.outbox.put_outcome(held, frame.payload)
            # On the list first, off the table second: an attempt is always on one of them.
            self.registry.free_nonce(frame.nonce)
            self._off_the_desk(held.nonce, report["duration_ms"])

    def check_outcomes(self) -> None:
        """Raise RuntimeError when nobody reads what pool processes say, so that they wait with their outcomes."""
        if not self.one_process and not self.channel.reading:
            raise RuntimeError("the outcomes of pool processes are not read")

    def _off_the_desk(self, nonce: UUID | None, duration_ms: int | None = None) -> None:
        if self.desk is not None and nonce is not None:
            self.desk.forget(nonce, duration_ms)

    def _child_gone(self, pid: int) -> None:
        """A child's stream ended: whatever its seat still holds ended with it."""
        with self._gone_lock:
            self._gone.add(pid)
        self._bury_dead()

    def _bury_dead(self) -> None:
        """Conclude the attempts of children that are gone and whose every word has been read.

        The kernel may close a dying child's socket before it frees its seat: the watch comes by again. A body that left
        a process behind keeps the socket open; what the child itself wrote was read long before so many looks.
        """
        with self._gone_lock:
            # Before the dead are read: whoever is gone and has no seat by now is among them, and done with then. The
            # system gives numbers of processes again, and a new child's words must not be cut off by an old one's end.
            seated = set(self.registry.seats_taken().values()) if self._gone else set()
            looks: dict[tuple[int, int], int] = {}
            for view in self.registry.dead_seats():
                key = (view.index, view.generation)
                looks[key] = self._dead_looks.get(key, 0) + 1
                if view.pid in self._gone or looks[key] > DEAD_LOOKS:
                    self.bury(view)
            self._dead_looks = looks
            self._gone &= seated

    def bury(self, view: RecordView) -> None:
        """Conclude an attempt whose child cannot speak for it any more."""
        nonce = UUID(bytes=view.nonce)
        held = Held(view.run_id, view.attempt, UUID(bytes=view.token), nonce)
        if view.state is State.REGISTERED:
            self._give_up(held, "the pool process died before the body began")
        elif view.state in ACTIVE and not self.outbox.holds(nonce):
            CHILDREN_LOST.inc()
            self.outbox.put_outcome(held, self._death_report(view, held))
        self.registry.free(view)
        self._off_the_desk(nonce)
        self.stopping.forget(nonce)

    def _give_up(self, held: Held, reason: str) -> None:
        report = hand_back_report(held.run_id, held.token, held.nonce, reason)
        self._given_up[held.nonce] = HandBack(held.run_id, held.token, held.nonce, reason)
        self.outbox.put_telemetry(json.dumps(report).encode())

    def _death_report(self, view: RecordView, held: Held) -> bytes:
        duration = max(0.0, (boottime_ns() - view.started_ns) / 1e9) if view.started_ns else 0.0
        logger.warning(
            "attempt ended by the platform",
            extra={
                "run_id": held.run_id,
                "attempt": held.attempt,
                "reason": view.stop_reason.name,
                "pid": view.pid,
            },
        )
        return _report_of(held, view.stop_reason, duration)

    def report_unknown(self, ticket: Ticket, function: str) -> None:
        """The end of a delivery that never reached a child, because nobody here knows its function."""
        held = Held(ticket.run_id, ticket.attempt, ticket.token, uuid4())
        report = finish_report(
            run_id=held.run_id, attempt=held.attempt, token=held.token, nonce=None, outcome=Outcome.FAILED,
            started_at=clock.now().timestamp(), duration_seconds=0.0, error_type="UnregisteredFunction",
            error_message=f"function {function!r} is not registered on worker {self.hello.worker_id}",
        )  # fmt: skip
        self.outbox.put_outcome(held, json.dumps(report).encode())

    # -- stopping bodies -----------------------------------------------------------------------------------------

    def stop_attempt(self, run_id: int, reason: StopReason) -> bool:
        """Ask the body of a run to stop, and kill it after a grace. False when it does not run here."""
        # The way that attempts go: from the desk's stock to the pool to the table.
        unbegun = self._conclude_unbegun(lambda one: one.ticket.run_id == run_id, lambda _nonce: reason)
        ahead = self.desk.handed(lambda one: one.ticket.run_id == run_id) if self.desk is not None else []
        self.stopping.when_begun(ahead, lambda _nonce: reason)
        views = [view for view in self.stopping.active().values() if view.run_id == run_id]
        for view in views:
            self.stopping.ask(view, reason)
        return unbegun or bool(ahead or views)

    def _conclude_unbegun(self, wanted: Callable[[Delivery], bool], reason_of: Callable[[UUID], StopReason]) -> bool:
        """End attempts that have a permit and whose body has not begun. True when there was one."""
        if self.desk is None:
            return False
        concluded = self.desk.withdraw(wanted)
        for held in concluded:
            self.outbox.put_outcome(held, _report_of(held, reason_of(held.nonce), 0.0))
        self.desk.settle(held.nonce for held in concluded)
        return bool(concluded)

    def _on_the_way(self, nonces: Collection[UUID]) -> Collection[UUID]:
        return self.desk.handed(lambda one: one.nonce in nonces) if self.desk is not None else []

    # -- lease ---------------------------------------------------------------------------------------------------

    def _hold_from(self, sent_ns: int) -> None:
        self.registry.set_lease(sent_ns + int(self.settings.hold_seconds * 1e9))

    def _lease_loop(self) -> None:
        next_renewal = time.monotonic() + self.settings.renew_every_seconds
        while not self._stopping.is_set():
            self._renew_now.wait(WATCH_SECONDS)
            self.beat.beat()
            try:
                if self._renew_now.is_set() or time.monotonic() >= next_renewal:
                    self._renew_now.clear()
                    next_renewal = time.monotonic() + self.settings.renew_every_seconds
                    self.renew()
                self._watch()
            except Unreachable as error:
                RENEWALS.labels(answer="unreachable").inc()
                next_renewal = min(next_renewal, time.monotonic() + 1.0)
                logger.warning("lease not renewed", extra={"error": str(error)})
            except Exception:
                logger.exception("lease loop failed")

    def _watch(self) -> None:
        self.on_watch()
        if self.one_process:
            self.stopping.ask_overdue_threads()
        self.stopping.look(self._on_the_way)
        self._bury_dead()
        if not self.guardian.alive():
            logger.error("the guardian died; starting another")
            self.guardian = self.guard(self.registry)
        if self._draining and time.monotonic() > self._drain_until:
            active = self.stopping.active().values()
            for view in active:
                self.stopping.ask(view, StopReason.DRAIN)
            if self.one_process and active and time.monotonic() > self._drain_until + LEAVE_SECONDS:
                self._leave_with_bodies()

    def renew(self) -> None:
        """Renew the lease and do what the answer says. Raises Unreachable."""
        renewal = self._lists()
        reach("renew.before")
        sent = boottime_ns()
        answer = self.control_plane.renew(self.identity.incarnation_id, renewal)
        reach("renew.after")
        if not answer.alive:
            RENEWALS.labels(answer="over").inc()
            self._begin_again()
            return
        self._hold_from(sent)
        RENEWALS.labels(answer="renewed").inc()
        LEASE_LEFT.set(self.settings.hold_seconds)
        self._obey(answer)
        late = self.outbox.unsettled(older_than_seconds=self.settings.renew_every_seconds * 2)
        if late:
            self._hand_in(late)
        UNSETTLED.set(len(self.outbox.unsettled()))

    def _lists(self) -> Renewal:
        # The desk first, the table second, the list of finished attempts third: the way that attempts go (`hear`).
        granted, asked = self.desk.lists() if self.desk is not None else ([], [])
        views = self.registry.snapshot()
        finished = [item.held for item in self.outbox.unsettled()]
        ended = {held.nonce for held in finished}
        running = [
            Held(view.run_id, view.attempt, UUID(bytes=view.token), UUID(bytes=view.nonce))
            for view in views
            if view.state in (*ACTIVE, State.FINISHED) and UUID(bytes=view.nonce) not in ended
        ]
        begun = {held.nonce for held in running}
        running += [held for held in granted if held.nonce not in begun and held.nonce not in ended]
        registered = asked + [UUID(bytes=view.nonce) for view in views if view.state is State.REGISTERED]
        return Renewal(running, finished, registered, draining=self._draining)

    def _obey(self, answer: RenewalAnswer) -> None:
        self.outbox.settle(answer.recorded)

        def reason_of(nonce: UUID) -> StopReason:
            return StopReason.LEASE if nonce in answer.void else _REASONS[answer.stops[nonce]]

        if self.desk is not None and (answer.void or answer.stops):
            # Before the table is read: what is handed to the pool meanwhile is stopped when it begins.
            self.desk.settle([held.nonce for held in self.desk.withdraw(lambda one: one.nonce in answer.void)])
            self._conclude_unbegun(lambda one: one.nonce in answer.stops, reason_of)
            self.stopping.when_begun(
                self.desk.handed(lambda one: one.nonce in answer.void or one.nonce in answer.stops), reason_of
            )
        for nonce, view in self.stopping.active().items():
            if nonce in answer.void or nonce in answer.stops:
                self.stopping.ask(view, reason_of(nonce))
        if answer.drain != self._told_to_drain:
            self._told_to_drain = answer.drain
            self.on_drain(answer.drain)
        self._settle_unknown(answer)

    def _settle_unknown(self, answer: RenewalAnswer) -> None:
        """What is held in the database and stands on none of our lists.

        Believed only the second time: the first list may have been taken before the child registered. What a child is
        known to have given up goes back unused. For anything else nobody can say whether its body began, so the attempt
        is lost: starting it again would break "each attempt starts at most once".
        """
        seen = {held.nonce: held for held in answer.unknown}
        granted, asked = self.desk.lists() if self.desk is not None else ([], [])
        listed = {*asked, *(held.nonce for held in granted)}
        listed |= {UUID(bytes=view.nonce) for view in self.registry.snapshot()}
        forgotten = [held for nonce, held in seen.items() if nonce in self._unknown and nonce not in listed]
        self._unknown = set(seen)
        given_up = [self._given_up[held.nonce] for held in forgotten if held.nonce in self._given_up]
        if given_up:
            self.control_plane.hand_back(given_up)
        for held in forgotten:
            if held.nonce not in self._given_up:
                logger.error("an attempt is held here that nobody runs", extra={"run_id": held.run_id})
                self.outbox.put_outcome(held, _report(held, *_FORGOTTEN, 0.0, counts_as_crash=True))
        while len(self._given_up) > GIVEN_UP_MAX:
            self._given_up.pop(next(iter(self._given_up)))

    def _begin_again(self) -> None:
        """Our lease was judged over: everything that ran under it is somebody else's now."""
        logger.error("the lease was judged over; ending all bodies", extra={"worker_id": self.hello.worker_id})
        # What was handed to the pool under it and begins from now on sees that it is over, or is seen below.
        self.registry.set_lease(0)
        if self.desk is not None:
            self.desk.clear()
        for view in self.stopping.active().values():
            self.stopping.ask(view, StopReason.LEASE)
        deadline = time.monotonic() + 5
        while any(not view.keep_running for view in self.stopping.active().values()) and time.monotonic() < deadline:
            self.stopping.kill_overdue()
            time.sleep(0.02)
        self.outbox.settle({item.held.nonce for item in self.outbox.unsettled()})
        if not self._stopping.is_set():
            self.register()

    def _hand_in(self, late: list[Unsettled]) -> None:
        """The way round a broker or an ingest that does not work."""
        if not late:
            return
        self.control_plane.hand_in(self.identity.incarnation_id, [json.loads(item.payload) for item in late])
        HANDED_IN.inc(len(late))
        if any(item.published for item in late):
            self.publisher.doubt()
        self.outbox.settle({item.held.nonce for item in late})


def _report_of(held: Held, reason: StopReason, duration_seconds: float) -> bytes:
    """The finish report of an attempt whose body cannot speak for itself any more."""
    end = _DIED if reason is StopReason.NONE else STOPPED[reason.name.lower()]
    return _report(held, *end, duration_seconds, counts_as_crash=reason is StopReason.NONE)


def _report(
    held: Held, outcome: Outcome, error_type: str, message: str, duration_seconds: float, *, counts_as_crash: bool
) -> bytes:
    report = finish_report(
        run_id=held.run_id, attempt=held.attempt, token=held.token, nonce=held.nonce, outcome=outcome,
        started_at=clock.now().timestamp() - duration_seconds, duration_seconds=duration_seconds,
        error_type=error_type, error_message=message, counts_as_crash=counts_as_crash,
    )  # fmt: skip
    return json.dumps(report).encode()
