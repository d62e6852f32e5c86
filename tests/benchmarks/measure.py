"""What is measured of one contender in one round."""

from __future__ import annotations

import os
import time
from dataclasses import asdict, dataclass, field
from typing import Any

from tests.benchmarks import jobs, processes
from tests.benchmarks.contenders import BenchmarkError, Contender
from tests.benchmarks.figures import percentile


@dataclass(frozen=True)
class Scale:
    """How much is measured."""

    name: str
    rounds: int
    warm_up_runs: int
    runs: int
    single_runs: int
    calls: int
    calls_per_second: float
    backlogs: tuple[int, ...]
    batches: int


SMALL = Scale("small", 2, 150, 600, 150, 100, 20.0, (10_000, 100_000), 20)
FULL = Scale("full", 5, 500, 5_000, 1_000, 400, 20.0, (10_000, 100_000, 1_000_000), 60)
SCALES = {scale.name: scale for scale in (SMALL, FULL)}


@dataclass
class Load:
    """A burst of runs from the first submit to the last one's truth."""

    runs: int
    seconds: float
    submit_seconds: float
    cpu_seconds: dict[str, float]
    peak_mib: float
    #: Share of the machine that somebody else used meanwhile: the harness itself, and neighbours.
    others: float
    peak_mib_by_role: dict[str, float] = field(default_factory=dict)
    #: Bodies that began more than once, and runs that are not completed in the truth: 0 or the figures mean nothing.
    doubled: int = 0
    missing: int = 0

    @property
    def per_second(self) -> float:
        """End to end."""
        return self.runs / self.seconds

    @property
    def submits_per_second(self) -> float:
        """What the client alone reached, beside everything else."""
        return self.runs / self.submit_seconds

    @property
    def cpu_per_thousand(self) -> float:
        """CPU seconds of all processes for 1,000 runs."""
        return sum(self.cpu_seconds.values()) / self.runs * 1000

    def as_json(self) -> dict[str, Any]:
        """With what follows from it."""
        return asdict(self) | {
            "per_second": self.per_second,
            "submits_per_second": self.submits_per_second,
            "cpu_per_thousand": self.cpu_per_thousand,
        }


@dataclass
class Sitting:
    """One contender, started; counts what it was given."""

    contender: Contender
    given: int = 0

    def warm_up(self, runs: int) -> None:
        """Until everything was used, and the look-ahead has found its size."""
        self._submit(runs, "many")

    def load(self, runs: int, form: str = "many") -> Load:
        """A burst."""
        contender = self.contender
        roots = contender.roots
        before = processes.cpu_seconds(processes.families(roots))
        machine, began = processes.machine_cpu_seconds(), time.monotonic()
        with processes.PeakMemory(roots) as memory:
            submitted, ended_ns, first = self._submit(runs, form)
            after = processes.cpu_seconds(processes.families(roots))
            machine, took = processes.machine_cpu_seconds() - machine, time.monotonic() - began
        records = [(seq, at) for seq, at in jobs.read(contender.records) if seq >= first]
        if not contender.database:
            ended_ns = max(at for _, at in records)
        own = {role: after[role] - before[role] for role in after}
        return Load(
            runs=runs,
            seconds=(ended_ns - submitted["began_ns"]) / 1e9,
            submit_seconds=(submitted["ended_ns"] - submitted["began_ns"]) / 1e9,
            cpu_seconds=own,
            peak_mib=memory.highest,
            peak_mib_by_role=memory.by_role,
            others=max(0.0, machine - sum(own.values())) / took / (os.cpu_count() or 1),
            doubled=len(records) - len({seq for seq, _ in records}),
            missing=runs - len({seq for seq, _ in records}),
        )

    def latencies_ms(self, calls: int, per_second: float) -> list[float]:
        """From the service call to the body's start, at a steady pace on an idle system."""
        time.sleep(0.5)
        first = self.given
        self.given += calls
        answer = self.contender.ask(do="pace", first=first, count=calls, per_second=per_second)
        self.contender.wait_bodies(self.given)
        # The last body has begun before its end is recorded; the next load counts from what is recorded.
        truth = self.contender.truth()
        if truth is not None:
            self.contender.wait_truth(truth)
            truth.close()
        started = dict(jobs.read(self.contender.records))
        return [(started[seq] - called) / 1e6 for seq, called in answer["calls"]]

    def _submit(self, runs: int, form: str) -> tuple[dict[str, Any], int, int]:
        contender, first = self.contender, self.given
        truth = contender.truth()
        try:
            completed = contender.completed(truth) if truth is not None else 0
            self.given += runs
            contender.send(do="submit", first=first, count=runs, form=form)
            contender.wait_bodies(self.given)
            ended_ns = contender.wait_truth(truth)
            if truth is not None:
                now = contender.completed(truth)
                if now - completed != runs:
                    raise BenchmarkError(f"{contender.name}: {now - completed} of {runs} runs are completed")
            return contender.answer(), ended_ns, first
        finally:
            if truth is not None:
                truth.close()


def latency_summary(samples: list[float]) -> dict[str, float]:
    """p50, p95 and p99 in ms."""
    return {f"p{q}": percentile(samples, q) for q in (50, 95, 99)}
