"""For each mutant the nemesis that exposes it, and what it must be caught by; without the mutant the same must hold.

Being caught for any reason would prove little: a mutant counts as caught when the verdict has a violation of the kind
that its defect leads to, and all of these are lost or doubled executions, stuck runs, or overlaps.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.load import Kind, Load, python
from tests.faults.nemeses import Nemesis, Round, busy_worker, for_seconds, long_bodies, play, stop_worker_main
from tests.faults.servers import Servers
from tests.faults.system import HarnessError, System

TRIES_MAX = 3
QUICK = {
    "SIGNALBOX_WORKERS__LEASE_SECONDS": "6",
    "SIGNALBOX_WORKERS__LEASE_MARGIN_SECONDS": "1",
    "SIGNALBOX_DISPATCH__REAPER_TICK_SECONDS": "1",
    "SIGNALBOX_DISPATCH__PERMIT_WITHIN_SECONDS": "6",
}


@dataclass(frozen=True)
class Exposure:
    """A mutant, its nemesis, the system that it needs, and the violations of which one must be found."""

    mutant: str
    nemesis: Nemesis
    caught_by: frozenset[str]
    settings: dict[str, str] = field(default_factory=lambda: dict(QUICK))
    workers: int = 2
    dispatchers: int = 1
    ingests: int = 1
    slots: int = 3


def _works(seconds: float, *, fail_first: int = 0) -> Callable[[System], list[Kind]]:
    return lambda _system: [python("faults.bound", seconds=seconds, fail_first=fail_first)]


def stale_deliveries(system: System, load: Load) -> None:
    """Messages wait longer than their permit deadline, so each is there a second time under a new token."""
    for_seconds(system, load, 12)


def stale_report(system: System, load: Load) -> None:
    """A worker stands still with an outcome in its hands until the next attempt runs elsewhere; then it tells."""
    role = busy_worker(system, load)
    role.arm("report.before_flush", "stop")
    system.wait(
        lambda: role.fired("report.before_flush"), "a worker to stop before it reports", 60, meanwhile=load.pump
    )
    if role.fired("report.before_flush") != [role.pid]:
        raise HarnessError(f"{role.label} is {role.pid}; stopped {role.fired('report.before_flush')}")
    fault = system.note("stop", pid=role.pid, main=role.pid, note="report.before_flush")
    sql = (
        "SELECT count(*) FROM tasks_app_taskrun r JOIN workers_app_workerincarnation i ON i.id = r.incarnation_id "
        "WHERE r.status = 'RUNNING' AND r.attempt > 1 AND i.pid <> %s AND EXISTS (SELECT 1 FROM "
        "tasks_app_taskrunattempt a WHERE a.run_id = r.id AND a.number = r.attempt - 1 AND a.status = 'LOST')"
    )
    system.wait(
        lambda: system.database.ask(sql, role.pid)[0][0] >= 1, "the next attempts to run", 40, meanwhile=load.pump
    )
    os.kill(role.pid, signal.SIGCONT)
    system.lasted(fault)
    for_seconds(system, load, 3)


def kill_worker_once(system: System, load: Load) -> None:
    """Its attempts are nobody's until a reaper looks."""
    system.kill(busy_worker(system, load))
    for_seconds(system, load, 1)


def stopped_reaper(system: System, load: Load) -> None:
    """A reaper stands still between choosing rows and writing them, while another one does the work."""
    first, second = system.of("dispatcher")
    worker = busy_worker(system, load)
    first.arm("reap.before_commit", "stop")
    os.kill(second.pid, signal.SIGSTOP)
    system.kill(worker)
    system.wait(lambda: first.fired("reap.before_commit"), "a reaper to stop", 40, meanwhile=load.pump)
    held = system.note("stop", pid=first.pid, main=first.pid, note="reap.before_commit")
    os.kill(second.pid, signal.SIGCONT)
    sql = "SELECT count(*) FROM tasks_app_taskrun WHERE status = 'RUNNING' AND attempt > 1"
    # The other reaper stood still, too: it grants everyone a whole lease before it judges.
    until = time.monotonic() + system.number("lease_seconds") + 10

    def replaced() -> bool:
        return bool(system.database.ask(sql)[0][0] >= 2) or time.monotonic() > until

    def busy() -> None:
        system.keep_up()
        load.pump()

    system.wait(replaced, "successors to run", 40, meanwhile=busy)
    os.kill(first.pid, signal.SIGCONT)
    system.lasted(held)
    for_seconds(system, load, 2)


def _gather(load: Load, seconds: float) -> None:
    until = time.monotonic() + seconds
    load.system.wait(lambda: time.monotonic() > until, "reports to gather", 20 + seconds, meanwhile=load.pump)


def reports_lost(system: System, load: Load) -> None:
    """Reports that the broker confirmed are gone before anybody read them."""
    ingests = system.of("ingest")
    for _ in range(2):
        for role in ingests:
            system.kill(role)
        _gather(load, 1.5)
        system.servers.empty()
        system.note("emptied", note="reports")
        for_seconds(system, load, system.number("lease_seconds") / 2)


EXPOSURES = (
    Exposure(
        "permit_off",
        Nemesis("stale_deliveries", stale_deliveries, _works(2.0), outstanding=10, settle_seconds=15),
        frozenset({"double_starts"}),
        settings={**QUICK, "SIGNALBOX_DISPATCH__PERMIT_WITHIN_SECONDS": "1.2"},
        workers=1,
        slots=2,
    ),
    Exposure(
        "token_check_off",
        Nemesis("stale_report", stale_report, _works(6.0, fail_first=1), outstanding=6, settle_seconds=60),
        frozenset({"overlaps", "unexplained_reruns"}),
    ),
    Exposure(
        "reaper_off",
        Nemesis("kill_worker_once", kill_worker_once, _works(0.5), outstanding=6, settle_seconds=20),
        frozenset({"stuck"}),
    ),
    Exposure(
        "reaper_by_id_alone",
        Nemesis("stopped_reaper", stopped_reaper, _works(5.0), outstanding=6, settle_seconds=60),
        frozenset({"false_losses", "unexplained_reruns", "overlaps"}),
        dispatchers=2,
    ),
    Exposure(
        "lease_margin_ignored",
        Nemesis("stop_worker_main", stop_worker_main, long_bodies, outstanding=6, settle_seconds=60),
        frozenset({"overlaps"}),
        # Successors need free slots while the predecessors hold theirs.
        slots=8,
    ),
    Exposure(
        "finished_list_dropped",
        Nemesis("reports_lost", reports_lost, _works(0.3), outstanding=10, settle_seconds=40),
        frozenset({"unexplained_reruns", "false_losses"}),
    ),
)


@dataclass
class Caught:
    """What came of an exposure: with the mutant it must be caught, without it the round must hold."""

    mutant: str
    round: Round
    caught_by: list[str]
    control: Round | None = None

    @property
    def holds(self) -> bool:
        """Caught for the right reason, and the product itself is not."""
        return bool(self.caught_by) and (self.control is None or self.control.holds)

    def line(self) -> str:
        """One line for people."""
        fate = f"caught by {', '.join(self.caught_by)}" if self.caught_by else "NOT CAUGHT"
        control = "" if self.control is None else f"; the product: {self.control.line()}"
        return f"{self.mutant}: {fate}; {self.round.line()}{control}"


def expose(
    exposure: Exposure, servers: Servers, evidence: Path, say: Callable[[str], None], *, control: bool
) -> Caught:
    """The nemesis against the mutant, and against the product where `control` says so."""
    rounds: dict[str, Round] = {}
    found: list[str] = []
    # A nemesis may miss: a successor waits in the prefetch of the very worker that stands still. So the mutant has
    # TRIES_MAX rounds in which it may be caught; the product has one, in which it must hold.
    for mutant in [*[exposure.mutant] * TRIES_MAX, *([""] if control else [])]:
        if mutant and found:
            continue
        with System(
            settings=exposure.settings, mutant=mutant, workers=exposure.workers, dispatchers=exposure.dispatchers,
            ingests=exposure.ingests, slots=exposure.slots, servers=servers, say=say,
        ) as system:  # fmt: skip
            try:
                rounds[mutant] = play(system, exposure.nemesis, evidence / (mutant or f"{exposure.mutant}-control"))
            except HarnessError as error:
                say(f"{exposure.mutant} ({mutant or 'control'}): {error}")
                raise
        done = rounds[mutant]
        if done.problem or (not mutant and not done.holds):
            say(f"  its logs are kept: {system.folder}")
        else:
            system.remove()
        if mutant:
            found = sorted(kind for kind in exposure.caught_by if done.verdict.violations[kind])
    return Caught(exposure.mutant, rounds[exposure.mutant], found, rounds.get(""))
