"""A worker process: what it holds, what it asks, what it does with the answers. As `workers_app.execution` does it.

The control-plane client, the outbox and the settings of the lease are the product's. What stands for the pool, the
table and the guardian is a list of bodies and exact time: a body ends at the very instant at which a guardian would
begin to kill it, so whatever overlaps is the protocol's fault.

Both ways of asking: `each`, where the child asks for itself (also while the main process stands still), and batched,
where the main process asks and hands over what it was granted.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final
from uuid import UUID, uuid4

from tasks_app.lifecycle import Claimed, HandBack, PermitAsk, Permitted
from tasks_app.lifecycle.recede import Held
from tasks_app.messages.reports import finish_report, hand_back_report
from tasks_app.states import Outcome
from tests.properties.promises import Body, hold
from workers_app.conf import WorkerSettings
from workers_app.control_plane.database import DatabaseControlPlane
from workers_app.control_plane.port import Hello, Renewal, RenewalAnswer
from workers_app.execution.outbox import Outbox
from workers_app.models import WorkerIncarnation

if TYPE_CHECKING:
    from tests.properties.world import World

SETTINGS: Final = WorkerSettings(lease_seconds=6.0, lease_margin_seconds=2.0, renewals_per_lease=3)
_STOPS: Final = {"cancel": Outcome.CANCELLED, "timeout": Outcome.TIMEOUT}


@dataclass(frozen=True)
class Ask:
    """A permit to be asked for: under which incarnation is settled when it is first asked."""

    message: Claimed
    nonce: UUID
    incarnation: UUID

    @property
    def held(self) -> Held:
        """As lists of attempts name it."""
        return Held(self.message.id, self.message.attempt, self.message.token, self.nonce)


class WorkerProcess:
    """One worker by its name, over its starts. up: there is a process; stopped: its main process stands still."""

    def __init__(self, world: World, name: str, *, each: bool) -> None:
        """Starts at once."""
        self.world, self.name, self.each = world, name, each
        self.plane = DatabaseControlPlane(world.clock, SETTINGS.lease_seconds, in_callers_transaction=True)
        self.begin()

    def begin(self) -> None:
        """A new process, with nothing in its hands."""
        self.up, self.stopped, self.cut = True, False, False
        self._forget_all()
        self._register()

    def _forget_all(self) -> None:
        self.outbox = Outbox()
        self.asked: dict[UUID, Ask] = {}
        self.granted: dict[UUID, tuple[Ask, Permitted]] = {}
        self.bodies: dict[UUID, Body] = {}
        self.given_up: dict[UUID, HandBack] = {}
        self.unknown: set[UUID] = set()
        #: A renewal under way: when it was sent, and the lists of then.
        self.renewal: tuple[float, Renewal] | None = None
        #: What children said while the main process stood still.
        self.unread: list[Callable[[], None]] = []
        self.put_at: dict[UUID, float] = {}

    def _register(self) -> None:
        sent = self.world.at
        hello = Hello(self.name, ["default"], [], {}, 8, "prefork", "host", 1, "1")
        self.incarnation = self.plane.register(hello)
        self._hold_from(sent)

    def _hold_from(self, sent: float) -> None:
        self.lease_until = sent + SETTINGS.hold_seconds
        self.renew_at = sent + SETTINGS.renew_every_seconds

    @property
    def acts(self) -> bool:
        """Its main process goes on."""
        return self.up and not self.stopped

    @property
    def reaches(self) -> bool:
        """And the control plane answers it."""
        return self.acts and not self.cut

    @property
    def leased(self) -> bool:
        """Its lease is good, as it sees it."""
        return self.world.at < self.lease_until

    def _main_hears(self, what: Callable[[], None]) -> None:
        if self.stopped:
            self.unread.append(what)
        else:
            what()

    # -- deliveries ------------------------------------------------------------------------------------------------

    def take(self, message: Claimed) -> UUID | None:
        """A delivery registers; its nonce, or None when it was handed back at once."""
        if not self.leased:
            self._tell_given_up(HandBack(message.id, message.token, None, "no lease"))
            return None
        nonce = uuid4()
        self.asked[nonce] = Ask(message, nonce, self.incarnation)
        return nonce

    def can_ask(self) -> list[UUID]:
        """Deliveries that somebody here can ask for now. A child of its own does so without the main process."""
        able = self.up and not self.cut and (self.each or self.acts)
        return list(self.asked) if able else []

    def ask(self, nonce: UUID) -> None:
        """Ask for its permit. Without an answer it is still to be asked for, with the same nonce, or is given up."""
        ask, happens = self.asked[nonce], self.world.happens
        given_up = happens("ask late, delivery given up")
        if given_up or happens("ask late"):
            self.world.late.append(lambda: self.arrives(ask))
            if given_up:
                self.give_up(nonce)
            return
        answer = self.arrives(ask)
        if happens("answer lost"):
            return
        del self.asked[nonce]
        if isinstance(answer, Permitted):
            self.granted[nonce] = (ask, answer)
            if self.each:
                self.start(nonce)

    def arrives(self, ask: Ask) -> object:
        """The control plane is asked, sooner or later, and whoever waits for the answer."""
        over = WorkerIncarnation.objects.filter(pk=ask.incarnation, over_at__isnull=False).exists()
        [answer] = self.plane.permit(ask.incarnation, [PermitAsk(ask.message.id, ask.message.token, ask.nonce)])
        if isinstance(answer, Permitted):
            self.world.promises.permitted(answer.run_id, ask.nonce, over=over)
        return answer

    def start(self, nonce: UUID) -> None:
        """What was granted begins, where it still may."""
        ask, permit = self.granted.pop(nonce)
        if not self.leased or ask.incarnation != self.incarnation:
            self._give_up(ask)
            return
        if permit.stop_reason:
            self._conclude(ask.held, _STOPS[permit.stop_reason])
            return
        body = Body(permit.run_id, permit.attempt, permit.token, nonce, self.world.at + permit.timeout_seconds)
        self.bodies[nonce] = body
        self.world.promises.began(body)

    def give_up(self, nonce: UUID) -> None:
        """A delivery without an answer is given up; whether it was permitted is not known."""
        self._give_up(self.asked.pop(nonce))

    def _give_up(self, ask: Ask) -> None:
        handed = HandBack(ask.message.id, ask.message.token, ask.nonce, "given up")

        def tell() -> None:
            self.given_up[ask.nonce] = handed
            self._tell_given_up(handed)

        self._main_hears(tell)

    def _tell_given_up(self, handed: HandBack) -> None:
        report = hand_back_report(handed.run_id, handed.token, handed.nonce, handed.reason)
        self.outbox.put_telemetry(json.dumps(report).encode())

    # -- ends ------------------------------------------------------------------------------------------------------

    def end(self, body: Body, outcome: Outcome, *, crash: bool = False) -> None:
        """A body ends: by itself, with its child, or by a stop."""
        body.ended = outcome.value
        self.world.promises.said[body.nonce].add(outcome.value)
        held = Held(body.run_id, body.attempt, body.token, body.nonce)

        def tell() -> None:
            self._put_outcome(held, outcome, crash=crash)
            self.bodies.pop(body.nonce, None)

        self._main_hears(tell)

    def _conclude(self, held: Held, outcome: Outcome, *, crash: bool = False) -> None:
        """An attempt whose body never began here ends."""
        self.world.promises.said[held.nonce].add(outcome.value)
        self._main_hears(lambda: self._put_outcome(held, outcome, crash=crash))

    def _put_outcome(self, held: Held, outcome: Outcome, *, crash: bool) -> None:
        report = finish_report(
            run_id=held.run_id, attempt=held.attempt, token=held.token, nonce=held.nonce, outcome=outcome,
            started_at=self.world.clock.now().timestamp(), duration_seconds=0.0, counts_as_crash=crash,
        )  # fmt: skip
        if self.outbox.put_outcome(held, json.dumps(report).encode()):
            self.put_at[held.nonce] = self.world.at

    def guard(self) -> None:
        """The guardian's look: deadlines and the lease hold whatever the main process does."""
        for body in self.under_way():
            if self.world.at >= body.ends_at:
                self.end(body, Outcome.TIMEOUT)
        if not self.up or self.leased:
            return
        self.world.promises.gone.add(self.incarnation)
        for body in self.under_way():
            self.end(body, Outcome.LOST)
        if self.each:  # children that have registered end, too
            for nonce in list(self.asked):
                self.give_up(nonce)
        for nonce in list(self.granted) if self.acts else []:
            self.start(nonce)

    def under_way(self) -> list[Body]:
        """Bodies that run here."""
        return [body for body in self.bodies.values() if body.ended is None]

    def kill(self) -> None:
        """SIGKILL: children end with their main process, and all that it knew is gone."""
        self.world.promises.gone.add(self.incarnation)
        self._asks_are_on_their_way()
        for body in self.under_way():
            body.ended = "killed"
        self._forget_all()
        self.up = self.stopped = False

    def cut_off(self) -> None:
        """The database does not answer it any more; what it asks now gets there when nobody waits for it."""
        self.cut = True
        self._asks_are_on_their_way()

    def _asks_are_on_their_way(self) -> None:
        self.world.late += [partial(self.arrives, ask) for ask in self.asked.values()]

    def resume(self) -> None:
        """SIGCONT."""
        self.stopped = False
        unread, self.unread = self.unread, []
        for what in unread:
            what()

    def goodbye(self) -> None:
        """Shut down in order: what never began goes back, bodies end, outcomes are handed in, the lease ends."""
        for nonce in list(self.asked):
            self.give_up(nonce)
        for ask, _ in self.granted.values():
            self._give_up(ask)
        for body in self.under_way():
            self.end(body, Outcome.LOST)
        if self.given_up:
            self.plane.hand_back(list(self.given_up.values()))
        self._hand_in([item.held.nonce for item in self.outbox.unsettled()])
        self.world.promises.gone.add(self.incarnation)
        self.plane.goodbye(self.incarnation)
        self._forget_all()
        self.up = False

    # -- reports and the lease -------------------------------------------------------------------------------------

    def flush(self) -> list[bytes]:
        """Publish what waits; what arrives at the broker."""
        nonces, payloads = self.outbox.batch(500, 1 << 20)
        if payloads and self.world.happens("reports not confirmed"):
            self.outbox.unpublished(nonces, payloads)
        else:
            self.outbox.published(nonces)
        return payloads

    def begin_renewal(self) -> None:
        """The lists are taken and sent; others go on meanwhile."""
        if self.renewal is None:
            finished = [item.held for item in self.outbox.unsettled()]
            running = [Held(body.run_id, body.attempt, body.token, body.nonce) for body in self.bodies.values()]
            running += [ask.held for ask, _ in self.granted.values()]
            self.renewal = (self.world.at, Renewal(running, finished, list(self.asked)))

    def renew(self) -> None:
        """The renewal under way, or a new one, arrives and is answered."""
        self.begin_renewal()
        assert self.renewal is not None
        (sent, renewal), self.renewal = self.renewal, None
        own = self.incarnation
        if self.world.happens("renewal late"):
            self.world.late.append(lambda: self.plane.renew(own, renewal))
            return
        answer = self.plane.renew(own, renewal)
        if self.world.happens("renewal's answer lost"):
            return
        if not answer.alive:
            self._begin_again()
            return
        self._hold_from(sent)
        self._obey(answer)
        late = self.world.at - 2 * SETTINGS.renew_every_seconds
        self._hand_in([item.held.nonce for item in self.outbox.unsettled() if self.put_at[item.held.nonce] <= late])

    def _obey(self, answer: RenewalAnswer) -> None:
        self.outbox.settle(answer.recorded)
        for nonce, (ask, _) in list(self.granted.items()):
            if nonce in answer.void or nonce in answer.stops:
                del self.granted[nonce]
            if nonce in answer.stops:
                self._conclude(ask.held, _STOPS[answer.stops[nonce]])
        for body in self.under_way():
            if body.nonce in answer.void:
                self.end(body, Outcome.LOST)
            elif body.nonce in answer.stops:
                self.end(body, _STOPS[answer.stops[body.nonce]])
        seen = {held.nonce: held for held in answer.unknown}
        listed = {*self.asked, *self.granted, *self.bodies}
        for nonce in [nonce for nonce in seen if nonce in self.unknown and nonce not in listed]:
            # What nobody here knows of would have to end as lost, although no body began.
            hold(nonce in self.given_up, f"G2: run {seen[nonce].run_id} is held by a worker that never heard of it")
            self.plane.hand_back([self.given_up[nonce]])
        self.unknown = set(seen)

    def _begin_again(self) -> None:
        self.world.promises.gone.add(self.incarnation)
        killed = self.under_way()
        self._forget_all()
        self._register()
        for body in killed:
            self.end(body, Outcome.LOST)

    def _hand_in(self, nonces: list[UUID]) -> None:
        items = [item for item in self.outbox.unsettled() if item.held.nonce in nonces]
        if items:
            self.plane.hand_in(self.incarnation, [json.loads(item.payload) for item in items])
            self.outbox.settle({item.held.nonce for item in items})
