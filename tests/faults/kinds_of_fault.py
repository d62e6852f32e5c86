"""Each kind of fault as one object: its name, where it cannot be, and how it is done and undone.

`FaultKind.act` is a generator over a scene: it does its fault and yields for how long it lasts (seconds, or a condition
to wait for); what stands behind the yield undoes it. So many can be under way at once while one loop keeps up the load.
Before it does anything it takes what it is done to (`Scene.alone`), and raises NotNow when that is not to be had: then
it is tried again later.

Whatever keeps workers from renewing their leases takes "renewals", so that two short ones cannot add up to a loss which
none of them explains.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import psutil
import psycopg

from tests.faults.harmable import HarmableServers
from tests.faults.history import pid_of
from tests.faults.jumping_clock import JumpingClock, library
from tests.faults.nemeses import beyond_the_lease, stopped
from tests.faults.rows import Away
from tests.faults.system import HarnessError, Role, System
from tests.faults.witness import Fault
from tests.servers import RabbitMQServer
from tests.servers.tcp_proxy import TcpProxy

JUMP_SECONDS: Final = 120
#: How names of kinds begin whose bodies last for some seconds.
LONG: Final = "long"
#: After workers could not renew, for as long nothing else keeps them from it.
REST_SECONDS: Final = 2.0
#: RabbitMQ's confirm and its delivery; Redis ends every answer so.
_AMQP_ANSWERS: Final = (b"\x00\x3c\x00\x50", b"\x00\x3c\x00\x3c")
_REDIS_ANSWERS: Final = (b"\r\n",)
#: PostgreSQL's last word about a statement outside a transaction, a commit among them.
_POSTGRES_ANSWER: Final = b"Z\x00\x00\x00\x05I"
_PROBE_BYTES: Final = 8 << 20

#: For how long to go on as it is: seconds, or until a condition holds.
Pause = float | Callable[[], object]
Steps = Iterator[Pause]


class NotNow(Exception):
    """What this kind is done to is not there at this moment, or another fault has it."""


@dataclass
class Scene:
    """Where faults are done: a system, what of it can be harmed, and what faults have taken for themselves."""

    system: System
    servers: HarmableServers
    rng: random.Random
    clocks: dict[str, JumpingClock]
    doors: dict[str, TcpProxy]
    taken: set[str] = field(default_factory=set)

    @contextlib.contextmanager
    def alone(self, *labels: str) -> Iterator[None]:
        """Take these for as long as the block lasts. Raises NotNow."""
        if self.taken & set(labels):
            raise NotNow
        self.taken |= set(labels)
        try:
            yield
        finally:
            self.taken -= set(labels)

    def role(self, kind: str, among: Callable[[Role], bool] = lambda _role: True) -> Role:
        """One by chance that is up; of workers, one with a body under way. Raises NotNow."""
        found = [one for one in self.system.of(kind) if one.running and one.label not in self.taken and among(one)]
        if kind == "worker":
            found = [one for one in found if self.bodies(one)]
        if not found:
            raise NotNow
        return self.rng.choice(found)

    def bodies(self, worker: Role) -> set[int]:
        """Pids of bodies of some seconds that this worker has under way: a fault that meets none shows nothing."""
        rows = self._asked(
            "SELECT r.id, r.attempt FROM tasks_app_taskrun r JOIN workers_app_workerincarnation i "
            "ON i.id = r.incarnation_id WHERE r.status = 'RUNNING' AND i.over_at IS NULL AND i.pid = %s "
            "AND r.task_name LIKE %s", worker.pid, f"%.{LONG}%",
        )  # fmt: skip
        return {pid_of(file.name) for run, attempt in rows for file in self.system.history.glob(f"{run}.{attempt}.*")}

    def waiting(self) -> int:
        """Runs whose message is at the broker."""
        return int(self._asked("SELECT count(*) FROM tasks_app_taskrun WHERE status = 'DISPATCHED'")[0][0])

    def _asked(self, sql: str, *params: object) -> list[tuple[Any, ...]]:
        try:
            return self.system.database.ask(sql, *params)
        except Away:
            raise NotNow from None

    def length(self, *shorter: float) -> float:
        """How long something is away: shorter than a lease, or beyond it."""
        return self.rng.choice((*shorter, beyond_the_lease(self.system)))

    def database_answers(self) -> bool:
        """Whether it takes questions."""
        try:
            return bool(self.system.database.ask("SELECT 1"))
        except Away:
            return False


@dataclass(frozen=True)
class FaultKind:
    """A kind of fault. impossible: the reason why it cannot be on these servers, empty where it can."""

    name: str
    act: Callable[[Scene], Steps]
    impossible: Callable[[HarmableServers], str] = lambda _servers: ""


def _killed(kind: str, scene: Scene) -> Steps:
    role = scene.role(kind)
    with scene.alone(role.label):
        scene.system.kill(role)
        yield 0.5


def _child_killed(scene: Scene) -> Steps:
    role = scene.role("worker")
    bodies = scene.bodies(role)
    children = [one for one in role.children() if one.pid in bodies]
    if not children:
        raise NotNow
    child = scene.rng.choice(children)
    scene.system.note("kill", pid=child.pid, main=role.pid, note="child")
    with contextlib.suppress(psutil.Error):
        child.kill()
    yield 0.0


def _worker_stopped(everything: bool, scene: Scene) -> Steps:
    role = scene.role("worker")
    with scene.alone(role.label, "renewals"):
        with _standing_still(scene, role, everything=everything):
            yield scene.length(1.0, 3.0)
        yield REST_SECONDS


def _role_stopped(kind: str, scene: Scene) -> Steps:
    role = scene.role(kind)
    with scene.alone(role.label), _standing_still(scene, role, everything=True):
        yield scene.length(1.0, 3.0)


@contextlib.contextmanager
def _standing_still(scene: Scene, role: Role, *, everything: bool) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(stopped(scene.system, role, everything=everything))
        except HarnessError as error:
            # On SQLite it had the lock of the file at every try: it goes on already.
            raise NotNow from error
        yield


def _twin(scene: Scene) -> Steps:
    """The same name again beside a predecessor that stands still and then comes back."""
    system, role = scene.system, scene.role("worker")
    name = role.command[role.command.index("--name") + 1]
    label = f"{role.label}-twin"
    with scene.alone(role.label, label, "renewals"):
        with _standing_still(scene, role, everything=True):
            twin = system.add(label, *role.command[2:])
            yield beyond_the_lease(system)
        yield REST_SECONDS
        # Out of the system's sight first: what is missing there is started again.
        system.roles.pop(label)
        system.say(f"  the twin of {name} drains")
        if twin.process is not None and twin.running:
            twin.process.terminate()
        try:
            yield lambda: not twin.running
        finally:
            if twin.running:
                system.kill(twin, "twin that does not drain")


def _broker_killed(scene: Scene) -> Steps:
    with scene.alone("broker"):
        fault = scene.system.note("broker", note="killed")
        scene.system.broker.kill()
        scene.system.broker.start()
        scene.system.lasted(fault)
        yield REST_SECONDS


def _broker_stopped(scene: Scene) -> Steps:
    with scene.alone("broker"):
        fault = scene.system.note("broker", note="stopped")
        scene.system.broker.stop()
        try:
            yield scene.length(3.0)
        finally:
            scene.system.broker.start()
            scene.system.lasted(fault)
        yield REST_SECONDS


def _broker_emptied(scene: Scene) -> Steps:
    with scene.alone("broker"):
        if not scene.waiting():
            raise NotNow
        scene.servers.empty()
        scene.system.note("emptied", note="all queues")
        yield 0.0


def _broker_answer_cut(scene: Scene) -> Steps:
    markers = _AMQP_ANSWERS if isinstance(scene.system.broker, RabbitMQServer) else _REDIS_ANSWERS
    with scene.alone("broker"):
        for _ in range(3):
            yield from _answer_cut(scene.servers.proxy, scene.rng.choice(markers))
            scene.system.note("broker", note="an answer cut")
            yield 0.3


def _broker_connections_cut(scene: Scene) -> Steps:
    with scene.alone("broker"):
        scene.servers.proxy.cut()
        scene.system.note("broker", note="every connection cut")
        yield 0.5


def _answer_cut(proxy: TcpProxy, marker: bytes) -> Steps:
    before = proxy.cuts
    proxy.cut_next_answer_with(marker)
    yield lambda: proxy.cuts > before


def _database_answer_cut(scene: Scene) -> Steps:
    """What a worker was answered (a permit, a renewal, a commit) is done and never heard."""
    role = scene.role("worker", lambda one: one.label in scene.doors)
    with scene.alone(role.label, "renewals"):
        for _ in range(3):
            yield from _answer_cut(scene.doors[role.label], _POSTGRES_ANSWER)
            scene.system.note("answer", pid=role.pid, main=role.pid, note="of the database cut")
            yield 0.5


def _zombie(scene: Scene) -> Steps:
    """A worker that goes on at the broker and cannot reach the database."""
    role = scene.role("worker", lambda one: one.label in scene.doors)
    with scene.alone(role.label, "renewals"):
        door = scene.doors[role.label]
        fault = scene.system.note("cut", pid=role.pid, main=role.pid, note=f"{role.label} from the database")
        door.refuse()
        try:
            yield beyond_the_lease(scene.system)
        finally:
            door.accept()
            scene.system.lasted(fault)
        yield REST_SECONDS


def _database_killed(scene: Scene) -> Steps:
    server = scene.system.database_server
    assert server is not None
    with scene.alone("database", "renewals"):
        fault = scene.system.note("database", note="killed with -m immediate")
        server.kill_immediate()
        server.start()
        scene.system.lasted(fault)
        yield REST_SECONDS


def _database_stopped(scene: Scene) -> Steps:
    server = scene.system.database_server
    assert server is not None
    with scene.alone("database", "renewals"):
        fault = scene.system.note("database", note="stopped")
        server.stop()
        try:
            yield scene.length(1.0, 3.0)
        finally:
            server.start()
            scene.system.lasted(fault)
        yield REST_SECONDS


def _disk_full(scene: Scene) -> Steps:
    """Nothing can be written; refused writes are counted, so that a disk with room left does not pass for full."""
    disk, server = scene.servers.disk, scene.system.database_server
    with scene.alone("database", "renewals"):
        fault = scene.system.note("database", note="disk full")
        until = time.monotonic() + scene.length(2.0, 3.0)
        refused = 0
        try:
            while time.monotonic() < until:
                disk.fill()
                refused += _write_refused(scene)
                yield 0.3
        finally:
            disk.empty()
            if server is not None and not server.running:
                server.start()
        yield scene.database_answers
        scene.system.lasted(fault)
        if not refused:
            raise HarnessError(f"the disk was full, {disk.free_bytes} bytes are free now, and every write succeeded")
        yield REST_SECONDS


def _write_refused(scene: Scene) -> bool:
    """Whether a few megabytes cannot be written; nothing of them stays."""
    url = scene.system.database.url
    if scene.system.database.postgresql:
        try:
            with psycopg.connect(url, connect_timeout=2) as connection:
                connection.execute("CREATE TABLE faults_probe (data bytea)")
                connection.execute("ALTER TABLE faults_probe ALTER data SET STORAGE EXTERNAL")
                connection.execute("INSERT INTO faults_probe VALUES (%s)", (bytes(_PROBE_BYTES),))
                connection.rollback()
        except psycopg.Error:
            return True
        return False
    with contextlib.closing(sqlite3.connect(scene.system.database.path, timeout=1, isolation_level=None)) as connection:
        try:
            connection.execute("PRAGMA cache_size = 10")
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("CREATE TABLE faults_probe (data blob)")
            connection.execute("INSERT INTO faults_probe VALUES (zeroblob(?))", (_PROBE_BYTES,))
            connection.execute("ROLLBACK")
        except sqlite3.OperationalError as error:
            return "locked" not in str(error)
        return False


def _clock_jumped(seconds: int, scene: Scene) -> Steps:
    """One role's wall clock jumps, and some seconds later back."""
    labels = [label for label in scene.clocks if label in scene.system.roles and label not in scene.taken]
    if not labels:
        raise NotNow
    role = scene.system.roles[scene.rng.choice(labels)]
    clock = scene.clocks[role.label]
    with scene.alone(f"clock of {role.label}"):
        if clock.seconds:
            raise NotNow
        clock.jump(seconds)
        scene.system.note("clock", pid=role.pid, main=role.pid, note=f"{role.label} {seconds:+d} s")
        try:
            clock.check(role.environment)
            yield scene.rng.uniform(5.0, 10.0)
        finally:
            clock.jump(0)
            scene.system.note("clock", pid=role.pid, main=role.pid, note=f"{role.label} right again")


def _dispatcher_in_transaction(scene: Scene) -> Steps:
    """It stands still with its locks, for longer than the database lets a session idle in a transaction."""
    system, point = scene.system, "claim.before_commit"
    roles = [one for one in system.of("dispatcher") if one.running]
    with scene.alone("renewals", *(one.label for one in system.of("dispatcher"))):
        if not roles:
            raise NotNow
        for one in roles:
            one.forget(point)
            one.arm(point, "stop")
        try:
            yield lambda: any(one.fired(point) for one in roles)
        finally:
            for one in roles:
                one.disarm(point)
        still: list[tuple[int, Fault]] = [
            (pid, system.note("stop", pid=pid, main=one.pid, note=point)) for one in roles for pid in one.fired(point)
        ]
        try:
            yield 20.0
        finally:
            for pid, fault in still:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
                system.lasted(fault)
            for one in roles:
                one.forget(point)


# -- where they cannot be ------------------------------------------------------------------------------------------


def _no_server(servers: HarmableServers) -> str:
    return "" if servers.database is not None else "SQLite is a file: there is no server to stop and no way to cut"


def _one_lock(servers: HarmableServers) -> str:
    if servers.database is not None:
        return ""
    return (
        "on SQLite a transaction that stands still holds the one lock of the whole file; only the supervisor of "
        "`make run` helps there, by killing it, and these roles have none"
    )


def _one_host(servers: HarmableServers) -> str:
    if servers.database is None:
        return "with SQLite all roles are on one host and share its wall clock: none can jump alone"
    return "" if library() else "libfaketime is not installed: tests/servers/install.sh"


ALL: Final = (
    FaultKind("kill_worker_main", partial(_killed, "worker")),
    FaultKind("kill_child", _child_killed),
    FaultKind("kill_dispatcher", partial(_killed, "dispatcher")),
    FaultKind("kill_ingest", partial(_killed, "ingest")),
    FaultKind("stop_worker_main", partial(_worker_stopped, False)),
    FaultKind("stop_worker_family", partial(_worker_stopped, True)),
    FaultKind("stop_dispatcher", partial(_role_stopped, "dispatcher")),
    FaultKind("stop_ingest", partial(_role_stopped, "ingest")),
    FaultKind("twin_of_worker", _twin),
    FaultKind("broker_killed", _broker_killed),
    FaultKind("broker_stopped", _broker_stopped),
    FaultKind("broker_emptied", _broker_emptied),
    FaultKind("broker_answer_cut", _broker_answer_cut),
    FaultKind("broker_connections_cut", _broker_connections_cut),
    FaultKind("database_killed", _database_killed, _no_server),
    FaultKind("database_stopped", _database_stopped, _no_server),
    FaultKind("database_answer_cut", _database_answer_cut, _no_server),
    FaultKind("zombie", _zombie, _no_server),
    FaultKind("dispatcher_in_transaction", _dispatcher_in_transaction, _one_lock),
    FaultKind("disk_full", _disk_full, lambda servers: servers.disk.impossible),
    FaultKind("clock_ahead", partial(_clock_jumped, JUMP_SECONDS), _one_host),
    FaultKind("clock_behind", partial(_clock_jumped, -JUMP_SECONDS), _one_host),
)
