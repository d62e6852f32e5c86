"""The shared table, with real processes on both sides of it."""

import itertools
import os
import random
import signal
import threading
import time

import pytest

from tests.processes import alive, forked, kill_and_reap, until
from workers_app.execution import table as memory
from workers_app.execution.registry import NoSeat, Registry, State, StopReason, boottime_ns
from workers_app.execution.table import BY_GUARDIAN, BY_MAIN, Table

HOUR_NS = 3600 * 10**9


def registry(*, seats=4, records=4, lease_ns=HOUR_NS):
    made = Registry.create(seats=seats, records_per_seat=records)
    made.set_lease(boottime_ns() + lease_ns)
    return made


def token(run_id):
    return run_id.to_bytes(16, "big")


def nonce(run_id):
    return (run_id + 2**100).to_bytes(16, "big")


def start_one(seat, run_id, *, deadline_ns=0, keep_running=False):
    record = seat.register(run_id, 1, token(run_id), nonce(run_id))
    assert record.grant(deadline_ns, keep_running)
    assert record.start()
    return record


def sleep_for_ever():
    signal.pause()


def only(views):
    [view] = views
    return view


def test_an_attempt_is_seen_in_each_of_its_states():
    table = registry()
    seat = table.take_seat()
    record = seat.register(7, 3, token(7), nonce(7))
    view = only(table.snapshot())
    assert (view.state, view.run_id, view.attempt, view.token, view.nonce, view.pid, view.seat) == (
        State.REGISTERED, 7, 3, token(7), nonce(7), os.getpid(), seat.number,
    )  # fmt: skip
    assert record.grant(55, True, shell=True)
    view = only(table.snapshot())
    assert (view.state, view.deadline_ns, view.keep_running, view.shell) == (State.GRANTED, 55, True, True)
    before = boottime_ns()
    assert record.start()
    view = only(table.snapshot())
    assert view.state is State.STARTED
    assert before <= view.started_ns <= boottime_ns()
    record.finish()
    assert only(table.snapshot()).state is State.FINISHED
    table.free(view)
    assert table.snapshot() == []


def test_a_refused_attempt_leaves_at_once_and_nothing_of_it_reaches_the_next_one():
    table = registry()
    seat = table.take_seat()
    first = seat.register(1, 1, token(1), nonce(1))
    first.grant(99, True, shell=True)
    assert table.request_stop(nonce(1), StopReason.CANCEL)
    first.refuse()
    assert table.snapshot() == []
    for run_id in range(2, 8):
        record = seat.register(run_id, 1, token(run_id), nonce(run_id))
        view = only(table.snapshot())
        assert (view.deadline_ns, view.keep_running, view.shell) == (0, False, False)
        assert view.stop_reason is StopReason.NONE
        assert record.stop_reason() is None
        record.refuse()


def test_a_record_that_is_freed_before_its_child_left_it_is_free_when_it_does():
    table = registry(records=1)
    seat = table.take_seat()
    record = start_one(seat, 1)
    assert table.free_nonce(nonce(1))
    assert only(table.snapshot()).state is State.STARTED
    record.finish()
    assert table.snapshot() == []
    start_one(seat, 2)
    assert only(table.snapshot()).run_id == 2
    assert not table.free_nonce(nonce(1))
    assert only(table.snapshot()).run_id == 2


def test_nothing_is_granted_while_draining_or_after_the_lease_and_nothing_starts_after_it():
    table = registry()
    seat = table.take_seat()
    granted = seat.register(1, 1, token(1), nonce(1))
    assert granted.grant(0, False)
    table.set_draining()
    assert table.draining
    late = seat.register(2, 1, token(2), nonce(2))
    assert not late.grant(0, False)
    assert granted.start()
    table.set_draining(False)
    table.set_lease(boottime_ns())
    assert not table.lease_valid()
    assert not late.grant(0, False)
    table.set_lease(boottime_ns() + HOUR_NS)
    assert late.grant(0, False)
    table.set_lease(boottime_ns())
    assert not late.start()
    assert not registry(lease_ns=-1).lease_valid()


def test_a_stop_reason_is_written_once_and_only_for_an_attempt_under_way():
    table = registry()
    seat = table.take_seat()
    record = start_one(seat, 1)
    assert record.stop_reason() is None
    assert table.request_stop(nonce(1), StopReason.CANCEL)
    assert table.request_stop(nonce(1), StopReason.DRAIN)
    assert record.stop_reason() == "cancel"
    assert only(table.snapshot()).stop_reason is StopReason.CANCEL
    record.finish()
    assert not table.request_stop(nonce(1), StopReason.LEASE)
    assert not table.request_stop(nonce(2), StopReason.LEASE)


def test_a_seat_is_freed_by_the_kernel_but_taken_again_only_when_its_records_are_freed():
    table = registry(seats=1)

    def work():
        start_one(table.take_seat(), 1)
        sleep_for_ever()

    with forked(work) as child:
        until(lambda: [v for v in table.snapshot() if v.state is State.STARTED], "started")
        assert table.seats_taken() == {0: child}
        assert table.dead_seats() == []
        with pytest.raises(NoSeat):
            table.take_seat()
        kill_and_reap(child)
    assert table.seats_taken() == {}
    view = only(table.dead_seats())
    assert (view.run_id, view.state, view.pid) == (1, State.STARTED, child)
    with pytest.raises(NoSeat):
        table.take_seat()
    table.free(view)
    assert table.snapshot() == table.dead_seats() == []
    assert start_one(table.take_seat(), 2)


def test_an_attempt_that_finished_is_dead_only_until_it_is_collected():
    table = registry()

    def work():
        seat = table.take_seat()
        start_one(seat, 1).finish()
        seat.register(2, 1, token(2), nonce(2))
        sleep_for_ever()

    with forked(work) as child:
        until(lambda: len(table.snapshot()) == 2, "both")
        table.free_nonce(nonce(1))
        kill_and_reap(child)
    assert [(view.run_id, view.state) for view in table.dead_seats()] == [(2, State.REGISTERED)]


def test_children_that_come_at_once_get_a_seat_each():
    table = registry(seats=6)

    def work():
        table.take_seat(os.getpid())
        sleep_for_ever()

    with forked(work) as a, forked(work) as b, forked(work) as c, forked(work) as d:
        taken = until(lambda: len(table.seats_taken()) == 4 and table.seats_taken(), "four seats")
        assert sorted(taken.values()) == sorted([a, b, c, d])


def test_a_process_cannot_take_a_seat_for_another_one_nor_without_the_main_process():
    table = registry()
    with pytest.raises(ValueError, match="only for itself"):
        table.take_seat(1)
    outcome_read, outcome_write = os.pipe()

    def work():
        def grandchild():
            try:
                table.take_seat()
            except NoSeat:
                os.write(outcome_write, b"refused")

        with forked(grandchild) as pid:
            os.waitpid(pid, 0)

    with forked(work) as child:
        os.waitpid(child, 0)
    os.close(outcome_write)
    assert os.read(outcome_read, 100) == b"refused"
    os.close(outcome_read)


def test_a_full_ring_waits_for_the_main_process():
    table = registry(records=2)

    def work():
        seat = table.take_seat()
        for run_id in (1, 2, 3):
            start_one(seat, run_id).finish()
        sleep_for_ever()

    with forked(work):
        until(lambda: len(table.snapshot()) == 2, "two finished")
        assert {view.run_id for view in table.snapshot()} == {1, 2}
        table.free_nonce(nonce(1))
        until(lambda: {view.run_id for view in table.snapshot()} == {2, 3}, "the third")


def test_a_child_whose_body_closed_the_table_ends_instead_of_going_on_without_protection():
    table = registry()

    def work():
        record = start_one(table.take_seat(), 1)
        os.close(table.fd)
        record.finish()

    with forked(work) as child:
        _, status = os.waitpid(child, 0)
        assert os.WTERMSIG(status) == signal.SIGKILL


def test_a_table_of_another_layout_is_refused(tmp_path):
    table = Table.create(2, 2)
    table.memory[8:16] = (99).to_bytes(8, "little")
    with pytest.raises(ValueError, match="version 99"):
        Table.attach(table.fd)


def _deadline_of(run_id):
    return run_id * 3 + HOUR_NS * 10**4


def test_readers_see_only_whole_records_while_children_write():
    table = registry(seats=2, records=2)

    def work(first):
        seat = table.take_seat()
        for run_id in itertools.count(first):
            record = seat.register(run_id, run_id % 1000, token(run_id), nonce(run_id))
            record.grant(_deadline_of(run_id), bool(run_id % 2))
            record.start()
            record.finish()

    states = set()
    seen = 0
    with forked(lambda: work(1)), forked(lambda: work(10**9)):
        until(table.snapshot, "a record")
        give_up = time.monotonic() + 30
        while (seen < 2000 or len(states) < 4) and time.monotonic() < give_up:
            for view in table.snapshot():
                seen += 1
                states.add(view.state)
                assert view.token == token(view.run_id)
                assert view.nonce == nonce(view.run_id)
                assert view.attempt == view.run_id % 1000
                if view.state >= State.GRANTED:
                    assert view.deadline_ns == _deadline_of(view.run_id)
                    assert view.keep_running == bool(view.run_id % 2)
                if view.state >= State.STARTED:
                    assert view.started_ns > 0
                if view.state is State.FINISHED:
                    table.free(view)
    assert seen >= 2000
    assert states == {State.REGISTERED, State.GRANTED, State.STARTED, State.FINISHED}


@pytest.mark.parametrize("moment", [1, 2, 3])
def test_a_record_that_changes_while_it_is_read_is_read_again(monkeypatch, moment):
    shared = Table.create(1, 1)
    shared.write_registered(0, 1, 1, token(1), nonce(1))
    shared.write_granted(0, 77, memory.KEEP_RUNNING)
    shared.write_started(0, 5)
    steps = itertools.count(1)
    writing = []

    def the_writer_comes_between():
        if not writing and next(steps) == moment:
            writing.append(True)
            shared.leave(0, memory.FREE)
            shared.write_registered(0, 2, 1, token(2), nonce(2))

    monkeypatch.setattr(memory, "_order", the_writer_comes_between)
    raw = shared.read(0)
    assert writing
    assert (raw.state, raw.run_id, raw.nonce) == (memory.REGISTERED, 2, nonce(2))
    assert (raw.deadline_ns, raw.flags, raw.generation) == (0, 0, 2)


def test_a_writer_that_was_stopped_in_the_middle_holds_up_no_reader():
    shared = Table.create(1, 2)
    shared.write_registered(0, 1, 1, token(1), nonce(1))
    word = shared._word(0)
    shared._open(word)
    shared._words[word + 9] = 12345
    began = time.monotonic()
    raw = shared.read(0)
    assert time.monotonic() - began < 0.5
    assert (raw.state, raw.run_id, raw.nonce) == (memory.REGISTERED, 1, nonce(1))


@pytest.mark.parametrize("killer", [BY_MAIN, BY_GUARDIAN])
def test_a_child_does_not_go_on_to_its_next_attempt_while_a_killer_aims_at_it(killer):
    table = registry()
    shared = table._table

    def work():
        seat = table.take_seat()
        start_one(seat, 1).finish()
        start_one(seat, 2)
        sleep_for_ever()

    aim = memory._LOCKS_AT + 1 + killer
    assert shared._lock(aim)
    with forked(work):
        until(lambda: [view for view in table.snapshot() if view.state is State.FINISHED], "finished")
        give_up = time.monotonic() + 0.2
        while time.monotonic() < give_up:
            assert [view.run_id for view in table.snapshot()] == [1]
        shared._unlock(aim)
        until(lambda: any(view.run_id == 2 for view in table.snapshot()), "the next")


class SlowKiller(Table):
    """Takes its time between the last look and the kill."""

    def _end_owner(self, seat, pid):
        time.sleep(random.random() * 0.004)
        return super()._end_owner(seat, pid)


def test_a_kill_hits_the_attempt_that_it_was_meant_for_or_nothing():
    hits = misses = 0
    rounds = 0
    while rounds < 40 or ((hits < 4 or misses < 4) and rounds < 400):
        rounds += 1
        shared = SlowKiller.create(1, 16)
        table = Registry(shared)
        table.set_lease(boottime_ns() + HOUR_NS)

        def work(table=table):
            seat = table.take_seat()
            for run_id in range(1, 16):
                record = start_one(seat, run_id)
                time.sleep(random.random() * 0.002)
                record.finish()
            sleep_for_ever()

        with forked(work) as child:
            until(table.snapshot, "begun")
            under_way = [view for view in table.snapshot() if view.state is State.STARTED]
            if not under_way:
                continue
            [view] = under_way
            time.sleep(random.random() * 0.002)
            if table.kill(view, StopReason.CANCEL):
                hits += 1
                os.waitpid(child, 0)
                last = max(table.snapshot(), key=lambda v: v.run_id)
                assert (last.run_id, last.nonce) == (view.run_id, view.nonce)
                assert last.stop_reason is StopReason.CANCEL
            else:
                misses += 1
                assert alive(child)
                until(lambda t=table: len(t.snapshot()) == 15, "all the others")
    assert hits > 3
    assert misses > 3


def test_what_was_meant_for_an_attempt_does_not_reach_its_successor_in_the_same_slot():
    table = registry(seats=1, records=1)

    def work():
        seat = table.take_seat()
        start_one(seat, 1).finish()
        start_one(seat, 2)
        sleep_for_ever()

    with forked(work) as child:
        first = until(lambda: [v for v in table.snapshot() if v.state is State.FINISHED], "finished")[0]
        table.free(first)
        second = until(lambda: [v for v in table.snapshot() if v.state is State.STARTED], "the next")[0]
        assert (first.index, first.run_id, second.run_id) == (second.index, 1, 2)
        assert not table.kill(first, StopReason.LEASE)
        assert not table.request_stop(first.nonce, StopReason.CANCEL)
        table.free(first)
        assert only(table.snapshot()) == second
        assert table.kill(second, StopReason.LEASE)
        os.waitpid(child, 0)


def test_the_right_process_is_named_by_the_lock_not_by_a_pid():
    table = registry(seats=1)

    def work():
        start_one(table.take_seat(), 1)
        sleep_for_ever()

    with forked(sleep_for_ever) as bystander, forked(work) as child:
        view = until(lambda: [v for v in table.snapshot() if v.state is State.STARTED], "started")[0]
        # As if the number were used again: the record names a process that does not own the seat.
        shared = table._table
        shared._words[shared._word(view.index) + 11] = bystander
        assert not table.kill(view, StopReason.CANCEL)
        assert alive(bystander)
        assert alive(child)
        shared._words[shared._word(view.index) + 11] = child
        assert table.kill(view, StopReason.CANCEL)
        os.waitpid(child, 0)
        # Nobody owns the seat any more.
        assert not table.kill(view, StopReason.CANCEL)


def test_threads_of_the_worker_have_a_seat_each_and_say_so_from_the_first_moment():
    table = registry(seats=16)
    seats, start = [], threading.Barrier(12)

    def sit(run_id):
        start.wait()
        seat = table.take_seat(in_worker=True)
        seats.append(seat.number)
        seat.register(run_id, 1, token(run_id), nonce(run_id))

    threads = [threading.Thread(target=sit, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(set(seats)) == 12
    assert {(view.in_worker, view.state) for view in table.snapshot()} == {(True, State.REGISTERED)}
    assert table.dead_seats() == [], "a thread's seat lives as long as its process"


def test_a_grant_leaves_the_mark_of_a_thread_and_a_process_has_none():
    table = registry()
    record = table.take_seat(in_worker=True).register(1, 1, token(1), nonce(1))
    record.grant(5, True, shell=True)
    view = only(table.snapshot())
    assert (view.in_worker, view.keep_running, view.shell) == (True, True, True)
    record.refuse()
    start_one(table.take_seat(), 2)
    assert not only(table.snapshot()).in_worker
