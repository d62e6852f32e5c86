"""A clock that jumps for one process: really by libfaketime, with sleep and the monotonic clocks as on any host."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.faults.jumping_clock import JumpingClock, library
from tests.faults.system import ROOT, HarnessError

pytestmark = pytest.mark.skipif(not library(), reason="libfaketime is not installed: sudo tests/servers/install.sh")


@pytest.mark.parametrize("seconds", [0, 120, -120])
def test_the_wall_clock_jumps_and_nothing_else_and_processes_sleep(tmp_path, seconds):
    clock = JumpingClock(tmp_path / "clock", os.environ)
    clock.jump(seconds)
    clock.check(dict(os.environ))


def test_a_clock_that_does_not_jump_is_an_error_of_the_harness(tmp_path):
    clock = JumpingClock(tmp_path / "clock", os.environ)
    clock.environment["LD_PRELOAD"] = ""
    clock.jump(120)
    with pytest.raises(HarnessError, match=r"wall is .* should be \+120 s off"):
        clock.check(dict(os.environ))


def test_a_mutant_is_put_in_under_a_jumping_clock_too(tmp_path):
    path = os.pathsep.join([str(ROOT / "tests/faults/mutants"), str(ROOT)])
    given = {**os.environ, "PYTHONPATH": path, "FAULTS_MUTANT": "lease_margin_ignored"}
    script = (
        "from workers_app.conf import WorkerSettings as made; "
        "print(made(lease_seconds=10, lease_margin_seconds=1).hold_seconds)"
    )
    found = subprocess.run(
        [sys.executable, "-c", script], env={**given, **JumpingClock(tmp_path / "clock", given).environment},
        capture_output=True, text=True, check=True, cwd=ROOT,
    )  # fmt: skip
    assert found.stdout.strip() == "14"
