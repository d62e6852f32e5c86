"""The larger faults, each under load, each followed by rest and a verdict.

A nemesis is a function of a system and a load. It says what it does by the faults that it notes, and returns when it
is over; the load goes on meanwhile. Waiting is for conditions; where a fault has a length (a broker that is away for
20 s) the length itself is the condition.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil

from tests.faults.history import read_folder
from tests.faults.load import Kind, Load, failure, python, shell, success
from tests.faults.system import ROOT, HarnessError, Role, System
from tests.faults.witness import Verdict

Act = Callable[[System, Load], None]


@dataclass(frozen=True)
class Nemesis:
    """A fault, the work it is done to, and how many of its runs are under way."""

    name: str
    act: Act
    kinds: Callable[[System], list[Kind]]
    outstanding: int = 24
    settle_seconds: float = 90.0
    #: Which server it stops; one that is not the harness's own is left alone.
    stops: str = ""
    #: Celery's main process gives up by itself when a child dies while it is being made; a supervisor starts it again.
    workers_may_end: bool = False

    def possible(self, system: System) -> bool:
        """Whether the server that it stops is ours."""
        return system.servers.ours or not self.stops


def mixed(system: System) -> list[Kind]:
    """Every form, in success and failure, short and for some seconds, python and shell."""
    return [
        *success(),
        python("faults.bound", "longer", seconds=3.0),
        *failure(),
        shell("works", system.history, ROOT, seconds=0.3),
        shell("longer_shell", system.history, ROOT, seconds=3.0),
    ]


def long_bodies(system: System) -> list[Kind]:
    """Outlast a lease: a body that is not ended in time is seen beside its successor."""
    seconds = system.number("lease_seconds") + 6 * system.number("lease_margin_seconds")
    return [
        python("faults.bound", "long", seconds=seconds),
        python("faults.own_call", "long_call", seconds=seconds),
        shell("long_shell", system.history, ROOT, seconds=seconds),
        python("faults.plain", "short", seconds=0.5),
    ]


def light(system: System) -> list[Kind]:
    """Bodies of some seconds, few enough that slots are free for what comes back."""
    return [
        python("faults.bound", seconds=2.0),
        python("faults.own_before_start", seconds=2.0),
        shell("works", system.history, ROOT, seconds=2.0),
    ]


def short(_system: System) -> list[Kind]:
    """Next to nothing in each, and yet so much that a backlog is there while it lasts."""
    return [python("faults.plain", seconds=0.05), python("faults.bound", seconds=0.1)]


def for_seconds(system: System, load: Load, seconds: float) -> None:
    """Keep the load up for so long."""
    until = time.monotonic() + seconds

    def busy() -> None:
        system.keep_up()
        load.pump()

    system.wait(lambda: time.monotonic() >= until, "time to pass", seconds + 30, meanwhile=busy)


@contextlib.contextmanager
def stopped(system: System, role: Role, *, everything: bool) -> Iterator[None]:
    """SIGSTOP for a role's main process, or for all of its family, while the block runs.

    On SQLite not in the middle of a transaction of its: that would stop everybody else, too (`without_postgresql`).
    """
    processes = role.family() if everything else role.family()[:1]
    fault = system.note("stop", pid=role.pid, main=role.pid, note=role.label)
    try:
        for _ in range(20):
            system.signal_all(processes, signal.SIGSTOP)
            if system.database.writable():
                break
            system.signal_all(processes, signal.SIGCONT)
            time.sleep(0.1)
        else:
            raise HarnessError(f"{role.label} holds the database whenever it is stopped")
        yield
    finally:
        system.signal_all(processes, signal.SIGCONT)
        system.lasted(fault)


def busy_worker(system: System, load: Load) -> Role:
    """The worker that runs longest, once bodies of this round are under way in its slots.

    A permit alone is not enough: it is given for many at once, and a fault that comes before their bodies begin meets
    nothing that could go wrong.
    """
    role = min(system.of("worker"), key=lambda one: one.started)
    sql = (
        "SELECT r.id, r.attempt FROM tasks_app_taskrun r JOIN workers_app_workerincarnation i "
        "ON i.id = r.incarnation_id WHERE r.status = 'RUNNING' AND i.pid = %s AND r.task_name LIKE %s"
    )

    def busy() -> bool:
        if not role.running:
            return False
        held = {(str(run), int(attempt)) for run, attempt in system.database.ask(sql, role.pid, load.round + ".%")}
        begun = {(one.run, one.attempt) for one in read_folder(system.history, [run for run, _ in held])}
        return bool(held) and len(held & begun) >= min(len(held), system.slots)

    def meanwhile() -> None:
        system.keep_up()
        load.pump()

    system.wait(busy, "a worker to be busy", 60, meanwhile=meanwhile)
    return role


# -- the nemeses ---------------------------------------------------------------------------------------------------


def kill_worker_main(system: System, load: Load) -> None:
    for _ in range(2):
        system.kill(busy_worker(system, load))
        for_seconds(system, load, 1.0)


def kill_child(system: System, load: Load) -> None:
    for _ in range(4):
        role = busy_worker(system, load)
        child = system.wait(
            partial(_child_with_a_body, system, role), "a child with a body under way", 30, meanwhile=load.pump
        )
        system.note("kill", pid=child.pid, main=role.pid, note="child")
        with contextlib.suppress(psutil.Error):
            child.kill()
        for_seconds(system, load, 0.7)


def _child_with_a_body(system: System, role: Role) -> psutil.Process | None:
    busy = {item.pid for item in read_folder(system.history) if item.ended is None}
    return next((child for child in role.children() if child.pid in busy), None)


def kill_dispatchers(system: System, load: Load) -> None:
    for _ in range(2):
        for role in system.of("dispatcher"):
            system.kill(role)
        for_seconds(system, load, 3.0)


def kill_ingests(system: System, load: Load) -> None:
    for _ in range(2):
        for role in system.of("ingest"):
            system.kill(role)
        for_seconds(system, load, 3.0)


def beyond_the_lease(system: System) -> float:
    """Seconds after which a lease is over for every reaper, and successors run."""
    return system.number("lease_seconds") + 3 * system.number("reaper_tick_seconds") + 3


def stop_worker_main(system: System, load: Load) -> None:
    with stopped(system, busy_worker(system, load), everything=False):
        for_seconds(system, load, beyond_the_lease(system))


def stop_worker_group(system: System, load: Load) -> None:
    with stopped(system, busy_worker(system, load), everything=True):
        for_seconds(system, load, beyond_the_lease(system))


def broker_emptied(count: int) -> Act:
    """Empty every queue some times while `count` runs go through."""

    def act(system: System, load: Load) -> None:
        for number in range(0, count, 50):
            load.submit_batch(load.kinds[number // 50 % len(load.kinds)], 50)
        emptied = 0
        while emptied < 6 and not _finished(system, load, count):
            if _finished(system, load, count * (emptied + 1) // 8):
                system.servers.empty()
                system.note("emptied", note="all queues")
                emptied += 1
            time.sleep(0.02)
        if emptied < 4:
            raise HarnessError(f"the runs were through before the broker was emptied {emptied} times")

    return act


def _finished(system: System, load: Load, count: int) -> bool:
    return system.database.count(load.round, ("COMPLETED",)) >= count


def broker_stopped(seconds: float) -> Act:
    """Stop the broker for so long."""

    def act(system: System, load: Load) -> None:
        fault = system.note("broker", note=f"stopped for {seconds} s")
        system.broker.stop()
        for_seconds(system, load, seconds)
        system.broker.start()
        system.lasted(fault)
        for_seconds(system, load, 2.0)

    return act


def ingest_stopped(system: System, load: Load) -> None:
    with contextlib.ExitStack() as stack:
        for role in system.of("ingest"):
            stack.enter_context(stopped(system, role, everything=True))
        for_seconds(system, load, 2 * system.number("lease_seconds"))


def database_stopped(seconds: float) -> Act:
    """Stop PostgreSQL for so long."""

    def act(system: System, load: Load) -> None:
        server = system.database_server
        assert server is not None
        fault = system.note("database", note=f"stopped for {seconds} s")
        server.stop()
        until = time.monotonic() + seconds
        system.wait(lambda: time.monotonic() >= until, "time to pass", seconds + 30, meanwhile=load.submit_one)
        server.start()
        system.lasted(fault)
        for_seconds(system, load, 2.0)

    return act


def database_killed(system: System, load: Load) -> None:
    server = system.database_server
    assert server is not None
    for _ in range(2):
        fault = system.note("database", note="killed with -m immediate")
        server.kill_immediate()
        server.start()
        system.lasted(fault)
        for_seconds(system, load, 3.0)


def dispatcher_in_transaction(system: System, load: Load) -> None:
    """It stands still with its locks, for longer than the database lets a session idle in a transaction."""
    role = min(system.of("dispatcher"), key=lambda one: one.started)
    role.arm("claim.before_commit", "stop")

    def busy() -> None:
        system.keep_up()
        load.pump()

    system.wait(lambda: role.fired("claim.before_commit"), "a dispatcher to stop in its claim", 60, meanwhile=busy)
    fault = system.note("stop", pid=role.pid, main=role.pid, note="claim.before_commit")
    for_seconds(system, load, 20)
    os.kill(role.pid, signal.SIGCONT)
    system.lasted(fault)
    role.forget("claim.before_commit")
    for_seconds(system, load, 2.0)


def twin(system: System, load: Load) -> None:
    """The same name again beside a predecessor that stands still and then comes back."""
    role = busy_worker(system, load)
    name = role.command[role.command.index("--name") + 1]
    with stopped(system, role, everything=True):
        other = system.add(
            "worker-twin", "run_worker", "--name", name, "--slots", str(system.slots), "--task-types", "default"
        )
        for_seconds(system, load, beyond_the_lease(system))
    for_seconds(system, load, 3.0)
    assert other.process is not None
    other.process.terminate()
    system.wait(lambda: not other.running, "the twin to drain", 70, meanwhile=load.pump)
    del system.roles["worker-twin"]


def recovery(kills: int) -> Act:
    """Kill one worker after the other, each time until what it held runs again."""

    def act(system: System, load: Load) -> None:
        for _ in range(kills):
            system.kill(busy_worker(system, load))
            for_seconds(system, load, beyond_the_lease(system))

    return act


def shipped_defaults(system: System, load: Load) -> None:
    """One worker killed, the other one's main stopped beyond a lease of 60 s, broker and database away meanwhile."""
    first, second = system.of("worker")
    busy_worker(system, load)
    with stopped(system, second, everything=False):
        system.kill(first)
        broker_stopped(20)(system, load)
        database_stopped(10)(system, load)
        for role in system.of("dispatcher")[:1] + system.of("ingest")[:1]:
            system.kill(role)
        for_seconds(system, load, beyond_the_lease(system))
    for_seconds(system, load, 5)


def all_nemeses(*, runs_emptied: int = 2000) -> list[Nemesis]:
    """In the order in which they are done."""
    return [
        Nemesis("kill_worker_main", kill_worker_main, mixed),
        Nemesis("kill_child", kill_child, mixed),
        Nemesis("kill_dispatchers", kill_dispatchers, mixed),
        Nemesis("kill_ingests", kill_ingests, mixed),
        Nemesis("stop_worker_main", stop_worker_main, long_bodies, outstanding=14),
        Nemesis("stop_worker_group", stop_worker_group, long_bodies, outstanding=14),
        Nemesis("broker_emptied", broker_emptied(runs_emptied), short, outstanding=0, settle_seconds=180),
        Nemesis("broker_stopped_20s", broker_stopped(20), mixed, stops="broker"),
        Nemesis("ingest_stopped_two_leases", ingest_stopped, mixed),
        Nemesis("database_stopped_10s", database_stopped(10), mixed, stops="database"),
        Nemesis("database_killed", database_killed, mixed, stops="database"),
        Nemesis("dispatcher_stopped_in_transaction", dispatcher_in_transaction, mixed),
        Nemesis("twin_beside_stopped_predecessor", twin, long_bodies, outstanding=14),
    ]


def without_postgresql(nemeses: Sequence[Nemesis]) -> list[Nemesis]:
    """Those that make sense on SQLite and Valkey.

    There a process that stands still inside its transaction holds the one lock of the whole file. Nobody but the
    supervisor of `make run` can help, by killing it; these roles have no supervisor.
    """
    out = ("database_", "dispatcher_stopped_in_transaction")
    return [one for one in nemeses if not one.name.startswith(out)]


@dataclass
class Round:
    """One nemesis and what came of it."""

    name: str
    verdict: Verdict
    settled: bool
    seconds: float
    problem: str = ""
    label: str = ""

    @property
    def holds(self) -> bool:
        """It was done, everything came to rest, nothing was violated."""
        return self.settled and not self.problem and self.verdict.holds and self.verdict.runs > 0

    def line(self) -> str:
        """One line for people."""
        rest = "" if self.settled else "NOT AT REST; "
        return f"{self.name}: {rest}{self.problem}{self.verdict.summary()} ({self.seconds:.0f} s)"


def play(system: System, nemesis: Nemesis, evidence: Path) -> Round:
    """Load, fault, rest, verdict."""
    began, ended_before = time.monotonic(), len(system.ended)
    load = Load(system, nemesis.name, nemesis.kinds(system), outstanding=nemesis.outstanding)
    load.prepare()
    problem = ""
    try:
        if nemesis.outstanding:
            load.pump()
            system.wait(
                lambda: load.in_flight() >= min(4, nemesis.outstanding), "work in flight", 60, meanwhile=load.pump
            )
        nemesis.act(system, load)
    except HarnessError as error:
        problem = f"not done: {error} "
    settled = load.settle(nemesis.settle_seconds)
    ended = [text for text in system.ended[ended_before:] if not (nemesis.workers_may_end and "worker" in text)]
    if ended:
        problem += f"ended by themselves: {', '.join(ended)}; "
    return Round(nemesis.name, load.judge(evidence), settled, time.monotonic() - began, problem)
