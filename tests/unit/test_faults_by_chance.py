"""Random mode on made-up results: a draw holds every kind, the claim can fail, a clock that moved too far is seen."""

from __future__ import annotations

import math
import os
import random
from itertools import cycle

import pytest

from tests.faults.chance import BATCH, Chance, Crowd, drawn, table
from tests.faults.claims import quantile, random_value
from tests.faults.history import Recorder, pid_of
from tests.faults.jumping_clock import deviations
from tests.faults.kinds_of_fault import ALL
from tests.faults.load import python
from tests.faults.nemeses import Round
from tests.faults.witness import Verdict


def chance(*, runs: int = 21_000, times: int = 20, settled: bool = True, **violations: int) -> Chance:
    verdict = Verdict(runs=runs, executions=runs, recoveries=[1.0, 7.0])
    for kind, count in violations.items():
        verdict.violations[kind] = ["something"] * count
    done = Round("random", verdict, settled, 1.0)
    return Chance("postgresql+rabbitmq", 1, done, 2, {kind.name: times for kind in ALL})


def test_a_draw_holds_every_kind_so_often_and_is_the_same_for_the_same_seed():
    first = drawn(ALL, random.Random(7), each=2, count=62)
    assert [kind.name for kind in first] == [kind.name for kind in drawn(ALL, random.Random(7), each=2, count=62)]
    assert len(first) == 62
    assert all(first.count(kind) >= 2 for kind in ALL)


@pytest.mark.parametrize(
    ("result", "value"),
    [
        (chance(), 0),
        (chance(stuck=2, overlaps=1), 3),
        (chance(settled=False), 1),
        (chance(runs=19_999), math.inf),
        (chance(times=13), math.inf),
    ],
)
def test_random_mode_holds_only_with_enough_runs_and_faults_and_without_a_violation(result, value):
    assert random_value([result], full=True)[0] == value


def test_a_kind_that_was_done_once_counts_against_the_claim():
    result = chance()
    result.done["zombie"] = 1
    value, detail = random_value([result], full=True)
    assert value == 1
    assert "zombie on postgresql+rabbitmq" in detail


def test_the_claim_tells_each_combination_by_itself():
    detail = random_value([chance(stuck=1)], full=True)[1]
    assert "postgresql+rabbitmq (seed 1): 21000 runs" in detail
    assert "violations stuck 1, recovery p50 1.0 s, p99 7.0 s of 2" in detail


class Pumped(Crowd):
    """Writes down what it would submit while so many are under way."""

    active: int | None = 0

    def prepare(self) -> None:
        self.said: list[str] = []
        self._turn, self._long, self._next_long = cycle(self.kinds[1:2]), cycle(self.kinds[2:]), 0.0

    def watch(self) -> int | None:
        return self.active

    def submit(self, kind):
        self.said.append(kind.name)

    def submit_batch(self, kind, count):
        self.said += [kind.name] * count


def test_most_of_what_is_submitted_is_short_however_few_have_ended():
    kinds = [python("faults.plain", name) for name in ("short", "other", "long_one")]
    crowd = Pumped(None, "random", kinds, outstanding=100)
    crowd.prepare()
    for crowd.active in (100, 99, 100 - BATCH + 1, None):
        crowd.pump()
    assert crowd.said == []
    crowd.active = 100 - BATCH
    crowd.pump()
    crowd.pump()
    assert (crowd.said.count("short"), crowd.said.count("other"), crowd.said.count("long_one")) == (2 * BATCH, 2, 1)


def test_nothing_at_all_is_no_proof():
    assert random_value([], full=False)[0] == math.inf


def test_the_table_names_the_reason_why_a_kind_cannot_be():
    result = chance()
    result.impossible["zombie"] = "a file has no connections"
    assert "| zombie | – 1 |" in table([result], quantile)
    assert "1. a file has no connections" in table([result], quantile)


def test_a_body_is_found_by_the_name_of_its_file(tmp_path):
    with Recorder(tmp_path, {"run": "7", "attempt": 2, "token": ""}):
        [file] = tmp_path.glob("7.2.*")
    assert pid_of(file.name) == os.getpid()


HERE = {"wall": 1_000_000.0, "CLOCK_MONOTONIC": 50.0}


@pytest.mark.parametrize(
    ("there", "problems"),
    [
        ({"wall": 1_000_121.0, "CLOCK_MONOTONIC": 51.0}, 0),
        ({"wall": 1_000_001.0, "CLOCK_MONOTONIC": 51.0}, 1),
        ({"wall": 1_000_121.0, "CLOCK_MONOTONIC": 171.0}, 1),
    ],
)
def test_a_jump_moves_the_wall_clock_and_nothing_else(there, problems):
    assert len(deviations(there, HERE, 120)) == problems
