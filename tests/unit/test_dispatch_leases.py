"""When a lease is over: never too early, whatever happens to the reaper, the database or the worker."""

from __future__ import annotations

from uuid import UUID, uuid4

from hypothesis import given
from hypothesis import strategies as st

from dispatch.leases import Lease, LeaseWatch

A, B = uuid4(), uuid4()
TICK = 1.0


class Bench:
    """A watch with a clock that the test moves."""

    def __init__(self) -> None:
        self.watch = LeaseWatch(TICK)
        self.at = 100.0

    def look(self, seconds: float = TICK, **counters: int) -> set[UUID]:
        self.at += seconds
        leases = {{"a": A, "b": B}[name]: Lease(counter, 10.0) for name, counter in counters.items()}
        return set(self.watch.observe(leases, asked_at=self.at, answered_at=self.at))


def test_a_counter_that_stands_still_for_the_whole_lease_is_over():
    bench = Bench()
    verdicts = [bench.look(a=1) for _ in range(11)]
    assert verdicts == [set()] * 10 + [{A}]


def test_a_renewal_begins_the_lease_afresh():
    bench = Bench()
    for _ in range(10):
        assert bench.look(a=1) == set()
    for _ in range(10):
        assert bench.look(a=2) == set()
    assert bench.look(a=2) == {A}


def test_one_worker_that_is_silent_does_not_concern_the_other():
    bench = Bench()
    for counter in range(10):
        bench.look(a=1, b=counter)
    assert bench.look(a=1, b=10) == {A}


def test_a_failed_read_grants_everybody_a_full_lease():
    bench = Bench()
    for _ in range(9):
        bench.look(a=1)
    bench.watch.interrupted()
    for _ in range(10):
        assert bench.look(a=1) == set()
    assert bench.look(a=1) == {A}


def test_a_reaper_that_was_stopped_grants_everybody_a_full_lease():
    bench = Bench()
    for _ in range(9):
        bench.look(a=1)
    assert bench.look(seconds=600, a=1) == set()
    for _ in range(9):
        assert bench.look(a=1) == set()
    assert bench.look(a=1) == {A}


def test_a_tick_that_is_only_a_little_late_interrupts_nothing():
    bench = Bench()
    for _ in range(9):
        bench.look(a=1)
    assert bench.look(seconds=2.4, a=1) == {A}


def test_a_read_that_took_very_long_counts_from_its_end():
    watch = LeaseWatch(TICK)
    watch.observe({A: Lease(1, 10.0)}, asked_at=0.0, answered_at=2.0)
    late = [watch.observe({A: Lease(1, 10.0)}, asked_at=at, answered_at=at) for at in (4.0, 6.0, 8.0, 10.0, 11.9)]
    assert late == [{}] * 5
    assert watch.observe({A: Lease(1, 10.0)}, asked_at=12.0, answered_at=12.0) == {A: 1}


def test_the_time_that_the_last_read_took_does_not_count():
    watch = LeaseWatch(TICK)
    for at in range(0, 10, 2):
        watch.observe({A: Lease(1, 10.0)}, asked_at=float(at), answered_at=float(at))
    assert watch.observe({A: Lease(1, 10.0)}, asked_at=9.0, answered_at=11.0) == {}


def test_the_lease_that_the_worker_itself_goes_by_is_what_counts():
    watch = LeaseWatch(TICK)
    for at in range(5):
        assert watch.observe({A: Lease(1, 5.0), B: Lease(1, 60.0)}, asked_at=at, answered_at=at) == {}
    assert watch.observe({A: Lease(1, 5.0), B: Lease(1, 60.0)}, asked_at=5, answered_at=5) == {A: 1}


def test_one_that_was_gone_and_came_back_begins_afresh():
    bench = Bench()
    for _ in range(9):
        bench.look(a=1)
    bench.look(b=1)
    assert bench.look(a=1, b=1) == set()


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["look", "look", "look", "look", "look", "look", "renew", "fail"]),
            st.floats(0.0, 3.0),
            st.floats(0.0, 2.6),
        ),
        max_size=80,
    )
)
def test_no_verdict_comes_sooner_than_a_lease_after_the_last_renewal(steps: list[tuple[str, float, float]]):
    """Whatever the order of renewals, reads, failures and delays."""
    watch, at, counter, renewed_at = LeaseWatch(TICK), 0.0, 0, 0.0
    for what, pause, took in steps:
        at += pause
        if what == "renew":
            counter, renewed_at = counter + 1, at
        elif what == "fail":
            watch.interrupted()
        else:
            # The renewal may land at any moment of the read: the worst one for us is its very beginning.
            over = watch.observe({A: Lease(counter, 4.0)}, asked_at=at, answered_at=at + took)
            assert not over or at - renewed_at >= 4.0
            at += took
