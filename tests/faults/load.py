"""Keeps work of one kind in flight, and afterwards knows what each run was meant to do."""

from __future__ import annotations

import itertools
import json
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.faults.checker import check
from tests.faults.history import raw_clock, read_folder
from tests.faults.jobs_names import FAILING, SUCCEEDING
from tests.faults.rows import FINAL, Away
from tests.faults.system import HarnessError, System
from tests.faults.witness import Cancel, Plan, Submission, Verdict, Witnesses

IN_FLIGHT = ("DISPATCHED", "RUNNING")
ACTIVE = ("PENDING", "DISPATCHED", "RUNNING")
#: Retries are plenty, so that a run that is hit again and again still comes through; LOST would hide it.
PATIENT: dict[str, Any] = {
    "max_retries": 30, "quarantine_after": 30, "retry_delay_seconds": 0.1, "retry_delay_cap_seconds": 0.3,
    "timeout_seconds": 120,
}  # fmt: skip


@dataclass
class Kind:
    """A task of a load and what its runs should lead to."""

    name: str
    definition: dict[str, Any]
    plan: Plan
    task: int = 0


def python(function: str, name: str = "", *, seconds: float = 0.3, fail_first: int = 0, **over: Any) -> Kind:
    """A python task."""
    plan = Plan(
        fail_first=fail_first, max_retries=over.get("max_retries", 30), outcome=over.pop("outcome", "COMPLETED"),
        stopped=over.pop("stopped", ""), cancelled=over.pop("cancelled", False),
    )  # fmt: skip
    kwargs = {"seconds": seconds, "fail_first": fail_first}
    definition = {**PATIENT, "executor": "python", "parameters": {"function": function, "kwargs": kwargs}, **over}
    return Kind(name or function.rpartition(".")[2], definition, plan)


def shell(name: str, folder: Path, root: Path, *, seconds: float = 0.3, fail_first: int = 0, **over: Any) -> Kind:
    """A shell task that runs the harness's script."""
    plan = Plan(
        fail_first=fail_first, max_retries=over.get("max_retries", 30), cancelled=over.pop("cancelled", False),
        outcome=over.pop("outcome", "COMPLETED"), stopped=over.pop("stopped", ""),
    )  # fmt: skip
    argv = [sys.executable, "-m", "tests.faults.shell_body", str(seconds), str(fail_first), str(folder)]
    definition = {**PATIENT, "executor": "shell", "parameters": {"argv": argv, "cwd": str(root)}, **over}
    return Kind(name, definition, plan)


def success(seconds: float = 0.3) -> list[Kind]:
    """Every form of a Celery task, and one without retries."""
    return [
        *(python(function, seconds=seconds) for function in SUCCEEDING),
        python("faults.bound", "once", seconds=seconds, max_retries=0),
    ]


def failure(seconds: float = 0.2) -> list[Kind]:
    """Fail in the first attempt, each in its own way."""
    return [
        python(function, function.rpartition(".")[2] + "_fails", seconds=seconds, fail_first=1) for function in FAILING
    ]


@dataclass
class Load:
    """A round's work: tasks named `<round>.…`, submissions, cancels, and the verdict about them."""

    system: System
    round: str
    kinds: list[Kind]
    outstanding: int = 24
    submissions: list[Submission] = field(default_factory=list)
    cancels: list[Cancel] = field(default_factory=list)
    observed: dict[tuple[str, str], None] = field(default_factory=dict)
    cancel_when: Callable[[str, str], bool] | None = None
    _calls: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    _asked_to_cancel: set[str] = field(default_factory=set)
    _all_final_to: int = 0

    def prepare(self) -> None:
        """Make the tasks."""
        self._turn = itertools.cycle(self.kinds)
        if not self.system.servers.ours:
            # Their database remembers earlier sittings, and a task's name is there once.
            self.round = f"{self.round}-{uuid.uuid4().hex[:8]}"
        for kind in self.kinds:
            definition = {"name": f"{self.round}.{kind.name}", **kind.definition}
            answer = self.system.client.order(do="task", definition=definition)
            if answer["said"] == "unknown":
                # The connection was one that an earlier fault broke; nobody says that it was made.
                answer = self.system.client.order(do="task", definition=definition)
            if answer["said"] != "ok":
                raise HarnessError(f"task {kind.name}: {answer}")
            kind.task = answer["task"]

    def submit(self, kind: Kind) -> Submission:
        """One submission, with what the client was told."""
        call = f"{self.round}:{next(self._calls)}"
        answer = self.system.client.order(do="submit", task=kind.task, call=call)
        told = Submission(call, answer["said"], answer.get("run"), kind.plan)
        self.submissions.append(told)
        return told

    def submit_many(self, count: int) -> None:
        """So many, in turn of the kinds."""
        for _ in range(count):
            self.submit(next(self._turn))

    def submit_batch(self, kind: Kind, count: int) -> None:
        """So many of a kind in one call."""
        call = f"{self.round}:{next(self._calls)}"
        answer = self.system.client.order(do="submit_many", task=kind.task, call=call, count=count)
        if answer["said"] == "ok":
            self.submissions += [Submission(call, "ok", run, kind.plan) for run in answer["runs"]]
        else:
            self.submissions.append(Submission(call, answer["said"], None, kind.plan))

    def submit_one(self) -> None:
        """One more, whatever is under way: for times when nobody can count."""
        self.submit(next(self._turn))

    def pump(self) -> None:
        """Top up what is under way, look at what became final, cancel what should be."""
        active = self.watch()
        if active is not None:
            self.submit_many(min(6, max(0, self.outstanding - active)))

    def watch(self) -> int | None:
        """Look at what became final, cancel what should be; how many are under way, None while nobody can tell."""
        try:
            statuses = self.system.database.statuses(self.round, above=self._all_final_to)
        except Away:
            return None
        for run, status in statuses.items():
            if status in FINAL:
                self.observed[run, status] = None
        # One client submits one after the other: below the first that is under way, nothing new appears.
        for run in sorted(statuses, key=int):
            if statuses[run] not in FINAL:
                break
            self._all_final_to = int(run)
        if self.cancel_when is not None:
            for run, status in statuses.items():
                if run not in self._asked_to_cancel and self.cancel_when(run, status):
                    self.cancel(run)
        return sum(1 for status in statuses.values() if status in ACTIVE)

    def cancel(self, run: str) -> Cancel:
        """Cancel one run and keep the answer."""
        asked = raw_clock()
        answer = self.system.client.order(do="cancel", run=run)
        said = answer["said"]
        told = Cancel(run, said, asked, raw_clock() if said in {"cancelled", "requested"} else None)
        if said != "unknown":
            self._asked_to_cancel.add(run)
        self.cancels.append(told)
        return told

    @property
    def accepted(self) -> int:
        """Submissions that were answered ok."""
        return sum(told.said == "ok" for told in self.submissions)

    def in_flight(self) -> int:
        """Runs of this round that are at the broker or run."""
        return self.system.database.count(self.round, IN_FLIGHT)

    def settle(self, seconds: float = 90.0) -> bool:
        """Wait until nothing of this round is under way; whether that came about."""

        def quiet() -> bool:
            try:
                statuses = self.system.database.statuses(self.round)
            except Away:
                return False
            for run, status in statuses.items():
                if status in FINAL:
                    self.observed[run, status] = None
                elif self.cancel_when is not None and run not in self._asked_to_cancel:
                    self.cancel(run)
            return not any(status in ACTIVE for status in statuses.values())

        try:
            self.system.wait(quiet, f"round {self.round} to end", seconds, meanwhile=self.system.keep_up, every=0.2)
        except HarnessError:
            return False
        return True

    def judge(self, evidence: Path | None = None, overlap_seconds: float | None = None) -> Verdict:
        """The verdict about this round; the witnesses are kept beside it where a folder is given."""
        database, system = self.system.database, self.system
        runs = database.runs(self.round)
        scheduled = [Submission("", "ok", run.id, self.kinds[0].plan) for run in runs if run.scheduled]
        given = Witnesses(
            executions=read_folder(system.history, [run.id for run in runs]),
            submissions=[*self.submissions, *scheduled],
            cancels=self.cancels,
            runs=runs,
            attempts=database.attempts(self.round),
            events=database.events(self.round),
            incarnations=database.incarnations(),
            fires=database.fires(self.round),
            faults=system.faults,
            observed=list(self.observed),
            hold_seconds=system.hold_seconds,
            overlap_seconds=system.number("lease_margin_seconds") if overlap_seconds is None else overlap_seconds,
        )
        verdict = check(given)
        if evidence is not None:
            evidence.mkdir(parents=True, exist_ok=True)
            path = evidence / f"{self.round}.json"
            path.write_text(json.dumps({"verdict": asdict(verdict), "witnesses": asdict(given)}, default=str))
        return verdict
