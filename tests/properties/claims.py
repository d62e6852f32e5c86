"""The claim about the state machine: `CLAIMS` is what the registry takes.

Each defect that lives in what the machine covers is put into a process of its own, which looks until it finds something
or its time is over. The product itself is looked at with new examples for as long, and nothing must be found.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.faults.mutants.changes import FINER, MUTANTS
from tests.prove.claim import Claim, Measured

ROOT: Final = Path(__file__).resolve().parents[2]
EVIDENCE: Final = ROOT / "build" / "properties"
SECONDS: Final = {"small": 120, "full": 600}
#: Found only where others can act between what a reaper chooses and what it locks.
POSTGRESQL: Final = frozenset({"reaper_by_id_alone"})
#: Mutants that cannot show in the machine, and why.
ELSEWHERE: Final = {
    "permit_off": "lives in the worker's processes, whose place the machine's own worker takes; the nemesis "
    "stale_deliveries of spine.mutants finds it",
}


@dataclass(frozen=True)
class Hunt:
    """One search. mutant: "" for the product. examples: None when the search itself went wrong."""

    mutant: str
    database: str
    examples: int | None
    found: str
    seconds: float

    @property
    def as_it_must(self) -> bool:
        """A mutant is found, the product holds."""
        return self.examples is not None and bool(self.found) == bool(self.mutant)

    def line(self) -> str:
        """In words."""
        said = self.found or "nothing found"
        return (
            f"{self.mutant or 'the product'} ({self.database}): {said}; {self.examples} examples, {self.seconds:.0f} s"
        )


def hunts() -> list[tuple[str, str]]:
    """(mutant, database) of each search."""
    mutants = [name for name in (*MUTANTS, *FINER) if name not in ELSEWHERE]
    return [("", "sqlite"), ("", "postgresql")] + [
        (name, "postgresql" if name in POSTGRESQL else "sqlite") for name in mutants
    ]


def hunt(mutant: str, database: str, seconds: int) -> Hunt:
    """Look for so long at most."""
    EVIDENCE.mkdir(parents=True, exist_ok=True)
    evidence = EVIDENCE / f"{mutant or 'product'}-{database}.json"
    evidence.unlink(missing_ok=True)
    began = time.monotonic()
    paths = os.pathsep.join([str(ROOT / "tests/faults/mutants"), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:logging", f"--database={database}",
         "tests/integration/test_lifecycle_machine.py", "-k", "every_promise"],
        env={**os.environ, "FAULTS_MUTANT": mutant, "PYTHONPATH": paths, "PROPERTIES_SECONDS": str(seconds),
             "PROPERTIES_EVIDENCE": str(evidence), "SIGNALBOX_REQUIRE_SERVERS": "1"},
        capture_output=True, text=True, cwd=ROOT,
    )  # fmt: skip
    evidence.with_suffix(".txt").write_text(done.stdout + done.stderr)
    took = time.monotonic() - began
    if not evidence.exists():
        return Hunt(mutant, database, None, "could not be looked at", took)
    said = json.loads(evidence.read_text())
    return Hunt(mutant, database, said["examples"], said["found"], took)


def properties_value(found: Sequence[Hunt]) -> tuple[float, str]:
    """Searches that did not end as they must; not a number of nothing when nothing was looked at."""
    if not found:
        return math.inf, "nothing was looked at"
    told = [one.line() for one in found] + [f"{name}: cannot show here, {why}" for name, why in ELSEWHERE.items()]
    return float(sum(not one.as_it_must for one in found)), "; ".join(told)


def _properties(scale: str) -> Measured:
    found = []
    for mutant, database in hunts():
        found.append(hunt(mutant, database, SECONDS[scale]))
        print(f"  {found[-1].line()}", flush=True)
    return Measured(*properties_value(found), str(EVIDENCE.relative_to(ROOT)))


CLAIMS = [
    Claim("faults.properties", "searches not as they must be", "0: each mutant is found, nothing in the product",
          lambda value: value == 0, _properties),
]  # fmt: skip
