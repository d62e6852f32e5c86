"""Mutants of the fault harness still fit the product, and each changes what it says."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.mutants.changes import FINER, MUTANTS, changed

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", sorted(MUTANTS | FINER))
def test_a_mutant_fits_the_product_and_compiles(name):
    for module in {change.module for change in (MUTANTS | FINER)[name]}:
        spec = importlib.util.find_spec(module)
        assert spec is not None
        assert spec.origin is not None
        source = Path(spec.origin).read_text()
        mutated = changed(name, module, source)
        assert mutated != source
        compile(mutated, spec.origin, "exec")


def test_a_mutant_that_does_not_fit_is_refused():
    with pytest.raises(LookupError):
        changed("reaper_off", "dispatch.reaper", "nothing of the kind")


def test_a_process_started_as_a_mutant_runs_the_changed_code():
    script = (
        "from workers_app.conf import WorkerSettings as made; "
        "print(made(lease_seconds=10, lease_margin_seconds=1).hold_seconds)"
    )
    paths = os.pathsep.join([str(ROOT / "tests/faults/mutants"), str(ROOT)])
    found = {}
    for mutant in ("", "lease_margin_ignored"):
        environment = {**os.environ, "PYTHONPATH": paths, "FAULTS_MUTANT": mutant}
        found[mutant] = subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True, cwd=ROOT
        ).stdout.strip()
    assert found == {"": "9", "lease_margin_ignored": "14"}
