"""Many faults at once, drawn by chance: what no list of single faults would have thought of.

The seed is printed with the round; the same seed draws the same faults, though not the same moments.
"""

from __future__ import annotations

import contextlib
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

import psutil

from tests.faults.load import Kind, Load, failure, python, shell, success
from tests.faults.nemeses import Act, Nemesis, for_seconds
from tests.faults.system import ROOT, Role, System
from tests.faults.witness import Fault


def everything(system: System) -> list[Kind]:
    """Success, failure, timeouts and shell, short and for some seconds; some of it is cancelled on the way."""
    return [
        *success(),
        *failure(),
        python("faults.bound", "longer", seconds=4.0),
        python("faults.own_call", "times_out", seconds=60, timeout_seconds=2, max_retries=1, outcome="TIMEOUT",
               stopped="TIMEOUT"),
        shell("works", system.history, ROOT, seconds=0.5),
        shell("fails_once", system.history, ROOT, seconds=0.2, fail_first=1),
    ]  # fmt: skip


@dataclass
class _Held:
    """A role that stands still until a moment."""

    role: Role
    processes: list[psutil.Process]
    until: float
    fault: Fault


class _Storm:
    def __init__(self, system: System, load: Load, rng: random.Random) -> None:
        self.system, self.load, self.rng = system, load, rng
        self.held: list[_Held] = []

    def blow(self) -> None:
        """One fault."""
        actions: list[Callable[[], None]] = [
            self._kill_role, self._kill_role, self._kill_child, self._kill_child, self._stop_role, self._empty,
        ]  # fmt: skip
        if self.system.database_server is not None and self.system.servers.ours:
            actions.append(self._kill_database)
        if self.system.servers.ours:
            actions.append(self._kill_broker)
        self.rng.choice(actions)()

    def let_go(self, everything: bool = False) -> None:
        """Let those go on whose time has come."""
        for one in list(self.held):
            if everything or time.monotonic() >= one.until:
                self.held.remove(one)
                self.system.signal_all(one.processes, signal.SIGCONT)
                self.system.lasted(one.fault)

    def _roles(self, kind: str = "") -> list[Role]:
        held = {one.role.label for one in self.held}
        return [role for role in self.system.of(kind) if role.running and role.label not in held]

    def _kill_role(self) -> None:
        if roles := self._roles():
            self.system.kill(self.rng.choice(roles), "storm")

    def _kill_child(self) -> None:
        children = [(role, child) for role in self._roles("worker") for child in role.children()]
        if children:
            role, child = self.rng.choice(children)
            self.system.note("kill", pid=child.pid, main=role.pid, note="storm: child")
            with contextlib.suppress(psutil.Error):
                child.kill()

    def _stop_role(self) -> None:
        if len(self.held) >= 2 or not (roles := self._roles()):
            return
        role = self.rng.choice(roles)
        processes = role.family() if self.rng.random() < 0.5 else role.family()[:1]
        seconds = self.rng.choice([1.0, 3.0, self.system.number("lease_seconds") + 4])
        fault = self.system.note("stop", pid=role.pid, main=role.pid, note=f"storm: {role.label} for {seconds} s")
        self.system.signal_all(processes, signal.SIGSTOP)
        self.held.append(_Held(role, processes, time.monotonic() + seconds, fault))

    def _empty(self) -> None:
        self.system.servers.empty()
        self.system.note("emptied", note="storm")

    def _kill_database(self) -> None:
        server = self.system.database_server
        assert server is not None
        fault = self.system.note("database", note="storm: killed with -m immediate")
        server.kill_immediate()
        server.start()
        self.system.lasted(fault)

    def _kill_broker(self) -> None:
        fault = self.system.note("broker", note="storm: killed")
        self.system.broker.kill()
        self.system.broker.start()
        self.system.lasted(fault)


def some_are_cancelled(run: str, status: str) -> bool:
    """Every eighth run is cancelled, half of these while they run and half while they wait at the broker."""
    return int(run) % 8 == 0 and status == ("RUNNING" if int(run) % 16 else "DISPATCHED")


def storm(seconds: float, seed: int) -> Act:
    """Faults for so long."""

    def act(system: System, load: Load) -> None:
        rng = random.Random(seed)
        system.say(f"  the storm's seed is {seed}")
        load.cancel_when = some_are_cancelled
        blowing = _Storm(system, load, rng)
        until = time.monotonic() + seconds
        try:
            while time.monotonic() < until:
                blowing.let_go()
                blowing.blow()
                for_seconds(system, load, rng.uniform(0.2, 2.0))
        finally:
            blowing.let_go(everything=True)
            load.cancel_when = None

    return act


def storms(seeds: list[int], seconds: float) -> list[Nemesis]:
    """One round for each seed."""
    return [
        Nemesis(
            f"storm_{seed}", storm(seconds, seed), everything, outstanding=24, settle_seconds=150, workers_may_end=True
        )
        for seed in seeds
    ]
