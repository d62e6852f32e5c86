"""The checker of the fault harness on made-up histories: silent on a good one, and each verdict can be had."""

from __future__ import annotations

import dataclasses
import json

import pytest

from tests.faults.checker import check
from tests.faults.history import Execution, Recorder, parse, read_folder
from tests.faults.witness import (
    KINDS,
    AttemptRow,
    Cancel,
    EventRow,
    Fault,
    FireRow,
    IncarnationRow,
    Plan,
    RunRow,
    Submission,
    Verdict,
    Witnesses,
)


def executed(
    attempt: int = 1, started: float = 10.0, ended: float | None = 11.0, how: str = "ok", **other
) -> Execution:
    last = ended if ended is not None else other.pop("last", started + 1.0)
    ticks = tuple(started + 0.1 * n for n in range(1, int((last - started) / 0.1) + 1))
    return Execution("1", attempt, f"t{attempt}", other.pop("pid", 100), started, ticks, ended, how if ended else "")


#: One run that completed at once: every witness says the same.
GOOD = Witnesses(
    executions=[executed()],
    submissions=[Submission("a", "ok", "1", Plan())],
    runs=[RunRow("1", "COMPLETED", 1, 20, "a")],
    attempts=[AttemptRow("1", 1, "COMPLETED", "i", permitted=1.0, ended=2.0)],
    events=[EventRow("1", "attempt_ended", 1, "COMPLETED")],
    incarnations=[IncarnationRow("i", "w", 50, 10.0, renewed=5.0)],
    observed=[("1", "COMPLETED")],
)
#: Its worker was killed in the first attempt; the second one completed.
RECOVERED = dataclasses.replace(
    GOOD,
    executions=[executed(ended=None, last=10.5), executed(2, 22.0, 23.0, pid=200)],
    runs=[RunRow("1", "COMPLETED", 2, 20, "a")],
    attempts=[
        AttemptRow("1", 1, "LOST", "i", "WorkerLost", permitted=1.0, ended=17.0),
        AttemptRow("1", 2, "COMPLETED", "j", permitted=18.0, ended=19.0),
    ],
    events=[EventRow("1", "attempt_ended", 1, "PENDING"), EventRow("1", "attempt_ended", 2, "COMPLETED")],
    incarnations=[
        IncarnationRow("i", "w", 50, 10.0, renewed=5.0, over=16.5),
        IncarnationRow("j", "w2", 60, 10.0, renewed=18.0),
    ],
    faults=[Fault("kill", 10.5, pid=50, main=50)],
)


def only(verdict: Verdict) -> set[str]:
    return {kind for kind, count in verdict.counts.items() if count}


def test_a_run_that_completed_at_once_breaks_nothing():
    assert check(GOOD).holds


def test_a_run_that_came_back_after_its_worker_was_killed_breaks_nothing_and_is_listed():
    verdict = check(RECOVERED)
    assert verdict.holds, verdict.violations
    assert len(verdict.duplicates) == 1
    assert verdict.recoveries == [11.5]
    assert verdict.lost_attempts == 1


def change(base: Witnesses, **fields) -> Witnesses:
    return dataclasses.replace(base, **fields)


LOST_WITHOUT_PERMIT = change(
    GOOD,
    executions=[],
    submissions=[Submission("a", "ok", "1", Plan(max_retries=0))],
    runs=[RunRow("1", "LOST", 1, 0, "a")],
    attempts=[AttemptRow("1", 1, "LOST", "i", "WorkerLost", permitted=None)],
    events=[EventRow("1", "attempt_ended", 1, "LOST")],
    incarnations=RECOVERED.incarnations,
    faults=RECOVERED.faults,
    observed=[],
)

BROKEN = {
    "lost": change(GOOD, runs=[], executions=[], attempts=[], events=[], observed=[]),
    "stuck": change(GOOD, runs=[RunRow("1", "RUNNING", 1, 20, "a")], attempts=[], events=[], observed=[]),
    "double_starts": change(GOOD, executions=[executed(), executed(started=11.5, ended=12.0)]),
    "double_finals": change(GOOD, events=[*GOOD.events, *GOOD.events]),
    "false_losses": change(RECOVERED, faults=[]),
    "overlaps": change(RECOVERED, executions=[executed(ended=None, last=25.0), executed(2, 22.0, 26.0)]),
    "starts_after_cancel": change(
        GOOD, cancels=[Cancel("1", "cancelled", 8.0, 9.0)], events=[], attempts=[],
        runs=[RunRow("1", "CANCELLED", 1, 20, "a")], observed=[],
    ),
    "unpermitted_losses": LOST_WITHOUT_PERMIT,
    "unplanned_ends": change(
        GOOD, runs=[RunRow("1", "FAILED", 1, 0, "a")], observed=[], attempts=[AttemptRow("1", 1, "FAILED", "i")]
    ),
    "completed_unseen": change(GOOD, executions=[executed(ended=None)]),
    "unexplained_reruns": change(
        GOOD, executions=[executed(), executed(2, 12.0, 13.0)], runs=[RunRow("1", "COMPLETED", 2, 20, "a")],
    ),
    "ghosts": change(GOOD, submissions=[Submission("a", "failed", None, Plan())]),
    "double_fires": change(GOOD, fires=[FireRow("s", 5.0, "fired", "1"), FireRow("s", 5.0, "fired", "1")]),
}  # fmt: skip


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_each_violation_is_found_by_its_name(kind):
    assert kind in only(check(BROKEN[kind]))


def test_every_kind_of_violation_has_a_history_that_shows_it():
    assert set(BROKEN) == set(KINDS)


def test_a_final_state_that_was_left_is_found():
    verdict = check(change(GOOD, observed=[("1", "FAILED")]))
    assert only(verdict) == {"double_finals"}


def test_one_killed_child_excuses_one_lost_attempt_only():
    children = [Fault("kill", 10.5, pid=100, main=50)]
    assert check(change(RECOVERED, faults=children)).holds
    other = change(
        RECOVERED,
        faults=children,
        executions=[*RECOVERED.executions, dataclasses.replace(executed(ended=None), run="2")],
        runs=[*RECOVERED.runs, RunRow("2", "LOST", 1, 0, "b")],
        attempts=[*RECOVERED.attempts, AttemptRow("2", 1, "LOST", "i", "WorkerChildDied", permitted=1.0)],
    )
    assert "false_losses" in only(check(other))


def test_a_stop_shorter_than_the_lease_excuses_nothing():
    stops = [Fault("stop", 10.5, 13.0, pid=50, main=50)]
    assert "false_losses" in only(check(change(RECOVERED, faults=stops)))
    assert check(change(RECOVERED, faults=[Fault("stop", 10.5, 21.0, pid=50, main=50)])).holds


def test_a_worker_cut_from_the_database_is_an_excuse_for_itself_and_only_beyond_the_lease():
    assert check(change(RECOVERED, faults=[Fault("cut", 10.5, 21.0, pid=50, main=50)])).holds
    for fault in (Fault("cut", 10.5, 13.0, pid=50, main=50), Fault("cut", 10.5, 21.0, pid=51, main=51)):
        assert "false_losses" in only(check(change(RECOVERED, faults=[fault])))


def test_a_fault_excuses_only_what_was_under_way_then():
    earlier = [dataclasses.replace(row, ended=5.0) for row in RECOVERED.attempts]
    assert "false_losses" in only(check(change(RECOVERED, attempts=earlier)))
    later = [dataclasses.replace(row, permitted=12.0) for row in RECOVERED.attempts]
    assert "false_losses" in only(check(change(RECOVERED, attempts=later)))


def test_a_lease_that_is_judged_over_too_early_is_a_false_loss():
    early = [dataclasses.replace(row, over=row.renewed + 4.0) for row in RECOVERED.incarnations]
    assert "false_losses" in only(check(change(RECOVERED, incarnations=early)))


def test_a_body_that_stood_still_beside_its_successor_does_not_overlap_it():
    frozen = Execution("1", 1, "t1", 100, 10.0, (10.1, 10.2, 30.05), None)
    verdict = check(change(RECOVERED, executions=[frozen, executed(2, 22.0, 32.0)]))
    assert verdict.holds, verdict.violations
    assert verdict.overlap_seconds_max == pytest.approx(0.15)


def test_a_submission_of_unknown_outcome_may_be_there_or_not_but_must_end_when_it_is():
    unknown = [Submission("a", "unknown", None, Plan())]
    assert check(change(GOOD, submissions=unknown)).holds
    gone = change(BROKEN["lost"], submissions=unknown)
    assert check(gone).holds
    assert only(check(change(BROKEN["stuck"], submissions=unknown))) == {"stuck"}


def test_a_body_that_was_running_when_its_cancel_was_requested_may_begin_a_moment_later():
    running = change(
        GOOD, cancels=[Cancel("1", "requested", 8.0, 9.0)],
        events=[*GOOD.events, EventRow("1", "cancel_requested", 1)],
    )  # fmt: skip
    assert check(running).holds
    later = change(running, executions=[executed(), executed(2, 12.0, 13.0)])
    assert "starts_after_cancel" in only(check(later))


def test_an_execution_file_says_start_ticks_and_end(tmp_path):
    with pytest.raises(RuntimeError):
        with Recorder(tmp_path, {"run": 7, "attempt": 2, "token": "x"}):
            raise RuntimeError
    [execution] = read_folder(tmp_path)
    assert (execution.run, execution.attempt, execution.how) == ("7", 2, "failed")
    assert execution.ended is not None
    assert read_folder(tmp_path, ["8"]) == []


def test_a_line_that_was_cut_by_a_kill_is_left_out():
    start = json.dumps({"kind": "start", "run": 1, "attempt": 1, "token": "", "pid": 5, "t": 1.0})
    assert parse(start) is None
    execution = parse(start + "\n" + '{"kind": "tick", "t"')
    assert execution is not None
    assert execution.ended is None
