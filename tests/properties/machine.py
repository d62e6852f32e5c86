"""The steps, for Hypothesis: sixteen that are usual, three of faults."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, TypeVar

from django.db import connection, transaction
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from tasks_app.states import Outcome
from tests.properties.world import World

T = TypeVar("T")

#: Stands for "one of those that there are", whatever their number.
PLACE = st.integers(0, 11)
WORKER = st.integers(0, 1)
RETRIES = st.sampled_from([1, 3, 0])
ENDS = st.sampled_from([Outcome.COMPLETED, Outcome.FAILED])


class Lifecycle(RuleBasedStateMachine):
    """Each example happens inside a transaction that is rolled back."""

    #: How many examples were begun.
    examples: ClassVar[int] = 0

    def __init__(self) -> None:
        """An empty database."""
        super().__init__()
        type(self).examples += 1
        self.transaction = transaction.atomic()
        self.transaction.__enter__()
        self.world: World | None = None
        self.sound = True

    def teardown(self) -> None:
        """What is left comes to rest, unless something was found before."""
        try:
            if self.world is not None and self.sound and not connection.needs_rollback:
                with self.world.interludes():
                    self.world.come_to_rest()
        finally:
            transaction.set_rollback(True)
            self.transaction.__exit__(None, None, None)

    @initialize(each=st.booleans(), busy=st.booleans(), count=st.integers(1, 3), max_retries=RETRIES)
    def open(self, each: bool, busy: bool, count: int, max_retries: int) -> None:
        self.world = World(each=each, busy=busy)
        self._act(lambda: self.world.submit(count, max_retries, 60))

    # -- what is usual ---------------------------------------------------------------------------------------------

    @rule(count=st.integers(1, 3), max_retries=RETRIES, timeout=st.sampled_from([60, 60, 4]))
    def submit(self, count: int, max_retries: int, timeout: int) -> None:
        self._act(lambda: self.world.submit(count, max_retries, timeout))

    @rule(count=st.integers(1, 4))
    def dispatch(self, count: int) -> None:
        self._act(lambda: self.world.dispatch(count))

    @precondition(lambda self: self.world.messages)
    @rule(place=PLACE, to=WORKER)
    def deliver(self, place: int, to: int) -> None:
        worker, message = self.world.workers[to], _one(self.world.messages, place)
        if worker.acts:
            self.world.messages.remove(message)
            self._act(lambda: worker.take(message))

    @precondition(lambda self: any(worker.can_ask() for worker in self.world.workers))
    @rule(place=PLACE)
    def ask(self, place: int) -> None:
        worker, nonce = _one([(worker, nonce) for worker in self.world.workers for nonce in worker.can_ask()], place)
        self._act(lambda: worker.ask(nonce))

    @precondition(lambda self: any(worker.granted for worker in self.world.workers))
    @rule(place=PLACE)
    def start(self, place: int) -> None:
        worker, nonce = _one([(worker, nonce) for worker in self.world.workers for nonce in worker.granted], place)
        if worker.acts:
            self._act(lambda: worker.start(nonce))

    @precondition(lambda self: self.world.bodies())
    @rule(place=PLACE, outcome=ENDS)
    def end_body(self, place: int, outcome: Outcome) -> None:
        worker, body = _one(self.world.bodies(), place)
        self._act(lambda: worker.end(body, outcome))

    @precondition(lambda self: any(not worker.outbox.empty() for worker in self.world.workers))
    @rule(of=WORKER)
    def flush(self, of: int) -> None:
        self._act(lambda: self.world.flush(self.world.workers[of]))

    @precondition(lambda self: self.world.reports)
    @rule(count=st.integers(1, 4), backwards=st.booleans())
    def ingest(self, count: int, backwards: bool) -> None:
        reports = self.world.reports
        self._act(lambda: self.world.ingest(reports[-count:][::-1] if backwards else reports[:count]))

    @rule(ticks=st.integers(1, 4))
    def pass_time(self, ticks: int) -> None:
        self._act(lambda: self.world.pass_time(ticks))

    @rule(ticks=st.integers(1, 3), outcome=st.none() | ENDS)
    def go_on(self, ticks: int, outcome: Outcome | None) -> None:
        self._act(lambda: self.world.go_on(ticks, outcome))

    @rule()
    def go_on_for_a_lease(self) -> None:
        self._act(lambda: self.world.go_on(8, None))

    @rule(of=WORKER, arrives=st.booleans())
    def renew(self, of: int, arrives: bool) -> None:
        worker = self.world.workers[of]
        if worker.reaches:
            self._act(worker.renew if arrives else worker.begin_renewal)

    @precondition(lambda self: self.world.late)
    @rule(place=PLACE)
    def what_was_late_happens(self, place: int) -> None:
        self._act(self.world.late.pop(place % len(self.world.late)))

    @rule(what=st.sampled_from(["cancel", "cancel", "cancel", "release", "go on", "pause"]), place=PLACE)
    def a_person_decides(self, what: str, place: int) -> None:
        world = self.world
        if what == "cancel":
            self._act(lambda: world.cancel(_one(sorted(world.promises.max_retries), place)))
        else:
            self._act(world.release if what == "release" else lambda: world.pause(what == "pause"))

    @precondition(lambda self: self.world.reaper_stopped or any(not worker.reaches for worker in self.world.workers))
    @rule(of=WORKER)
    def repair(self, of: int) -> None:
        worker = self.world.workers[of]
        worker.cut = False
        self.world.reaper_stopped = False
        if worker.stopped:
            self._act(worker.resume)
        if not worker.up:
            self._act(worker.begin)

    # -- faults ----------------------------------------------------------------------------------------------------

    @rule(
        what=st.sampled_from(
            ["message lost", "message twice", "message late", "messages not confirmed", "report lost", "report twice",
             "report late", "reports not confirmed", "answer lost", "ask late", "ask late, delivery given up",
             "renewal late", "renewal's answer lost", "dispatcher killed"]
        )
    )  # fmt: skip
    def fault_on_the_way(self, what: str) -> None:
        self.world.armed.add(what)

    @rule(what=st.sampled_from(["killed", "stopped", "cut off", "shut down", "child killed"]), of=WORKER, place=PLACE)
    def fault_of_a_worker(self, what: str, of: int, place: int) -> None:
        world, worker = self.world, self.world.workers[of]
        bodies = world.bodies()
        if what == "killed" and worker.up:
            worker.kill()
        elif what == "stopped" and worker.up:
            worker.stopped = True
        elif what == "cut off" and worker.up:
            worker.cut_off()
        elif what == "shut down" and worker.reaches:
            self._act(worker.goodbye)
        elif what == "child killed" and bodies:
            its, body = _one(bodies, place)
            its.end(body, Outcome.LOST, crash=True)

    @rule(
        what=st.sampled_from(
            ["broker emptied", "reaper stopped", "reaper restarted", "permit forgotten", "clock jumps", "database away"]
        ),
        place=PLACE,
    )  # fmt: skip
    def fault_of_a_server(self, what: str, place: int) -> None:
        world, bodies = self.world, self.world.bodies()
        if what == "broker emptied":
            world.messages.clear()
            world.reports.clear()
        elif what == "reaper stopped":
            world.reaper_stopped = True
        elif what == "reaper restarted":
            world.restart_reaper()
        elif what == "permit forgotten" and bodies:
            world.forget_permit(_one(bodies, place)[1].run_id)
        elif what == "clock jumps":
            world.jump(30)
        elif what == "database away":
            self._act(lambda: world.pass_time(place, database_away=True))

    def _act(self, step: Callable[[], object]) -> None:
        """Take it, and look. What finds something is not followed by the search for what does not come to rest."""
        assert self.world is not None
        self.sound = False
        with self.world.interludes():
            step()
        self.world.promises.look()
        self.sound = True


def _one(choices: Sequence[T], place: int) -> T:
    return choices[place % len(choices)]
