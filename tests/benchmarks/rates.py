"""Claim and ingest, each beside a bare loop, with growing backlogs: starts `steps` in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from tests.benchmarks.contenders import ROOT, BenchmarkError, Servers, signalbox_environment
from tests.benchmarks.figures import ratios, spread
from tests.benchmarks.measure import Scale

DATABASE = "bench_rates"


def run(servers: Servers, scale: Scale, say: Callable[[str], None]) -> dict[str, Any]:
    """{"levels": [{"pending", "claim": {"ours": […], "bare": […]}, "ingest": …}, …], "claim_batch", "ingest_batch"}."""
    servers.postgres.create_database(DATABASE)
    (servers.folder / "state").mkdir(exist_ok=True)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SIGNALBOX_")} | {
        "PYTHONPATH": str(ROOT), **signalbox_environment(servers, DATABASE, servers.rabbitmq)
    }  # fmt: skip
    _python(["manage.py", "migrate", "-v0"], environment)
    backlogs = ",".join(map(str, scale.backlogs))
    answer = _python(["-m", "tests.benchmarks.steps", backlogs, str(scale.batches)], environment)
    found: dict[str, Any] = json.loads(answer.splitlines()[-1])
    for level in found["levels"]:
        for step in ("claim", "ingest"):
            own, bare = level[step]["ours"], level[step]["bare"]
            say(
                f"{step} with {level['pending']:,} pending: {spread(own).text()} rows/s, "
                f"bare loop {spread(bare).text()}, ratio {ratios(own, bare).text(2)}"
            )
    servers.postgres.drop_database(DATABASE)
    return found


def _python(command: list[str], environment: dict[str, str]) -> str:
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1800
    )
    if done.returncode:
        raise BenchmarkError(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    return done.stdout
