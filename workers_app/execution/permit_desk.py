"""Permits for many deliveries at once, asked for in the main process before a pool child sees them.

    WAITING ─ask─> ASKED ─permitted─> GRANTED ─hand─> HANDED ─pool has its result─> ENDED
                     └─refused, given up─> gone          └───── its outcome is on the outbox ─────> gone

Asked for one by one, a permit's own commit is the dearest part of a short run. A thread here asks for all that wait,
while the event loop goes on; what is granted is handed to the pool by the event loop, as many as there are slots:
Celery's own buffers are emptied when a connection is lost or the worker shuts down, without a word.

**Look-ahead.** More is asked for than there are free slots (`look_ahead`), and only while some slot is not held by a
long body: one of a function that is known to be long or not known, or one that has been on its way for long. A grant
that has waited too long goes back unused.

**Lists.** A delivery with a nonce stays here until its outcome is on the outbox or it was given up, so a renewal that
reads this first, the table second and the outbox third finds every attempt. ASKED proves nothing and counts as
registered; from GRANTED on it counts as running, which also brings back a permit that a crashed database forgot.

**Who may start it.** A grant is valid for a few seconds and under one incarnation. A child says STARTED in the table
first and looks at both second. When its time is over and no record of it exists, no body of it can begin any more:
only then does the desk give up what it has handed over and nobody has told about. At the end of the worker, when the
pool is gone, nobody can begin anything either (`settle_all`).

Threads: the event loop calls `take`, `feed` and `left` (while the pool is joined, Celery's thread for results calls
`left`, too); the collecting and the lease thread the rest. Sections under the lock are short and call nobody.
`begin_drain` may run in a signal handler that interrupted such a section: it takes no lock.
"""

from __future__ import annotations

import contextlib
import enum
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from queue import Empty, SimpleQueue
from typing import Any, Final
from uuid import UUID, uuid4

from django.db import close_old_connections

from tasks_app.crashpoints import reach
from tasks_app.lifecycle.facts import PermitAsk, Permitted, Refused
from tasks_app.lifecycle.recede import Held
from tasks_app.messages.execution import Ticket
from workers_app.control_plane.port import ControlPlane
from workers_app.execution.asking import answers
from workers_app.execution.grant import Grant, grant_of
from workers_app.execution.identity import SharedIdentity
from workers_app.execution.look_ahead import AHEAD_MAX, AHEAD_SECONDS, LookAhead, measured_as
from workers_app.execution.registry import Registry, boottime_ns
from workers_app.metrics import PERMITS_REFUSED

logger = logging.getLogger(__name__)

#: A granted delivery that waits for a slot longer than this goes back unused.
STOCK_SECONDS_MAX: Final = 2.0
#: How long a child may begin with what was handed over, and how much later the desk believes that none did.
VALID_SECONDS: Final = 5.0
VALID_MARGIN_SECONDS: Final = 1.0
SWEEP_SECONDS: Final = 0.25
_NONE: Final = UUID(int=0)


class Stage(enum.IntEnum):
    """Where a delivery is."""

    WAITING = 0
    ASKED = 1
    GRANTED = 2
    HANDED = 3
    ENDED = 4
    GONE = 5


@dataclass(slots=True, eq=False)
class Delivery:
    """One message: the pool's request for it (opaque here), what it says, and what was answered."""

    request: Any
    #: Under which name its duration is measured.
    measured: str
    ticket: Ticket
    stage: Stage = Stage.WAITING
    nonce: UUID = _NONE
    incarnation: UUID = _NONE
    permit: Permitted | None = None
    #: Monotonic time since when it is at this stage.
    since: float = 0.0
    valid_until_ns: int = 0

    @property
    def held(self) -> Held:
        """As lists of attempts name it."""
        return Held(self.ticket.run_id, self.ticket.attempt, self.ticket.token, self.nonce)

    def grant(self) -> Grant:
        """What goes to the child. Only when handed over."""
        assert self.permit is not None
        return grant_of(self.permit, self.ticket, self.incarnation, self.valid_until_ns)


class PermitDesk:
    """One worker's deliveries between the broker and the pool."""

    def __init__(
        self,
        *,
        control_plane: ControlPlane,
        identity: SharedIdentity,
        registry: Registry,
        slots: int,
        on_give_up: Callable[[Held, str], None],
        has_outcome: Callable[[UUID], bool],
    ) -> None:
        """on_give_up: a permit that was or may have been given goes back unused. has_outcome: is it on the outbox?"""
        self.slots = slots
        self._control_plane = control_plane
        self._identity = identity
        self._registry = registry
        self._on_give_up = on_give_up
        self._has_outcome = has_outcome
        self._hand: Callable[[Delivery], None] = lambda _delivery: None
        self._settle: Callable[[Sequence[Delivery]], None] = lambda _deliveries: None
        self._drop: Callable[[Delivery], None] = lambda _delivery: None
        self._prefetch: Callable[[int], None] = lambda _more: None
        self._prefetching = 0
        self._look_ahead = LookAhead(slots)
        self._next_sweep = 0.0
        self._lock = threading.Lock()
        self._waiting: deque[Delivery] = deque()
        self._held: dict[UUID, Delivery] = {}
        self._stock: deque[Delivery] = deque()
        self._answered: list[Delivery] = []
        self._dropped: list[Delivery] = []
        self._count = dict.fromkeys(Stage, 0)
        self._bell: SimpleQueue[None] = SimpleQueue()
        self._asleep = False
        self._draining = False
        self._stopping = False
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        self._thread = threading.Thread(target=self._ask_and_sweep, name="signalbox-permits", daemon=True)

    # -- life ------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to ask."""
        self._thread.start()

    def connect(
        self,
        hand: Callable[[Delivery], None],
        settle: Callable[[Sequence[Delivery]], None],
        drop: Callable[[Delivery], None],
        prefetch: Callable[[int], None],
    ) -> int:
        """The event loop is there (again): what it does for us, on its own thread. Returns what it has to read.

        settle: the broker need not keep these; those without a permit are done with. drop: what was granted and never
        began is not expected to any more. prefetch: how many more (or fewer, below 0) deliveries the broker may send
        before they are acknowledged.
        """
        self._hand, self._settle, self._drop = hand, settle, drop
        self._prefetch = prefetch
        self._prefetching = 0
        return self._wake_read

    def disconnect(self) -> None:
        """The broker's connection is gone: what was not asked for comes again by itself."""
        with self._lock:
            self._waiting.clear()

    def begin_drain(self) -> None:
        """Nothing more is asked for, what is granted and not handed over goes back. Safe in a signal handler."""
        self._draining = True
        self._bell.put(None)

    def stop(self) -> None:
        """Ask for nothing more. What waits unasked is the broker's again when its connection closes."""
        self._draining = self._stopping = True
        self._bell.put(None)
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    def settle_all(self) -> None:
        """The pool is gone and every word of it is read: what is left here never began, and goes back unused."""
        begun = {view.nonce for view in self._registry.snapshot()}
        with self._lock:
            left = list(self._held.values())
        for one in left:
            if one.nonce.bytes not in begun and not self._has_outcome(one.nonce):
                self._give_up(one, "the worker was shut down before it began")

    # -- the event loop's side -------------------------------------------------------------------------------------

    def take(self, request: Any, function: str, ticket: Ticket) -> None:
        """A verified delivery."""
        with self._lock:
            self._waiting.append(Delivery(request, measured_as(function, ticket.task_id), ticket))
            wanted = self._room() > 0
        if wanted:
            self._ring()

    def woken(self) -> None:
        """What `connect` returned can be read."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_read, 4096)
        self.feed()

    def feed(self) -> None:
        """Give the pool as much as it has slots, then tell the broker about answers."""
        while (delivery := self._next_to_hand()) is not None:
            self._hand(delivery)
        with self._lock:
            answered, self._answered = self._answered, []
            dropped, self._dropped = self._dropped, []
        if answered:
            self._settle(answered)
        for delivery in dropped:
            self._drop(delivery)
        ahead = self._look_ahead.prefetch
        if ahead != self._prefetching:
            self._prefetch(ahead - self._prefetching)
            self._prefetching = ahead

    def _next_to_hand(self) -> Delivery | None:
        with self._lock:
            while self._stock and not self._draining and self._count[Stage.HANDED] < self.slots:
                delivery = self._stock.popleft()
                if delivery.stage is Stage.GRANTED:
                    reach("permit.before_hand")
                    self._move(delivery, Stage.HANDED)
                    delivery.valid_until_ns = boottime_ns() + int(VALID_SECONDS * 1e9)
                    return delivery
        return None

    def left(self, delivery: Delivery) -> None:
        """The pool has its result: the slot is free. It stays on the lists until its outcome is read."""
        with self._lock:
            if delivery.stage is Stage.HANDED:
                self._move(delivery, Stage.ENDED)
            wanted = bool(self._waiting) and self._room() > 0
        self.feed()
        if wanted:
            self._ring()

    def never_begins(self, delivery: Delivery, reason: str) -> None:
        """The pool was not given it after all: its permit goes back unused."""
        self._give_up(delivery, reason)
        self.feed()

    # -- other threads ---------------------------------------------------------------------------------------------

    def forget(self, nonce: UUID, duration_ms: int | None = None) -> None:
        """Its outcome is on the outbox, or its child gave it up. duration_ms: how long its body took."""
        with self._lock:
            delivery = self._held.pop(nonce, None)
            if delivery is None:
                return
            freed = delivery.stage is Stage.HANDED
            self._move(delivery, Stage.GONE)
            if duration_ms is not None:
                self._look_ahead.took(delivery.measured, duration_ms, time.monotonic())
            wanted = bool(self._waiting) and self._room() > 0
        if freed:
            self._wake_event_loop()
        if wanted:
            self._ring()

    def lists(self) -> tuple[list[Held], list[UUID]]:
        """(permit answered and not known to have ended, asked for). Read it before the table."""
        with self._lock:
            running = [one.held for one in self._held.values() if one.stage is not Stage.ASKED]
            asked = [nonce for nonce, one in self._held.items() if one.stage is Stage.ASKED]
        return running, asked

    def withdraw(self, wanted: Callable[[Delivery], bool]) -> list[Held]:
        """Take out what is granted and not handed over and for which `wanted` holds.

        It stays on the list until the caller has put it on another one and says so by `settle`.
        """
        with self._lock:
            chosen = [one for one in self._stock if one.stage is Stage.GRANTED and wanted(one)]
            if chosen:
                for one in chosen:
                    self._move(one, Stage.GONE)
                self._stock = deque(one for one in self._stock if one.stage is Stage.GRANTED)
                self._dropped += chosen
        if chosen:
            self._wake_event_loop()
        return [one.held for one in chosen]

    def handed(self, wanted: Callable[[Delivery], bool]) -> list[UUID]:
        """What is on its way through the pool, for which `wanted` holds, begun or not."""
        with self._lock:
            return [nonce for nonce, one in self._held.items() if one.stage is Stage.HANDED and wanted(one)]

    def settle(self, nonces: Iterable[UUID]) -> None:
        """What was withdrawn stands on another list now, or on none on purpose."""
        with self._lock:
            for nonce in nonces:
                self._held.pop(nonce, None)

    def clear(self) -> None:
        """The incarnation is over: nothing that it was granted may begin. What was handed over refuses by itself."""
        with self._lock:
            for nonce, one in list(self._held.items()):
                if one.stage in (Stage.HANDED, Stage.ENDED):
                    continue
                if one.stage is Stage.ASKED:
                    self._answered.append(one)
                elif one.stage is Stage.GRANTED:
                    self._dropped.append(one)
                self._move(one, Stage.GONE)
                del self._held[nonce]
            self._stock.clear()
        self._wake_event_loop()

    # -- under the lock --------------------------------------------------------------------------------------------

    def _move(self, one: Delivery, stage: Stage) -> None:
        self._count[one.stage] -= 1
        self._count[stage] += 1
        one.stage, one.since = stage, time.monotonic()

    def _outstanding(self) -> int:
        return self._count[Stage.ASKED] + self._count[Stage.GRANTED] + self._count[Stage.HANDED]

    def _room(self) -> int:
        """How many more may be asked for by their number alone; 0 while there is stock enough.

        More is asked for when half of the stock is gone: for each one that left, it would be one statement a run again.
        Where deliveries come slowly (Redis lists) few wait by then: they gather until three quarters are gone.
        """
        outstanding = self._outstanding()
        if outstanding >= self.slots:
            stock = outstanding - self._count[Stage.HANDED]
            few = len(self._waiting) < AHEAD_MAX // 2
            if stock > (AHEAD_MAX // 4 if few else AHEAD_MAX // 2):
                return 0
        return self.slots + AHEAD_MAX - outstanding

    def _askable(self) -> int:
        """How many of those that wait may be asked for now."""
        if not self._waiting or self._draining or not self._registry.lease_valid():
            return 0
        count, now = self._outstanding(), time.monotonic()
        long = sum(self._long(one, now) for one in self._held.values())
        chosen = 0
        for one in islice(self._waiting, max(0, self._room())):
            ahead = self._look_ahead.of(one.measured)
            if count >= self.slots and (long >= self.slots or count >= self.slots + ahead):
                break
            count, long, chosen = count + 1, long + (not ahead), chosen + 1
        return chosen

    def _long(self, one: Delivery, now: float) -> bool:
        """Whether it holds, or will hold, a slot for long. A function that is short at most times may be long once."""
        if one.stage is Stage.HANDED and now - one.since > AHEAD_SECONDS:
            return True
        return one.stage in (Stage.ASKED, Stage.GRANTED, Stage.HANDED) and not self._look_ahead.of(one.measured)

    # -- asking ----------------------------------------------------------------------------------------------------

    def _next_batch(self) -> list[Delivery]:
        incarnation = self._identity.incarnation_id
        with self._lock:
            batch = [self._waiting.popleft() for _ in range(self._askable())]
            for one in batch:
                one.nonce, one.incarnation = uuid4(), incarnation
                self._move(one, Stage.ASKED)
                self._held[one.nonce] = one
        return batch

    def round(self) -> None:
        """Ask for what may be asked for now, and give back what waited too long. One turn of the desk's own thread."""
        batch = self._next_batch()
        if batch:
            self._ask(batch)
        if self._draining or time.monotonic() >= self._next_sweep:
            self._next_sweep = time.monotonic() + SWEEP_SECONDS
            self._sweep()

    def _ask_and_sweep(self) -> None:
        while True:
            try:
                self.round()
                close_old_connections()
                if not self._stopping:
                    self._sleep()
            except Exception:
                logger.exception("asking for permits failed")
                time.sleep(0.1)
            if self._stopping:
                return

    def _sleep(self) -> None:
        # Asleep first, looked second: whoever adds something after the look rings.
        self._asleep = True
        with self._lock:
            nothing = self._askable() == 0
        if nothing:
            with contextlib.suppress(Empty):
                self._bell.get(timeout=SWEEP_SECONDS)
        self._asleep = False
        with contextlib.suppress(Empty):
            while True:
                self._bell.get_nowait()

    def _ring(self) -> None:
        if self._asleep:
            self._bell.put(None)

    def _ask(self, batch: list[Delivery]) -> None:
        asks = [PermitAsk(one.ticket.run_id, one.ticket.token, one.nonce) for one in batch]
        reach("permit.before_ask")
        answered: list[Permitted | Refused] | None = None
        try:
            answered = answers(self._control_plane, batch[0].incarnation, asks, worth_it=self._worth_asking)
        finally:
            if answered is None:
                self._give_up_asked(batch)
        if answered is None:
            return
        refused: list[Refused] = []
        with self._lock:
            for one, answer in zip(batch, answered, strict=True):
                if one.stage is not Stage.ASKED:
                    continue  # the incarnation ended meanwhile
                if isinstance(answer, Permitted):
                    one.permit = answer
                    self._move(one, Stage.GRANTED)
                    self._stock.append(one)
                else:
                    self._move(one, Stage.GONE)
                    del self._held[one.nonce]
                    refused.append(answer)
                self._answered.append(one)
        self._wake_event_loop()
        for answer in refused:
            PERMITS_REFUSED.labels(reason=answer.reason).inc()
            logger.info("permit refused", extra={"run_id": answer.run_id, "reason": answer.reason})

    def _worth_asking(self) -> bool:
        return not self._draining and self._registry.lease_valid()

    def _give_up_asked(self, batch: list[Delivery]) -> None:
        for one in batch:
            self._give_up(one, "the control plane did not answer")
        with self._lock:
            self._answered += batch
        self._wake_event_loop()

    def _give_up(self, one: Delivery, reason: str) -> None:
        self._on_give_up(one.held, reason)
        with self._lock:
            if self._held.pop(one.nonce, None) is not None:
                if one.stage in (Stage.HANDED, Stage.ENDED):
                    self._dropped.append(one)
                self._move(one, Stage.GONE)

    def _sweep(self) -> None:
        """Give back what waited too long, and settle what was handed over and never told about."""
        now, now_ns = time.monotonic(), boottime_ns()
        patience = 0.0 if self._draining else STOCK_SECONDS_MAX
        for held in self.withdraw(lambda one: now - one.since >= patience):
            self._on_give_up(held, "the worker drains" if self._draining else "no slot became free in time")
            self.settle([held.nonce])
        expired = now_ns - int(VALID_MARGIN_SECONDS * 1e9)
        with self._lock:
            silent = [
                one for one in self._held.values()
                if one.stage in (Stage.HANDED, Stage.ENDED) and one.valid_until_ns < expired
            ]  # fmt: skip
        if not silent:
            return
        begun = {view.nonce for view in self._registry.snapshot()}
        for one in silent:
            if one.nonce.bytes in begun or self._has_outcome(one.nonce):
                continue
            with self._lock:
                if self._held.get(one.nonce) is not one:
                    continue  # told about meanwhile
            self._give_up(one, "handed to the pool and never begun")
            self._wake_event_loop()

    def _wake_event_loop(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake_write, b"\0")
