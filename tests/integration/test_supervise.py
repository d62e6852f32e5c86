"""The supervisor behind `make run`, with stubs for the roles and the real Valkey."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import redis

from tests.servers.process import free_port, wait_until

ROOT = Path(__file__).resolve().parents[2]
DRIVER = """
import dataclasses, pathlib, sys
from scheduler_project.supervise import preflight
from scheduler_project.supervise.supervisor import Supervisor
preflight.LEFTOVER_SECONDS = 3.0
try:
    plan = preflight.plan(sys.argv[2:])
except preflight.CannotStart as error:
    sys.exit("\\n".join(error.args))
with plan:
    sys.exit(Supervisor(dataclasses.replace(plan, root=pathlib.Path(sys.argv[1]))).run())
"""


class Run:
    """One `make run` on a folder, with what it printed so far."""

    def __init__(self, folder: Path, **env: str) -> None:
        self.state = folder / "state"
        self.web, self.flower = free_port(), free_port()
        project = folder / "project"
        project.mkdir(exist_ok=True)
        shutil.copy(Path(__file__).with_name("stub_manage.py"), project / "manage.py")
        kept = {key: value for key, value in os.environ.items() if not key.startswith("SIGNALBOX_")}
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                DRIVER,
                project,
                "--port",
                str(self.web),
                "--flower-port",
                str(self.flower),
            ],
            cwd=ROOT,
            env={**kept, "SIGNALBOX_STATE_DIR": str(self.state), **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        self.text = ""
        self.seen: set[psutil.Process] = set()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.text += line

    def wait_for(self, pattern: str, seconds: float = 30) -> re.Match[str]:
        """The first match in what was printed."""
        found: list[re.Match[str]] = []

        def look() -> bool:
            match = re.search(pattern, self.text)
            if match:
                found.append(match)
            return bool(match) or self.process.poll() is not None

        wait_until(look, seconds=seconds, what=f"{pattern!r} in:\n{self.text}")
        self.look()
        # The reader may be a moment behind the end.
        if not found:
            wait_until(lambda: re.search(pattern, self.text), seconds=2, what=f"{pattern!r} in:\n{self.text}")
            found.append(re.search(pattern, self.text))  # type: ignore[arg-type]
        return found[0]

    def look(self) -> None:
        """Remember who descends from the supervisor."""
        try:
            self.seen |= set(psutil.Process(self.process.pid).children(recursive=True))
        except psutil.NoSuchProcess:
            return

    def pid(self, role: str) -> int:
        return int((self.state / f"{role}.pid").read_text())

    def stop(self, number: signal.Signals = signal.SIGINT, seconds: float = 60) -> int:
        """Ctrl-C, the exit status, and nothing that was seen lives."""
        self.look()
        self.process.send_signal(number)
        status = self.process.wait(seconds)
        assert self.left() == []
        return status

    def left(self) -> list[psutil.Process]:
        return [p for p in self.seen if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]

    def close(self) -> None:
        self.look()
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for process in self.left():
            process.kill()
        self._reader.join(10)
        assert self.process.stdout is not None
        self.process.stdout.close()


Start = Callable[..., Run]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    runs: list[Run] = []

    def started(**env: str) -> Run:
        runs.append(Run(tmp_path, **env))
        return runs[-1]

    yield started
    for run in runs:
        run.close()


def test_everything_comes_up_says_where_it_is_and_ends_with_ctrl_c(start: Start) -> None:
    run = start(STUB_WORKER="child,slow,orphan")
    run.wait_for(rf"log in once with http://127.0.0.1:{run.web}/login/once/token-of-the-stub/")
    for name in ("valkey", "web", "dispatcher", "ingest", "worker", "flower"):
        assert re.search(rf"✓ {name} ", run.text), run.text
    assert f"http://127.0.0.1:{run.web}/" in run.text
    orphan = int((run.state / "orphan.pid").read_text())
    assert run.stop() == 0
    assert not psutil.pid_exists(orphan) or psutil.Process(orphan).status() == psutil.STATUS_ZOMBIE
    assert "\x1b" not in run.text
    # The pool's children are not told; the main process drains, and reports can still be taken then.
    assert "child got TERM" not in run.text
    assert run.text.index("worker ends") < run.text.index("got SIGTERM", run.text.index("ingest     | got"))
    assert run.text.rstrip().endswith("everything has ended")


def test_a_role_that_dies_is_started_again_with_a_line(start: Start) -> None:
    run = start(STUB_DISPATCHER="die")
    run.wait_for(r"✗ dispatcher ended with exit status 7; again in 1 s")
    run.wait_for(r"(?s)dispatcher ended.*✓ dispatcher ")
    os.kill(run.pid("worker"), signal.SIGKILL)
    run.wait_for(r"✗ worker ended by SIGKILL; again in 1 s")
    assert run.stop(signal.SIGTERM) == 0


def test_on_sqlite_a_role_that_is_silent_for_half_a_lease_is_killed_and_started_again(
    start: Start,
) -> None:
    run = start(STUB_INGEST="freeze", SIGNALBOX_WORKERS__LEASE_SECONDS="12")
    run.wait_for(r"✗ ingest has been silent for 6 s and may hold up the others: killed")
    run.wait_for(r"(?s)✗ ingest ended by SIGKILL.*✓ ingest ")
    assert "web has been silent" not in run.text
    assert run.stop() == 0


def test_a_second_ctrl_c_kills_what_does_not_end(start: Start) -> None:
    run = start(STUB_WEB="ignore-term")
    run.wait_for("log in once")
    run.look()
    run.process.send_signal(signal.SIGINT)
    run.wait_for(r"waiting for web \(at most")
    run.process.send_signal(signal.SIGINT)
    assert run.process.wait(20) == 0
    run.wait_for("✗ web did not end: killed")
    assert run.left() == []


def broker(run: Run) -> redis.Redis:
    config = (run.state / "valkey" / "valkey.conf").read_text().split()
    return redis.Redis(port=int(config[config.index("port") + 1]), password=config[config.index("requirepass") + 1])


def test_the_next_start_goes_on_with_the_same_secrets_and_the_same_broker_data(start: Start) -> None:
    first = start()
    first.wait_for("log in once")
    with broker(first) as client:
        client.set("kept", "yes")
    secrets = {path.name: path.read_text() for path in first.state.glob("*.secret")}
    assert len(secrets) == 3
    assert {stat.S_IMODE(path.stat().st_mode) for path in first.state.glob("*.secret")} == {0o600}
    assert stat.S_IMODE(first.state.stat().st_mode) == 0o700
    first.stop()
    second = start()
    second.wait_for("log in once")
    with broker(second) as client:
        assert client.get("kept") == b"yes"
    assert {path.name: path.read_text() for path in second.state.glob("*.secret")} == secrets
    second.stop()


def test_a_killed_supervisor_takes_its_roles_along_and_the_next_start_is_clean(start: Start) -> None:
    first = start(STUB_WEB="ignore-term")
    first.wait_for("log in once")
    deaf = psutil.Process(first.pid("web"))
    first.look()
    first.process.kill()
    first.process.wait()
    wait_until(lambda: first.left() == [deaf], seconds=10, what="roles outlive their supervisor")
    second = start()
    second.wait_for("waiting for 1 processes of an earlier run to end")
    second.wait_for("log in once", seconds=60)
    assert first.left() == []
    second.stop()


def test_a_second_supervisor_on_the_same_folder_is_refused_in_one_line(start: Start) -> None:
    first = start()
    first.wait_for("log in once")
    second = start()
    assert second.process.wait(20) == 1
    second.wait_for("already running on ")
    assert second.text.count("\n") == 1
    assert f"(pid {first.process.pid})" in second.text
    first.stop()


def test_a_busy_port_is_one_line_with_the_process_and_the_cure(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = subprocess.run(
            [sys.executable, "-m", "scheduler_project.supervise", "--port", str(port)],
            cwd=ROOT,
            env={"PATH": os.defpath, "SIGNALBOX_STATE_DIR": str(tmp_path / "state")},
            capture_output=True,
            text=True,
        )
    assert done.returncode == 1
    assert done.stdout == ""
    pattern = rf"error: port {port} is in use by process {os.getpid()} .*; stop that, or: PORT=(\d+) make run\n"
    assert re.fullmatch(pattern, done.stderr), done.stderr


def test_an_unknown_variable_is_one_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "scheduler_project.supervise"],
        cwd=ROOT,
        env={"PATH": os.defpath, "SIGNALBOX_STATE_DIR": str(tmp_path), "SIGNALBOX_BROKR_URL": "x"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "SIGNALBOX_BROKER_URL" in done.stderr


def test_the_supervisor_imports_neither_django_nor_celery() -> None:
    code = (
        "import sys, scheduler_project.supervise.preflight, scheduler_project.supervise.supervisor;"
        "sys.exit(bool({'django', 'celery', 'kombu'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_the_lease_that_the_supervisor_assumes_is_the_shipped_one() -> None:
    from scheduler_project.supervise.preflight import DEFAULT_LEASE_SECONDS
    from workers_app.conf import WorkerSettings

    assert WorkerSettings().lease_seconds == DEFAULT_LEASE_SECONDS
