"""The registry of claims, and the claims about faults on made-up results: each can fail."""

from __future__ import annotations

import json
import math
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from tasks_app.crashpoints import POINTS
from tests.faults import claims as faults
from tests.faults.cells import OPERATIONS, Cell, impossible
from tests.faults.nemeses import Round
from tests.faults.sitting import CellsResult
from tests.faults.witness import Verdict
from tests.prove.claim import Claim, Measured
from tests.prove.page import page
from tests.prove.registry import chosen, claims, measure


def verdict(runs: int = 10, **violations: int) -> Verdict:
    made = Verdict(runs=runs, executions=runs)
    for kind, count in violations.items():
        made.violations[kind] = ["something"] * count
    return made


def judged(name: str, value: float) -> bool:
    [claim] = [claim for claim in faults.CLAIMS if claim.id == name]
    return claim.holds(value)


def result(cells: list[Cell], **violations: int) -> Any:
    made = SimpleNamespace(cells=cells, verdicts={"success": verdict(**violations)})
    return CellsResult("postgresql+rabbitmq", made, [], {})  # type: ignore[arg-type]


FIRED = Cell("success", "claim.before_commit", fired=1, in_flight=8)


def ended_by_itself() -> Any:
    made = SimpleNamespace(cells=[FIRED], verdicts={"success": verdict()})
    return CellsResult("postgresql+rabbitmq", made, ["worker-0: 1"], {})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("results", "holds"),
    [
        ([result([FIRED])], True),
        ([result([FIRED], stuck=1)], False),
        ([result([FIRED, Cell("success", "renew.after")])], False),
        ([result([FIRED, Cell("success", "renew.after", fired=1, in_flight=3)])], False),
        ([result([FIRED, Cell("drain", "claim.before_commit", impossible="not its step")])], True),
        ([ended_by_itself()], False),
        ([], False),
    ],
)
def test_crash_points_hold_only_when_every_cell_fired_and_nothing_was_violated(results, holds):
    assert judged("spine.crashpoints", faults.crashpoints_value(results)[0]) is holds


def played(settled: bool = True, problem: str = "", **violations: int) -> Round:
    return Round("kill", verdict(**violations), settled, 1.0, problem)


@pytest.mark.parametrize(
    ("rounds", "holds"),
    [
        ([played()], True),
        ([played(), played(double_starts=1)], False),
        ([played(), played(settled=False)], False),
        ([played(), played(problem="not done: no worker")], False),
        ([], False),
    ],
)
def test_nemeses_hold_only_when_each_was_done_and_nothing_was_violated(rounds, holds):
    assert judged("spine.nemesis", faults.nemesis_value(rounds)[0]) is holds


def test_an_emptied_broker_must_leave_every_run_at_its_first_attempt():
    assert judged("spine.broker_emptied", faults.emptied_value(played())[0])
    assert not judged("spine.broker_emptied", faults.emptied_value(played(stuck=1))[0])
    again = played()
    again.verdict.lost_attempts = 1
    assert not judged("spine.broker_emptied", faults.emptied_value(again)[0])


def test_recovery_is_judged_by_its_slowest_hundredth():
    done = played()
    done.verdict.recoveries = [10.0] * 99 + [12.5]
    assert judged("spine.recovery", faults.recovery_value(done, 10.0, 1.0)[0])
    done.verdict.recoveries = [10.0] * 50 + [12.5]
    assert not judged("spine.recovery", faults.recovery_value(done, 10.0, 1.0)[0])
    done.verdict.recoveries = []
    assert not judged("spine.recovery", faults.recovery_value(done, 10.0, 1.0)[0])


def test_every_cell_is_either_possible_or_has_a_reason_and_each_point_is_possible_somewhere():
    for combination in ("postgresql+rabbitmq", "sqlite+valkey"):
        for point in POINTS:
            reasons = [impossible(operation, point, combination) for operation in OPERATIONS]
            if point == "permit.before_commit" and combination.startswith("postgresql"):
                assert all(reasons)
            else:
                assert not all(reasons), point


def test_ids_of_claims_are_unique_and_chosen_by_prefix():
    every = claims()
    assert {claim.id for claim in chosen(every, "spine.,faults.random")} == {claim.id for claim in faults.CLAIMS}
    assert chosen(every, "") == every
    assert chosen(every, "nothing.") == []


def test_a_claim_that_cannot_be_measured_does_not_hold():
    def fails(_scale: str) -> Measured:
        raise RuntimeError("no server")

    found = measure(Claim("x", "s", "0", lambda _: True, fails), "small", lambda _: None)
    assert not found.holds
    assert found.value is None


def test_a_value_that_is_not_a_number_clears_no_bar_and_is_still_json():
    for value in (math.nan, math.inf):
        measured = Measured(value, "", "")
        claim = Claim("x", "s", "0", lambda _: True, partial(_same, measured))
        found = measure(claim, "small", lambda _: None)
        assert found.holds is (value == math.inf)
        json.loads(json.dumps(found.as_json(), allow_nan=False))


def _same(measured: Measured, _scale: str) -> Measured:
    return measured


def test_the_page_says_what_does_not_hold():
    row = {"id": "a.b", "value": 1.0, "unit": "s", "bar": "0", "holds": False, "detail": "x | y", "evidence": "build"}
    text = page({"claims": [row], "commit": "c", "scale": "full", "seconds": 1.0})
    assert "**no**" in text
    assert "0 of 1 hold" in text
