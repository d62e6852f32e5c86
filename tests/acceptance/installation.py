"""A whole installation for acceptance tests: real roles, started by their shipped commands, used over HTTP."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.servers import leash
from tests.servers.process import free_port

ROOT = Path(__file__).resolve().parents[2]
PASSWORD = "acceptance-" + secrets.token_hex(8)


class Gone(AssertionError):
    """A role ended that should run; the text holds the end of its log."""


@dataclass
class Answer:
    """What the API answered."""

    status: int
    body: Any
    headers: dict[str, str]


@dataclass
class Installation:
    """Roles of one installation, each with its own log file."""

    folder: Path
    database_url: str
    broker_url: str
    environment: dict[str, str] = field(default_factory=dict)
    roles: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    token: str = ""

    def __post_init__(self) -> None:
        """Environment of every process, without anything of the developer's own."""
        self.port = free_port()
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("SIGNALBOX_", "DJANGO_", "PYTEST_"))}
        self.environment = {
            **clean,
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            "SIGNALBOX_DATABASE_URL": self.database_url,
            "SIGNALBOX_BROKER_URL": self.broker_url,
            "SIGNALBOX_STATE_DIR": str(self.folder / "state"),
            "SIGNALBOX_SECRET_KEY": "s" * 50,
            "SIGNALBOX_SIGNING_KEY": "k" * 50,
            "SIGNALBOX_WORKERS__LEASE_SECONDS": "10",
            "SIGNALBOX_WORKERS__LEASE_MARGIN_SECONDS": "1",
            "SIGNALBOX_DISPATCH__REAPER_TICK_SECONDS": "1",
            **self.environment,
        }

    def manage(self, *arguments: str, check: bool = True, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run a management command to its end."""
        return subprocess.run(
            [sys.executable, "manage.py", *arguments], cwd=ROOT, env=self.environment, check=check, timeout=timeout,
            capture_output=True, text=True,
        )  # fmt: skip

    def prepare(self) -> None:
        """Make the tables and a user."""
        self.manage("migrate", "-v0")
        self.environment["DJANGO_SUPERUSER_PASSWORD"] = PASSWORD
        self.manage("createsuperuser", "--noinput", "--username", "root", "--email", "root@example.org")

    def start(self, label: str, *arguments: str) -> subprocess.Popen[bytes]:
        """Start a role; its output goes to <label>.log."""
        with open(self.folder / f"{label}.log", "ab") as log:
            process = subprocess.Popen(
                [sys.executable, "manage.py", *arguments], cwd=ROOT, env=self.environment, stdout=log, stderr=log,
                stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        self.roles[label] = process
        leash.hold(process.pid)
        return process

    def start_all(self, *, dispatchers: int = 1, ingests: int = 1, workers: int = 1, slots: int = 2) -> None:
        """Start the web and so many of each role, and wait until the API answers."""
        self.start("web", "run_web", "--port", str(self.port))
        for n in range(dispatchers):
            self.start(f"dispatcher-{n}", "run_dispatcher")
        for n in range(ingests):
            self.start(f"ingest-{n}", "run_ingest")
        for n in range(workers):
            self.start(f"worker-{n}", "run_worker", "--name", f"w-{n}", "--slots", str(slots))
        self.wait_for(lambda: self.raw("GET", "/livez").status == 200, "the web to answer")
        answer = self.raw("POST", "/api/v1/auth/login", {"username": "root", "password": PASSWORD})
        assert answer.status == 200, answer
        self.token = answer.body["access_token"]
        self.wait_for(lambda: self.online() == workers, f"{workers} workers to be online")

    def online(self) -> int:
        """How many workers are up: their lease holds and their first heartbeat was taken in."""
        rows = self.api("GET", "workers")["results"]
        return sum(row["state"] == "ONLINE" and row["cpu_percent"] is not None for row in rows)

    def raw(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Answer:
        """One request; status 0 when nobody answers."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data=data, method=method)
        request.add_header("Content-Type", "application/json")
        if self.token:
            request.add_header("Authorization", f"Bearer {self.token}")
        for name, value in (headers or {}).items():
            request.add_header(name, value)
        try:
            with urllib.request.urlopen(request, timeout=20) as response:
                text = response.read()
                return Answer(response.status, _decoded(text), dict(response.headers))
        except urllib.error.HTTPError as error:
            return Answer(error.code, _decoded(error.read()), dict(error.headers))
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return Answer(0, None, {})

    def api(self, method: str, path: str, body: Any = None, *, expect: int | None = None) -> Any:
        """A request to /api/v1; the answer's body, after its status was checked."""
        answer = self.raw(method, f"/api/v1/{path}", body)
        wanted = {expect} if expect else {200, 201, 202, 204}
        assert answer.status in wanted, f"{method} {path}: {answer.status} {answer.body}"
        return answer.body

    def wait_for(self, condition: Callable[[], Any], what: str, seconds: float = 45) -> Any:
        """The first true value of the condition. Fails with every role's last lines."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            value = condition()
            if value:
                return value
            for label, process in self.roles.items():
                if process.poll() not in (None, -signal.SIGKILL):
                    raise Gone(f"{label} ended with {process.returncode}\n{self.tail(label)}")
            time.sleep(0.05)
        logs = "\n".join(f"--- {label}\n{self.tail(label)}" for label in self.roles)
        raise AssertionError(f"waited {seconds} s for {what}\n{logs}")

    def finished(self, run_id: int, seconds: float = 45) -> dict[str, Any]:
        """The run, once it is final."""
        final = {"COMPLETED", "FAILED", "TIMEOUT", "CANCELLED", "SKIPPED", "LOST", "QUARANTINED"}

        def look() -> dict[str, Any] | None:
            run: dict[str, Any] = self.api("GET", f"runs/{run_id}")
            return run if run["status"] in final else None

        found: dict[str, Any] = self.wait_for(look, f"run {run_id} to end", seconds)
        return found

    def log_text(self, run_id: int) -> str:
        """All text of a run's log."""
        return "".join(chunk["text"] for chunk in self.api("GET", f"runs/{run_id}/log")["chunks"])

    def tail(self, label: str, lines: int = 25) -> str:
        """The last lines of a role's log."""
        path = self.folder / f"{label}.log"
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) if path.exists() else ""

    def stop(self, label: str, seconds: float = 40) -> int:
        """SIGTERM to the role's main process, and its exit code."""
        process = self.roles.pop(label)
        process.terminate()
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            tail = self.tail(label)
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)
            raise AssertionError(f"{label} did not stop within {seconds} s\n{tail}") from None

    def close(self) -> None:
        """End whatever still runs, each role with its session."""
        for process in self.roles.values():
            if process.poll() is None:
                process.terminate()
        for process in self.roles.values():
            with suppress(subprocess.TimeoutExpired):
                process.wait(15)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)
            leash.release(process.pid)
        self.roles.clear()


def _decoded(text: bytes) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text.decode(errors="replace")


@contextmanager
def installation(folder: Path, database_url: str, broker_url: str, **environment: str) -> Iterator[Installation]:
    """An installation with its tables made and nothing started; everything is stopped at the end."""
    made = Installation(folder, database_url, broker_url, dict(environment))
    try:
        made.prepare()
        yield made
    finally:
        made.close()
