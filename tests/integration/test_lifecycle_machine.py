"""The lifecycle's promises under steps in any order with rare faults (see `tests.properties`).

The same examples every time. PROPERTIES_SECONDS looks at new ones for about so long; PROPERTIES_EVIDENCE names a file
for what was found, and then nothing is made smaller: how many examples it took is the question.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Final

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.properties import promises
from tests.properties.claims import hunt as hunt_in_a_process
from tests.properties.machine import Lifecycle

SECONDS: Final = float(os.environ.get("PROPERTIES_SECONDS") or 0)
EVIDENCE: Final = os.environ.get("PROPERTIES_EVIDENCE", "")
PROFILE: Final = settings(
    max_examples=40, stateful_step_count=40, deadline=None, database=None, print_blob=False,
    phases=(Phase.generate,) if EVIDENCE else (Phase.generate, Phase.shrink),
    suppress_health_check=list(HealthCheck),
)  # fmt: skip


def hunt(*, derandomize: bool) -> None:
    run_state_machine_as_test(Lifecycle, settings=settings(PROFILE, derandomize=derandomize))


def told(found: str) -> None:
    if EVIDENCE:
        Path(EVIDENCE).write_text(json.dumps({"examples": Lifecycle.examples, "found": found}))


@pytest.mark.django_db
@pytest.mark.slow
@pytest.mark.timeout(int(SECONDS) * 3 + 600)
def test_every_promise_holds_whatever_the_order_of_steps() -> None:
    Lifecycle.examples, until = 0, time.monotonic() + SECONDS
    promises.found.clear()
    try:
        hunt(derandomize=not SECONDS)
        while time.monotonic() < until:
            hunt(derandomize=False)
        told("")
    except Exception as error:
        # The database's own constraints find things, too.
        told(promises.found[0] if promises.found else f"{type(error).__name__}: {str(error).splitlines()[0]}")
        raise


@pytest.mark.slow
def test_a_defect_of_the_reaper_is_found() -> None:
    assert hunt_in_a_process("reaper_off", "sqlite", 60).found.startswith("G1: these stand still")
