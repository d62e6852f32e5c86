"""The desk between the broker and the pool, with real permits on both databases and a pool that the test plays."""

from __future__ import annotations

import dataclasses
import pickle
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from uuid import UUID, uuid4

import pytest

from tasks_app import lifecycle
from tasks_app.lifecycle import Claimed, HandBack
from tasks_app.lifecycle.recede import Held
from tasks_app.messages.execution import Ticket
from tasks_app.models import TaskRun
from tests.integration.domain import NOW, AWorker, FixedClock, a_task, claimed, submitted
from workers_app.control_plane.database import DatabaseControlPlane
from workers_app.control_plane.port import Unreachable
from workers_app.execution import asking, permit_desk
from workers_app.execution.child import Start
from workers_app.execution.grant import GRANT, Grant, strip, taken
from workers_app.execution.identity import SharedIdentity
from workers_app.execution.look_ahead import AHEAD_MAX, AHEAD_SECONDS, SAMPLES_MIN
from workers_app.execution.permit_desk import Delivery, PermitDesk
from workers_app.execution.registry import Registry, boottime_ns

# The control plane ends the transaction that a failed call left: each test has the tables to itself.
pytestmark = pytest.mark.django_db(transaction=True)
FUNCTION = "demo.noop"


@dataclass
class Scene:
    """A desk, and what the pool and the broker were told."""

    slots: int = 2
    handed: list[Delivery] = field(default_factory=list)
    acknowledged: list[Delivery] = field(default_factory=list)
    refused: list[Delivery] = field(default_factory=list)
    dropped: list[Delivery] = field(default_factory=list)
    given_up: list[tuple[Held, str]] = field(default_factory=list)
    prefetched: int = 0
    outcomes: set[UUID] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.worker = AWorker(slots=self.slots)
        self.identity = SharedIdentity(self.worker.name)
        self.identity.incarnation_id = self.worker.incarnation.pk
        self.registry = Registry.create(seats=8)
        self.registry.set_lease(boottime_ns() + 60 * 10**9)
        self.control_plane = DatabaseControlPlane(FixedClock(), 60.0).as_worker(self.worker.name)
        self.desk = PermitDesk(
            control_plane=self.control_plane, identity=self.identity, registry=self.registry, slots=self.slots,
            on_give_up=self.give_up, has_outcome=self.outcomes.__contains__,
        )  # fmt: skip
        self.desk.connect(self.handed.append, self.settle, self.dropped.append, self.prefetch)

    def give_up(self, held: Held, reason: str) -> None:
        self.given_up.append((held, reason))
        lifecycle.hand_back([HandBack(held.run_id, held.token, held.nonce, reason)], now=NOW)

    def settle(self, answered: Sequence[Delivery]) -> None:
        for delivery in answered:
            (self.acknowledged if delivery.permit is not None else self.refused).append(delivery)

    def prefetch(self, more: int) -> None:
        self.prefetched += more

    def take(self, *runs: Claimed) -> None:
        for run in runs:
            ticket = Ticket(run.id, run.task_id, run.task_name, run.attempt, run.token, "", "")
            self.desk.take(SimpleNamespace(), FUNCTION, ticket)

    def round(self) -> None:
        self.desk.round()
        self.desk.feed()

    def finish(self, delivery: Delivery, milliseconds: int = 1) -> None:
        self.desk.forget(delivery.nonce, milliseconds)
        self.desk.left(delivery)

    def measure(self, milliseconds: int) -> None:
        """Let the function be known."""
        for _ in range(SAMPLES_MIN):
            self.take(*dispatched(1))
            self.round()
            self.finish(self.handed[-1], milliseconds)
        self.handed.clear()
        self.acknowledged.clear()


def dispatched(count: int) -> list[Claimed]:
    return claimed(*submitted(a_task(), count=count))


def states(runs: list[Claimed]) -> list[str]:
    found = dict(TaskRun.objects.values_list("pk", "status"))
    return [found[run.id] for run in runs]


def test_of_an_unmeasured_function_only_as_many_are_permitted_as_there_are_slots():
    scene = Scene()
    runs = dispatched(5)
    scene.take(*runs)
    scene.round()
    scene.round()
    assert [one.ticket.run_id for one in scene.handed] == [runs[0].id, runs[1].id]
    assert sorted(states(runs)) == ["DISPATCHED"] * 3 + ["RUNNING"] * 2
    assert scene.acknowledged == scene.handed
    scene.finish(scene.handed[0])
    scene.round()
    assert scene.handed[2].ticket.run_id == runs[2].id


def test_a_short_function_is_permitted_ahead_and_handed_over_slot_by_slot():
    scene = Scene()
    scene.measure(1)
    runs = dispatched(60)
    scene.take(*runs)
    scene.round()
    assert states(runs).count("RUNNING") == scene.slots + AHEAD_MAX
    assert len(scene.handed) == scene.slots
    assert scene.prefetched == AHEAD_MAX
    scene.desk.left(scene.handed[0])
    assert len(scene.handed) == scene.slots + 1, "the pool has room again, and the next is there already"


def test_few_deliveries_gather_while_the_stock_lasts_a_moment():
    scene = Scene()
    scene.measure(1)
    runs = dispatched(scene.slots + AHEAD_MAX + 3)
    scene.take(*runs[:-3])
    scene.round()
    scene.take(*runs[-3:])
    for _ in range(AHEAD_MAX - AHEAD_MAX // 4 - 1):
        scene.finish(scene.handed[-1])
    scene.round()
    assert states(runs)[-3:] == ["DISPATCHED"] * 3, "more than a quarter of the stock is left"
    scene.finish(scene.handed[-1])
    scene.round()
    assert states(runs)[-3:] == ["RUNNING"] * 3


@pytest.mark.parametrize(("milliseconds", "ahead"), [(10, 20), (100, 2), (150, 1), (300, 0)])
def test_the_look_ahead_is_what_the_slots_get_through_in_a_tenth_of_a_second(milliseconds, ahead):
    scene = Scene()
    scene.measure(milliseconds)
    runs = dispatched(30)
    scene.take(*runs)
    scene.round()
    assert states(runs).count("RUNNING") == scene.slots + ahead


def test_a_duplicate_is_refused_and_acknowledged():
    scene = Scene()
    [run] = dispatched(1)
    scene.take(run, run)
    scene.round()
    assert len(scene.handed) == 1
    assert [one.ticket.run_id for one in scene.refused] == [run.id]
    assert [held.run_id for held in scene.desk.lists()[0]] == [run.id], "the refused one is on no list"


def test_every_stage_is_on_a_list_until_the_outcome_is_elsewhere():
    scene = Scene()
    scene.measure(1)
    scene.take(*dispatched(3))
    scene.round()
    running, asked = scene.desk.lists()
    assert len(running) == 3
    assert not asked
    scene.desk.left(scene.handed[0])
    assert len(scene.desk.lists()[0]) == 3, "the pool's result is not the outcome"
    scene.desk.forget(scene.handed[0].nonce, 1)
    assert len(scene.desk.lists()[0]) == 2


def test_while_it_asks_the_nonces_are_registered_and_prove_nothing():
    scene = Scene()
    seen = []

    permit = scene.control_plane.permit

    def watching(incarnation, asks):
        seen.append(scene.desk.lists())
        return permit(incarnation, asks)

    scene.control_plane.permit = watching
    scene.take(*dispatched(1))
    scene.round()
    [(running, asked)] = seen
    assert (running, asked) == ([], [scene.handed[0].nonce])


def test_a_drain_gives_back_what_is_granted_and_asks_for_nothing_more():
    scene = Scene()
    scene.measure(1)
    runs = dispatched(6)
    scene.take(*runs)
    scene.round()
    late = dispatched(1)
    scene.desk.begin_drain()
    scene.take(*late)
    scene.round()
    assert states(runs).count("RUNNING") == scene.slots
    assert states(runs).count("PENDING") == 4
    assert states(late) == ["DISPATCHED"]
    assert set(TaskRun.objects.values_list("attempt", flat=True)) == {1}, "no attempt was used up"
    scene.desk.left(scene.handed[0])
    assert len(scene.handed) == scene.slots


def test_a_grant_that_finds_no_slot_goes_back_unused(monkeypatch):
    scene = Scene()
    scene.measure(1)
    runs = dispatched(5)
    scene.take(*runs)
    scene.round()
    monkeypatch.setattr(permit_desk, "STOCK_SECONDS_MAX", 0.0)
    scene.desk._next_sweep = 0.0
    scene.round()
    assert sorted(states(runs)) == ["PENDING"] * 3 + ["RUNNING"] * 2
    assert {reason for _, reason in scene.given_up} == {"no slot became free in time"}


def test_what_the_pool_dropped_goes_back_when_nobody_can_start_it_any_more(monkeypatch):
    scene = Scene()
    [run] = dispatched(1)
    scene.take(run)
    monkeypatch.setattr(permit_desk, "VALID_SECONDS", 0.05)
    monkeypatch.setattr(permit_desk, "VALID_MARGIN_SECONDS", 0.05)
    scene.round()
    scene.desk._next_sweep = 0.0
    scene.round()
    assert states([run]) == ["RUNNING"], "its time is not over"
    time.sleep(0.12)
    scene.desk._next_sweep = 0.0
    scene.round()
    assert states([run]) == ["PENDING"]
    again = dispatched(2)
    scene.take(*again)
    scene.round()
    assert len(scene.handed) == 3, "its slot is free again"


@pytest.mark.parametrize("told", ["record", "outcome"])
def test_what_has_begun_is_not_given_up_however_late_the_desk_looks(monkeypatch, told):
    scene = Scene()
    [run] = dispatched(1)
    scene.take(run)
    monkeypatch.setattr(permit_desk, "VALID_SECONDS", 0.0)
    monkeypatch.setattr(permit_desk, "VALID_MARGIN_SECONDS", 0.0)
    scene.round()
    nonce = scene.handed[0].nonce
    if told == "record":
        scene.registry.take_seat().register(run.id, 1, run.token.bytes, nonce.bytes)
    else:
        scene.outcomes.add(nonce)
    time.sleep(0.01)
    scene.desk._next_sweep = 0.0
    scene.round()
    assert states([run]) == ["RUNNING"]
    assert not scene.given_up


def test_when_the_incarnation_is_over_nothing_that_it_was_granted_is_handed_over():
    scene = Scene()
    scene.measure(1)
    scene.take(*dispatched(6))
    scene.round()
    scene.desk.clear()
    scene.desk.left(scene.handed[0])
    assert len(scene.handed) == scene.slots
    assert {held.nonce for held in scene.desk.lists()[0]} == {one.nonce for one in scene.handed}


def test_without_a_lease_nothing_is_asked_for():
    scene = Scene()
    scene.registry.set_lease(0)
    runs = dispatched(1)
    scene.take(*runs)
    scene.round()
    assert states(runs) == ["DISPATCHED"]
    scene.registry.set_lease(boottime_ns() + 10**10)
    scene.round()
    assert states(runs) == ["RUNNING"]


def test_a_control_plane_that_does_not_answer_gets_its_nonces_again_and_then_the_runs_back(monkeypatch):
    scene = Scene()
    asked = []

    def away(_incarnation, asks):
        asked.append([ask.nonce for ask in asks])
        raise Unreachable("away")

    scene.control_plane.permit = away
    monkeypatch.setattr(asking, "ASK_SECONDS_MAX", 0.1)
    [run] = dispatched(1)
    scene.take(run)
    scene.round()
    assert len(asked) > 1
    assert all(nonces == asked[0] for nonces in asked)
    assert [held.nonce for held, _ in scene.given_up] == asked[0]
    assert states([run]) == ["PENDING"]
    assert [one.ticket.run_id for one in scene.refused] == [run.id], "its message is acknowledged"
    assert scene.desk.lists() == ([], [])


def test_what_is_cancelled_before_it_is_handed_over_never_is():
    scene = Scene()
    scene.measure(1)
    runs = dispatched(4)
    scene.take(*runs)
    scene.round()
    withdrawn = scene.desk.withdraw(lambda one: one.ticket.run_id == runs[2].id)
    assert [held.run_id for held in withdrawn] == [runs[2].id]
    assert len(scene.desk.lists()[0]) == 4, "listed until it stands on another list"
    scene.desk.settle([held.nonce for held in withdrawn])
    for one in list(scene.handed):
        scene.finish(one)
    assert [one.ticket.run_id for one in scene.handed] == [runs[0].id, runs[1].id, runs[3].id]


def test_a_lost_connection_drops_what_was_not_asked_for_and_keeps_grants():
    scene = Scene()
    runs = dispatched(4)
    scene.take(*runs)
    scene.round()
    scene.desk.disconnect()
    for one in list(scene.handed):
        scene.finish(one)
    scene.round()
    assert len(scene.handed) == 2
    assert sorted(states(runs)) == ["DISPATCHED"] * 2 + ["RUNNING"] * 2


def test_a_grant_is_good_for_its_time_and_its_incarnation_only():
    scene = Scene()
    scene.take(*dispatched(1))
    scene.round()
    grant = scene.handed[0].grant()
    assert a_start(grant).still_good(scene.identity)
    assert not a_start(grant._replace(valid_until_ns=boottime_ns() - 1)).still_good(scene.identity)
    scene.identity.incarnation_id = uuid4()
    assert not a_start(grant).still_good(scene.identity)


def a_start(grant) -> Start:
    return Start(
        run_id=grant.run_id, attempt=1, token=uuid4(), nonce=uuid4(), task_name="", executor="python", parameters={},
        keep_running=False, seconds=1.0, incarnation=grant.incarnation, valid_until_ns=grant.valid_until_ns,
    )  # fmt: skip


def test_a_permit_that_a_child_asked_for_is_good_for_its_incarnation_only():
    scene = Scene()
    scene.take(*dispatched(1))
    scene.round()
    asked_for = dataclasses.replace(a_start(scene.handed[0].grant()), valid_until_ns=None)
    assert asked_for.still_good(scene.identity)
    scene.identity.incarnation_id = uuid4()
    assert not asked_for.still_good(scene.identity)


def test_only_the_main_process_can_make_a_grant():
    scene = Scene()
    scene.take(*dispatched(1))
    scene.round()
    grant = scene.handed[0].grant()
    assert taken(pickle.loads(pickle.dumps({GRANT: grant}))) == grant
    assert taken({GRANT: list(grant)}) is None
    assert taken({GRANT: tuple(grant)}) is None
    assert taken({}) is None
    assert not isinstance(tuple(grant), Grant)


def test_what_a_messages_headers_bring_as_a_grant_is_thrown_away():
    headers = {"task": "x", GRANT: ["forged"]}
    strip(headers)
    assert headers == {"task": "x"}


def test_bodies_that_take_long_against_all_experience_stop_the_look_ahead():
    scene = Scene()
    scene.measure(1)
    scene.take(*dispatched(2))
    scene.round()
    for one in scene.handed:
        one.since -= AHEAD_SECONDS + 0.01
    more = dispatched(5)
    scene.take(*more)
    scene.round()
    assert states(more) == ["DISPATCHED"] * 5


def test_what_goes_back_from_the_stock_is_forgotten_by_celery_too():
    scene = Scene()
    scene.measure(1)
    runs = dispatched(6)
    scene.take(*runs)
    scene.round()
    withdrawn = scene.desk.withdraw(lambda one: one.ticket.run_id == runs[3].id)
    scene.desk.settle([held.nonce for held in withdrawn])
    scene.desk.feed()
    assert [one.ticket.run_id for one in scene.dropped] == [runs[3].id]
    assert len(scene.desk._stock) == 3


def test_at_the_end_everything_that_never_began_goes_back():
    scene = Scene()
    scene.measure(1)
    runs = dispatched(5)
    scene.take(*runs)
    scene.round()
    begun, told = scene.handed
    scene.registry.take_seat().register(begun.ticket.run_id, 1, begun.ticket.token.bytes, begun.nonce.bytes)
    scene.outcomes.add(told.nonce)
    scene.desk.settle_all()
    assert states(runs) == ["RUNNING", "RUNNING", "PENDING", "PENDING", "PENDING"]


def test_a_worker_that_shuts_down_hands_nothing_more_to_a_pool_that_closes():
    scene = Scene()
    scene.measure(1)
    scene.take(*dispatched(4))
    scene.round()
    scene.desk._draining = True
    scene.desk.left(scene.handed[0])
    assert len(scene.handed) == scene.slots
