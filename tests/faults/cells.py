"""Crash points x operations: each point fires at least once while at least four runs of that operation are in flight.

One system is used for all operations; within an operation its load goes on while one point after the other is armed in
one process, fires, and the process is started again. At the end of an operation all of it must come to rest, and the
checker judges every run of it. A cell that cannot be is in IMPOSSIBLE with its reason; one that could and did not fire
is a failure of the harness and counts as one.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Final

from tasks_app.crashpoints import POINTS
from tests.faults.load import Kind, Load, failure, python, shell, success
from tests.faults.system import ROOT, HarnessError, Role, System
from tests.faults.witness import Plan, Verdict

IN_FLIGHT_MIN: Final = 4
#: Which role reaches a point; the first of several is where it is armed.
ROLE_OF: Final = {
    "submit": "client", "cancel": "client", "fire": "dispatcher", "claim": "dispatcher", "publish": "dispatcher",
    "reap": "dispatcher", "worker": "worker", "permit": "worker", "report": "worker", "renew": "worker",
    "ingest": "ingest", "finish": "ingest",
}  # fmt: skip
OPERATIONS: Final = ("submit", "fire", "success", "failure", "timeout", "cancel", "shell", "drain")

_ELSEWHERE = "ends with the client's answer; what follows is the run's own operation"
_NOT_SUBMITTED = "the client's call was answered before; `submit` has this point"
_NOT_CANCELLED = "nobody cancels in this operation"
_NOT_SCHEDULED = "no schedule fires in this operation"
_KILLED = "the body is ended from outside, so its process never comes to this point"
_ONE_STATEMENT = "on PostgreSQL the permit is one statement that commits by itself; SQLite has this point"
_DRAINED = "a draining worker begins nothing new"
_DRAIN_OTHERS = "not the draining worker's own step; `success` has it"


def impossible(operation: str, point: str, combination: str) -> str:
    """Why this cell cannot be; empty where it can."""
    group = point.partition(".")[0]
    if point == "permit.before_commit" and combination.startswith("postgresql"):
        return _ONE_STATEMENT
    if operation == "submit":
        return "" if group == "submit" else _ELSEWHERE
    if operation == "drain":
        own = group in {"report", "renew"} or point in {"worker.after_effect", "worker.after_outcome"}
        return "" if own else _DRAINED if group in {"worker", "permit"} else _DRAIN_OTHERS
    if group == "submit" and operation != "fire":
        return _NOT_SUBMITTED
    if group == "fire" and operation != "fire":
        return _NOT_SCHEDULED
    if group == "cancel" and operation != "cancel":
        return _NOT_CANCELLED
    if operation in {"timeout", "cancel"} and point in {"worker.after_effect", "worker.after_outcome"}:
        return _KILLED
    return ""


@dataclass
class Cell:
    """A point that fired under an operation, or the reason why it cannot."""

    operation: str
    point: str
    fired: int = 0
    in_flight: int = 0
    impossible: str = ""
    problem: str = ""

    @property
    def holds(self) -> bool:
        """It fired with enough in flight, or cannot."""
        return bool(self.impossible) or (self.fired > 0 and self.in_flight >= IN_FLIGHT_MIN and not self.problem)


def load_for(operation: str, system: System, name: str) -> Load:
    """The operation's work."""
    if operation == "failure":
        return Load(system, name, failure())
    if operation == "timeout":
        kinds = [
            python("faults.bound", seconds=60, timeout_seconds=1, max_retries=2, outcome="TIMEOUT", stopped="TIMEOUT"),
            shell("sleeps", system.history, ROOT, seconds=60, timeout_seconds=1, max_retries=1, outcome="TIMEOUT",
                  stopped="TIMEOUT"),
        ]  # fmt: skip
        return Load(system, name, kinds, outstanding=20)
    if operation == "cancel":
        kinds = [
            python("faults.bound", seconds=60, outcome="CANCELLED", cancelled=True),
            python("faults.own_call", seconds=60, outcome="CANCELLED", cancelled=True),
            shell("sleeps", system.history, ROOT, seconds=60, outcome="CANCELLED", cancelled=True),
        ]
        # Most are cancelled while they run, some while their message waits.
        return Load(
            system, name, kinds, outstanding=20,
            cancel_when=lambda run, status: status == ("RUNNING" if int(run) % 4 else "DISPATCHED"),
        )  # fmt: skip
    if operation == "shell":
        kinds = [
            shell("works", system.history, ROOT, seconds=0.3),
            shell("fails_once", system.history, ROOT, seconds=0.2, fail_first=1),
        ]
        return Load(system, name, kinds, outstanding=20)
    if operation == "fire":
        kinds = [python("faults.bound", f"every{n}", seconds=1.2, every_seconds=1.0) for n in range(6)]
        return Load(system, name, kinds, outstanding=0)
    return Load(system, name, success())


class Cells:
    """Goes through the cells of one system."""

    def __init__(self, system: System, evidence: Path, say: Callable[[str], None]) -> None:
        self.system, self.evidence, self.say = system, evidence, say
        self.cells: list[Cell] = []
        self.verdicts: dict[str, Verdict] = {}

    def operation(self, operation: str, points: Sequence[str]) -> None:
        """All of an operation's points under its load, then its verdict."""
        system = self.system
        load = load_for(operation, system, f"cells-{operation}")
        load.prepare()
        began = time.monotonic()
        for point in points:
            reason = impossible(operation, point, system.combination)
            cell = Cell(operation, point, impossible=reason)
            self.cells.append(cell)
            if not reason:
                try:
                    for _ in range(4):
                        self._fire(cell, load)
                        if cell.in_flight >= IN_FLIGHT_MIN:
                            break
                except HarnessError as error:
                    cell.problem = str(error).partition("\n")[0]
                    self.say(f"  {operation} x {point}: {error}")
                self.say(
                    f"  {operation:8} x {point:26} fired {cell.fired}, in flight {cell.in_flight} "
                    f"({time.monotonic() - began:.0f} s)"
                )
        if operation == "fire":
            for task in load.kinds:
                system.wait(partial(self._unscheduled, task), "a schedule to end", 30, meanwhile=system.keep_up)
        settled = load.settle()
        verdict = self.verdicts[operation] = load.judge(self.evidence)
        self.say(f"{operation}: {'at rest' if settled else 'NOT at rest'}; {verdict.summary()}")
        for violated, found in verdict.violations.items():
            for text in found[:5]:
                self.say(f"  {violated}: {text}")

    def _unscheduled(self, kind: Kind) -> bool:
        return bool(self.system.client.order(do="unschedule", task=kind.task)["said"] == "ok")

    def _fire(self, cell: Cell, load: Load) -> None:
        system, point = self.system, cell.point
        kind = ROLE_OF[point.partition(".")[0]]
        if cell.operation == "fire" and kind == "client":
            kind = "dispatcher"

        def busy() -> None:
            system.keep_up()
            load.pump()

        system.wait(lambda: load.in_flight() >= IN_FLIGHT_MIN, "enough in flight", 45, meanwhile=busy)
        if kind == "client":
            self._fire_in_client(cell, load)
            return
        if point.startswith("reap."):
            self._lose_a_worker(load, busy)
        ready = system.wait(lambda: self._ready(kind), f"a {kind} that is up", 45, meanwhile=busy)
        armed = self._armed(ready, point)
        if cell.operation == "drain":
            system.draining.add(armed[0].label)
            assert armed[0].process is not None
            armed[0].process.terminate()
        try:
            role = system.wait(
                lambda: next((role for role in armed if role.fired(point)), None), f"{point} to fire", 40,
                meanwhile=lambda: self._busy_but(armed, load), every=0.01,
            )  # fmt: skip
            cell.in_flight = max(cell.in_flight, load.in_flight())
        finally:
            for one in armed:
                one.disarm(point)
        for one in armed:
            for pid in one.fired(point):
                cell.fired += 1
                main = one.pid
                system.note("kill", pid=pid, main=main, note=point)
                if pid == main:
                    system.buried(one)
            one.forget(point)
        assert role is not None
        if cell.operation == "drain":
            system.wait(lambda: not armed[0].running, "the drained worker to end", 75, meanwhile=load.pump)
        system.keep_up()

    def _busy_but(self, armed: Sequence[Role], load: Load) -> None:
        # The armed role is buried by us, so that its pid is still the one that died when the mark is read.
        for role in self.system.roles.values():
            if role not in armed and not role.running:
                self.system.keep_up_one(role)
        load.pump()

    def _ready(self, kind: str) -> list[Role]:
        """Roles of a kind that do their work by now and were not told to end; of workers, those that run something."""
        live = {row[0] for row in self.system.database.ask(
            "SELECT DISTINCT i.pid FROM workers_app_workerincarnation i JOIN tasks_app_taskrun r "
            "ON r.incarnation_id = i.id WHERE i.over_at IS NULL AND r.status = 'RUNNING'"
        )}  # fmt: skip
        return [
            role
            for role in self.system.of(kind)
            if role.running and role.label not in self.system.draining and (kind != "worker" or role.pid in live)
        ]

    def _armed(self, roles: Sequence[Role], point: str) -> list[Role]:
        """The role in which the point is armed: the one that runs longest; of dispatchers, all.

        What a dispatcher does is done once, by whichever comes first, and while one keeps up with the load it always
        comes first: it knows the queue, and asks for credit and rows at once where the other must look first.
        """
        dispatchers = ROLE_OF[point.partition(".")[0]] == "dispatcher"
        chosen = list(roles) if dispatchers else [min(roles, key=lambda role: role.started)]
        for role in chosen:
            role.forget(point)
            role.arm(point)
        return chosen

    def _lose_a_worker(self, load: Load, busy: Callable[[], None]) -> None:
        """Reapers have something to do only when a lease was lost with attempts under it."""
        role = min(self.system.of("worker"), key=lambda role: role.started)
        sql = (
            "SELECT count(*) FROM tasks_app_taskrun r JOIN workers_app_workerincarnation i ON i.id = r.incarnation_id "
            "WHERE r.status = 'RUNNING' AND i.pid = %s"
        )
        self.system.wait(
            lambda: role.running and self.system.database.ask(sql, role.pid)[0][0] > 0, "a worker to be busy", 45,
            meanwhile=busy, every=0.01,
        )  # fmt: skip
        self.system.kill(role, "for the reaper")
        role.start()

    def _fire_in_client(self, cell: Cell, load: Load) -> None:
        role = self.system.client.role
        role.forget(cell.point)
        role.arm(cell.point)
        cell.in_flight = load.in_flight()

        def fired() -> bool:
            self.system.keep_up()
            load.pump()
            if cell.operation == "submit":
                load.submit(load.kinds[0])
            return bool(role.fired(cell.point))

        self.system.wait(fired, f"{cell.point} to fire", 40)
        cell.fired += len(role.fired(cell.point))
        role.forget(cell.point)


def table(cells: Sequence[Cell]) -> str:
    """The cells as Markdown: runs in flight where the point fired, a dash with its reason below where it cannot."""
    operations = [name for name in OPERATIONS if any(cell.operation == name for cell in cells)]
    by_key = {(cell.operation, cell.point): cell for cell in cells}
    reasons: dict[str, int] = {}
    lines = ["| point | " + " | ".join(operations) + " |", "|---" * (len(operations) + 1) + "|"]
    for point in POINTS:
        row = []
        for operation in operations:
            cell = by_key.get((operation, point))
            if cell is None:
                row.append("")
            elif cell.impossible:
                row.append(f"– {reasons.setdefault(cell.impossible, len(reasons) + 1)}")
            else:
                row.append(str(cell.in_flight) if cell.holds else f"**{cell.problem or 'not fired'}**")
        lines.append(f"| `{point}` | " + " | ".join(row) + " |")
    notes = [f"{number}. {reason}" for reason, number in reasons.items()]
    return "\n".join([*lines, "", *notes, ""])


def save(cells: Sequence[Cell], folder: Path) -> None:
    """Keep the cells as JSON and as a table."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cells.json").write_text(json.dumps([asdict(cell) for cell in cells], indent=1))
    (folder / "cells.md").write_text(table(cells))


__all__ = ["OPERATIONS", "Cell", "Cells", "Kind", "Plan", "impossible", "save", "table"]
