"""A real installation under test: servers of its own, roles started by the shipped commands and by nothing else.

Every setting that differs from the shipped ones is named in `deviations`, and printed. Each process has a crash-point
folder of its own, so that a point can be armed for one of them.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import psutil

from tests.faults.history import raw_clock
from tests.faults.rows import Database
from tests.faults.servers import Servers
from tests.faults.witness import Fault
from tests.servers.leash import hold, release

ROOT = Path(__file__).resolve().parents[2]
#: Shorter than shipped, so that a round does not take hours. Printed with every result.
DEVIATIONS = {
    "SIGNALBOX_WORKERS__LEASE_SECONDS": "10",
    "SIGNALBOX_WORKERS__LEASE_MARGIN_SECONDS": "1",
    "SIGNALBOX_DISPATCH__REAPER_TICK_SECONDS": "1",
    "SIGNALBOX_DISPATCH__PERMIT_WITHIN_SECONDS": "6",
    "SIGNALBOX_DISPATCH__DEADLINE_GRACE_SECONDS": "2",
}
#: What is read from the settings when they are as shipped.
SHIPPED = {
    "SIGNALBOX_WORKERS__LEASE_SECONDS": "60",
    "SIGNALBOX_WORKERS__LEASE_MARGIN_SECONDS": "5",
    "SIGNALBOX_DISPATCH__REAPER_TICK_SECONDS": "2",
    "SIGNALBOX_DISPATCH__PERMIT_WITHIN_SECONDS": "60",
}


def told_of(deviations: Mapping[str, str]) -> str:
    """For people: which settings are not the shipped ones."""
    told = ", ".join(f"{key.removeprefix('SIGNALBOX_')}={value}" for key, value in deviations.items())
    return f"settings that differ from the shipped ones: {told or 'none'}"


class HarnessError(Exception):
    """The harness could not do what a round needs; this is no verdict about the product."""


@dataclass
class Role:
    """One process by a shipped command; started again under the same label after it was killed."""

    label: str
    command: list[str]
    environment: dict[str, str]
    folder: Path
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    crash: Path = field(init=False)

    def __post_init__(self) -> None:
        """Make its crash-point folder."""
        self.crash = self.folder / "crash" / self.label
        for name in ("armed", "fired"):
            (self.crash / name).mkdir(parents=True, exist_ok=True)

    @property
    def pid(self) -> int:
        """Of its main process."""
        if self.process is None:
            raise HarnessError(f"{self.label} was never started")
        return self.process.pid

    @property
    def running(self) -> bool:
        """Whether its main process is there."""
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        """Start it; output goes to <label>.log."""
        with open(self.folder / f"{self.label}.log", "ab") as log:
            self.process = subprocess.Popen(
                self.command, cwd=ROOT, env={**self.environment, "SIGNALBOX_CRASH_DIR": str(self.crash)}, stdout=log,
                stderr=log, stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        hold(self.process.pid)
        self.started = time.monotonic()

    def arm(self, point: str, action: str = "kill") -> None:
        """Make the next process of this role that reaches the point die or stop there."""
        written = self.crash / f"{point}.new"
        written.write_text(action)
        written.rename(self.crash / "armed" / point)

    def disarm(self, point: str) -> None:
        """Take it back."""
        (self.crash / "armed" / point).unlink(missing_ok=True)

    def fired(self, point: str) -> list[int]:
        """Pids that died or stopped at the point, newest last."""
        files = sorted((self.crash / "fired").glob(f"{point}.*"), key=lambda path: path.stat().st_mtime)
        return [int(path.name.rpartition(".")[2]) for path in files]

    def forget(self, point: str) -> None:
        """Remove the marks of a point."""
        for path in (self.crash / "fired").glob(f"{point}.*"):
            path.unlink()

    def children(self) -> list[psutil.Process]:
        """Pool children: forks of the main process."""
        with contextlib.suppress(psutil.Error):
            main = psutil.Process(self.pid)
            own = main.cmdline()
            return [child for child in main.children() if _command_of(child) == own]
        return []

    def family(self) -> list[psutil.Process]:
        """The main process and everything below it, guardian and supervisors included."""
        with contextlib.suppress(psutil.Error):
            main = psutil.Process(self.pid)
            return [main, *main.children(recursive=True)]
        return []

    def log(self, lines: int = 15) -> str:
        """The end of its output."""
        path = self.folder / f"{self.label}.log"
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) if path.exists() else ""


def _command_of(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


class Client:
    """Talks to a `tests.faults.client` process; started again when a crash point killed it."""

    def __init__(self, label: str, environment: Mapping[str, str], folder: Path) -> None:
        """Starts at the first order."""
        self.record = folder / f"{label}.jsonl"
        self.role = Role(
            label, [sys.executable, "-m", "tests.faults.client"],
            {**environment, "FAULTS_CLIENT_RECORD": str(self.record)}, folder,
        )  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None
        self._buffer = b""

    def order(self, timeout: float = 40.0, **order: Any) -> dict[str, Any]:
        """The client's answer; `{"said": "unknown"}` when it died in the call."""
        process = self._running()
        try:
            assert process.stdin is not None
            process.stdin.write(json.dumps(order).encode() + b"\n")
            process.stdin.flush()
            answer = self._line(process, timeout)
        except (BrokenPipeError, EOFError):
            process.wait(10)
            release(process.pid)
            self._process = None
            return {"said": "unknown", "died": process.pid}
        return answer

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is None:
            return self._process
        self._buffer = b""
        with open(self.role.folder / f"{self.role.label}.log", "ab") as log:
            process = self._process = subprocess.Popen(
                self.role.command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
                env={**self.role.environment, "SIGNALBOX_CRASH_DIR": str(self.role.crash)}, start_new_session=True,
            )  # fmt: skip
        hold(process.pid)
        try:
            self._line(process, 60)
        except EOFError:
            raise HarnessError(f"the client does not start\n{self.role.log()}") from None
        return process

    def _line(self, process: subprocess.Popen[bytes], timeout: float) -> dict[str, Any]:
        assert process.stdout is not None
        deadline = time.monotonic() + timeout
        while b"\n" not in self._buffer:
            ready, _, _ = select.select([process.stdout], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise HarnessError(f"the client did not answer within {timeout} s")
            data = os.read(process.stdout.fileno(), 1 << 16)
            if not data:
                raise EOFError
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """End it."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            self._process.wait(10)
            release(self._process.pid)
            self._process = None


class System:
    """Servers, roles and clients of one installation."""

    def __init__(
        self,
        combination: str = "postgresql+rabbitmq",
        *,
        settings: Mapping[str, str] | None = None,
        mutant: str = "",
        workers: int = 2,
        dispatchers: int = 2,
        ingests: int = 2,
        slots: int = 4,
        say: Callable[[str], None] = print,
        servers: Servers | None = None,
        vary: Callable[[str, Mapping[str, str]], Mapping[str, str]] = lambda _label, _environment: {},
    ) -> None:
        """settings: SIGNALBOX_ variables in place of DEVIATIONS. mutant: a defect to put into every role.

        servers: running ones, used with a database of this system's own and a broker that is emptied before.
        vary: what the environment of a role has that the others' has not, by its label and what all have.
        """
        self.combination, self.mutant, self.say = combination, mutant, say
        self.deviations = dict(DEVIATIONS if settings is None else settings)
        self.folder = Path(tempfile.mkdtemp(prefix="signalbox-faults-"))
        self.history = self.folder / "history"
        self.history.mkdir()
        self.faults: list[Fault] = []
        self.roles: dict[str, Role] = {}
        #: Labels of roles that were told to end; roles that ended without being told or killed.
        self.draining: set[str] = set()
        self.ended: list[str] = []
        self.slots = slots
        self._wanted = (workers, dispatchers, ingests)
        self._own_servers = servers is None
        self.servers = servers or Servers(combination)
        self.database_server, self.broker = self.servers.database, self.servers.broker
        self._vary = vary

    def number(self, name: str) -> float:
        """A setting as it is in this system, shipped or not."""
        key = next(key for key in SHIPPED if key.endswith("__" + name.upper()))
        return float(self.deviations.get(key, SHIPPED[key]))

    @property
    def hold_seconds(self) -> float:
        """How long a worker goes on without the control plane."""
        return self.number("lease_seconds") - self.number("lease_margin_seconds")

    def __enter__(self) -> Self:
        try:
            return self._open()
        except BaseException:
            self.close()
            raise

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self) -> Self:
        self.servers.start()
        url = self.servers.fresh(self.folder)
        self.database = Database(url)
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("SIGNALBOX_", "DJANGO_", "PYTEST_"))}
        path = [str(ROOT / "tests" / "faults" / "mutants"), str(ROOT)] if self.mutant else [str(ROOT)]
        self.environment = {
            **clean,
            "PYTHONPATH": os.pathsep.join(path),
            "PYTHONUNBUFFERED": "1",
            "FAULTS_HISTORY": str(self.history),
            "SIGNALBOX_DATABASE_URL": url,
            "SIGNALBOX_BROKER_URL": self.servers.broker_url,
            "SIGNALBOX_STATE_DIR": str(self.folder / "state"),
            "SIGNALBOX_SECRET_KEY": "s" * 50,
            "SIGNALBOX_SIGNING_KEY": "k" * 50,
            "SIGNALBOX_IMPORTS": "tests.faults.jobs",
            **self.servers.settings,
            **self.deviations,
        }
        if self.mutant:
            self.environment["FAULTS_MUTANT"] = self.mutant
        migrated = subprocess.run(
            [sys.executable, "manage.py", "migrate", "-v0"], cwd=ROOT, env=self.environment, capture_output=True,
            text=True, timeout=120,
        )  # fmt: skip
        if migrated.returncode:
            raise HarnessError(f"migrate failed\n{migrated.stdout}{migrated.stderr}")
        self.client = Client("client", self.environment, self.folder)
        workers, dispatchers, ingests = self._wanted
        for n in range(dispatchers):
            self.add(f"dispatcher-{n}", "run_dispatcher")
        for n in range(ingests):
            self.add(f"ingest-{n}", "run_ingest")
        for n in range(workers):
            self.add(
                f"worker-{n}", "run_worker", "--name", f"w{n}", "--slots", str(self.slots), "--task-types", "default"
            )
        self.wait(lambda: self._live_workers() >= workers, "the workers to register", 90)
        return self

    def _live_workers(self) -> int:
        live = {
            row[0] for row in self.database.ask("SELECT pid FROM workers_app_workerincarnation WHERE over_at IS NULL")
        }
        return sum(role.pid in live for role in self.of("worker"))

    def add(self, label: str, *command: str) -> Role:
        """A role by a management command."""
        environment = {**self.environment, **self._vary(label, self.environment)}
        role = self.roles[label] = Role(label, [sys.executable, "manage.py", *command], environment, self.folder)
        role.start()
        return role

    def of(self, kind: str) -> list[Role]:
        """All roles of a kind: dispatcher, ingest, worker."""
        return [role for label, role in self.roles.items() if label.startswith(kind)]

    # -- faults, each written down --------------------------------------------------------------------------------

    def note(self, kind: str, *, pid: int = 0, main: int = 0, until: float | None = None, note: str = "") -> Fault:
        """Write down a fault that happened now."""
        fault = Fault(kind, raw_clock(), until, pid, main, note, time.time() - raw_clock())
        self.faults.append(fault)
        return fault

    def lasted(self, fault: Fault) -> None:
        """A fault that was noted without its end is over now."""
        index = self.faults.index(fault)
        self.faults[index] = replace(fault, until=raw_clock())

    def kill(self, role: Role, note: str = "") -> None:
        """SIGKILL to a role's main process; it stays down."""
        self.note("kill", pid=role.pid, main=role.pid, note=note or role.label)
        os.kill(role.pid, signal.SIGKILL)
        self.buried(role)

    def buried(self, role: Role) -> None:
        """Wait for the end of a role that was killed."""
        assert role.process is not None
        role.process.wait(20)
        release(role.pid)

    def keep_up(self) -> None:
        """Start again what is down. A role that ended by itself is a finding, told apart by its exit code."""
        for role in self.roles.values():
            if role.process is not None and not role.running:
                self.keep_up_one(role)

    def keep_up_one(self, role: Role) -> None:
        """Start one again that is down."""
        assert role.process is not None
        if role.process.returncode != -signal.SIGKILL and role.label not in self.draining:
            self.say(f"  {role.label} ended by itself with {role.process.returncode}\n{role.log()}")
            self.ended.append(f"{role.label}: {role.process.returncode}")
            # Whether it may is for the nemesis to say; what it held is lost with it in any case.
            self.note("kill", pid=role.pid, main=role.pid, note=f"{role.label} ended by itself")
        self.draining.discard(role.label)
        release(role.pid)
        role.start()

    @staticmethod
    def signal_all(processes: list[psutil.Process], number: int) -> None:
        """Send a signal to each that is still there."""
        for process in processes:
            with contextlib.suppress(psutil.Error):
                process.send_signal(number)

    # -- waiting --------------------------------------------------------------------------------------------------

    def wait(
        self,
        condition: Callable[[], Any],
        what: str,
        seconds: float,
        *,
        meanwhile: Callable[[], None] = lambda: None,
        every: float = 0.03,
    ) -> Any:
        """The first true value of the condition. Raises HarnessError with the roles' last lines."""
        deadline = time.monotonic() + seconds
        while True:
            value = condition()
            if value:
                return value
            if time.monotonic() > deadline:
                logs = "\n".join(f"--- {role.label}\n{role.log(8)}" for role in self.roles.values())
                raise HarnessError(f"waited {seconds:.0f} s for {what}\n{logs}")
            meanwhile()
            time.sleep(every)

    def close(self) -> None:
        """Kill every role with its family, stop the servers, remove everything."""
        for role in self.roles.values():
            if role.process is None:
                continue
            family = role.family()
            self.signal_all(family, signal.SIGCONT)
            self.signal_all(family, signal.SIGKILL)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(role.pid, signal.SIGKILL)
            role.process.wait(20)
            release(role.pid)
        if hasattr(self, "client"):
            self.client.close()
        if hasattr(self, "database"):
            self.database.close()
        if self._own_servers:
            self.servers.close()

    def remove(self) -> None:
        """Delete the folder with logs and histories."""
        shutil.rmtree(self.folder, ignore_errors=True)
