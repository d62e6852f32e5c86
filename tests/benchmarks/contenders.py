"""The contenders: how each is started, asked and stopped, and where each keeps the truth."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

import psycopg

from tests.benchmarks import jobs, processes
from tests.servers import PostgresServer, RabbitMQServer, RedisServer, RedisStreamServer, leash

ROOT = Path(__file__).resolve().parents[2]
SLOTS = 2
STALLED_SECONDS = 60.0
#: The parts of the benchmark that are rounds, each among contenders of its own.
ROUNDS: Final = ("rounds", "redis")

Broker = RabbitMQServer | RedisServer


class BenchmarkError(Exception):
    """A contender did not do what it must; the text holds the end of its logs."""


@dataclass
class Servers:
    """What all contenders share."""

    postgres: PostgresServer
    rabbitmq: RabbitMQServer
    redis: RedisServer
    redis_stream: RedisStreamServer
    folder: Path


@dataclass
class Contender(ABC):
    """One contender, started anew for each round."""

    servers: Servers
    broker: Broker
    name: str
    title: str
    folder: Path = field(init=False)
    _roles: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict, init=False)

    # What subclasses write

    #: The module of `client`.
    kind = "bare"
    #: Whether its database's CPU and memory are its own.
    uses_database = False
    #: Its database, made once.
    database = ""
    #: By how much its load is cut, where it is shown for comparison alone and is slow.
    fewer_runs = 1

    @abstractmethod
    def commands(self) -> dict[str, list[str]]:
        """Role → command line after the interpreter."""

    @abstractmethod
    def environment(self) -> dict[str, str]:
        """What its processes are told."""

    def prepare(self) -> None:  # noqa: B027 - not everybody has something to prepare
        """Once before the first round: database, tables."""

    def unfinished(self, truth: psycopg.Connection[Any]) -> bool:
        """Whether any run is not final in the truth yet; asked when all bodies have begun."""
        return False

    def completed(self, truth: psycopg.Connection[Any]) -> int:
        """Rows that say completed."""
        return 0

    # What the harness uses

    def start(self, label: str) -> Self:
        """Start all roles and the client, and return when both run and the first runs went through."""
        self.folder = self.servers.folder / label
        self.records.mkdir(parents=True)
        for role, command in self.commands().items():
            self._roles[role] = self._spawn(role, command, stdin=subprocess.DEVNULL)
        self._roles["client"] = self._spawn(
            "client", ["-m", "tests.benchmarks.client", self.kind], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._answer(60.0)
        return self

    def stop(self) -> None:
        """SIGTERM to each role, SIGKILL after a while; queues are removed."""
        client = self._roles.pop("client", None)
        if client is not None:
            assert client.stdin is not None
            with suppress(BrokenPipeError):
                client.stdin.close()
            self._roles["client"] = client
        for process in self._roles.values():
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + 20
        for process in self._roles.values():
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.1, deadline - time.monotonic()))
        leash.kill_families([process.pid for process in self._roles.values()], seconds=10)
        for process in self._roles.values():
            process.wait(10)
            leash.release(process.pid)
            if process.stdout is not None:
                process.stdout.close()
        self._roles.clear()
        self.broker.delete_all_queues()

    def ask(self, *, seconds: float = 600.0, **command: Any) -> dict[str, Any]:
        """A command to the client, and its answer."""
        self.send(**command)
        return self._answer(seconds)

    def send(self, **command: Any) -> None:
        """A command to the client; its answer is fetched by `answer`."""
        stdin = self._roles["client"].stdin
        assert stdin is not None
        stdin.write(json.dumps(command).encode() + b"\n")
        stdin.flush()

    def answer(self) -> dict[str, Any]:
        """The client's answer."""
        return self._answer(600.0)

    @property
    def records(self) -> Path:
        """Where bodies leave their marks."""
        return self.folder / "records"

    @property
    def roots(self) -> dict[str, list[int]]:
        """Role → processes, servers included, for `processes.families`."""
        found = {role: [process.pid] for role, process in self._roles.items()}
        found["broker"] = self.broker.pids
        if self.uses_database:
            found["database"] = [self.servers.postgres.pid]
        return found

    def pid_of(self, role: str) -> int:
        """The main process of a role."""
        return self._roles[role].pid

    def wait_bodies(self, total: int) -> None:
        """Return when so many bodies have begun since the start. Raises BenchmarkError when nothing moves."""
        seen, moved = -1, time.monotonic()
        while (now := jobs.count(self.records)) < total:
            if now != seen:
                seen, moved = now, time.monotonic()
            self._check(moved, f"{now} of {total} bodies began")
            time.sleep(0.005)

    def wait_truth(self, truth: psycopg.Connection[Any] | None) -> int:
        """Return CLOCK_MONOTONIC in ns of the moment at which everything was seen final."""
        if truth is None:
            return time.monotonic_ns()
        began = time.monotonic()
        while self.unfinished(truth):
            self._check(began, "not everything is final in the database")
            time.sleep(0.01)
        return time.monotonic_ns()

    def truth(self) -> psycopg.Connection[Any] | None:
        """A connection to the truth, if it is a database."""
        if not self.database:
            return None
        return psycopg.connect(self.servers.postgres.url_of(self.database), autocommit=True)

    def tail(self) -> str:
        """The last lines of every role's log."""
        parts = []
        for path in sorted(self.folder.glob("*.log")):
            lines = path.read_text(errors="replace").splitlines()[-15:]
            parts.append(f"--- {path.name}\n" + "\n".join(line[:500] for line in lines))
        return "\n".join(parts)

    def _check(self, moved: float, what: str) -> None:
        for role, process in self._roles.items():
            if process.poll() is not None:
                raise BenchmarkError(f"{self.name}: {role} ended with {process.returncode}\n{self.tail()}")
        if time.monotonic() - moved > STALLED_SECONDS:
            raise BenchmarkError(f"{self.name}: {what}, and nothing moves\n{self.tail()}")

    def _spawn(self, role: str, command: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
        clean = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("SIGNALBOX_", "DJANGO_", "CELERY_", "BENCHMARK_"))
        }
        environment = {
            **clean,
            "PYTHONPATH": str(ROOT),
            jobs.RECORDS: str(self.records),
            processes.MARK: role,
            **self.environment(),
        }
        with open(self.folder / f"{role}.log", "ab") as log:
            options.setdefault("stdout", log)
            process = subprocess.Popen(
                [sys.executable, *command], cwd=ROOT, env=environment, stderr=log, start_new_session=True, **options
            )
        leash.hold(process.pid)
        return process

    def _answer(self, seconds: float) -> dict[str, Any]:
        client = self._roles["client"]
        assert client.stdout is not None
        ready, _, _ = select.select([client.stdout], [], [], seconds)
        line = client.stdout.readline() if ready else b""
        if not line:
            raise BenchmarkError(f"{self.name}: the client does not answer\n{self.tail()}")
        answer: dict[str, Any] = json.loads(line)
        return answer


@dataclass
class BareCelery(Contender):
    """Celery alone. Its truth is the body's own record."""

    #: Whether each message is confirmed; on Redis the answer to the command is the confirm, and there is no other way.
    confirm: bool = True

    def commands(self) -> dict[str, list[str]]:
        return {"worker": celery_worker("bare")}

    def environment(self) -> dict[str, str]:
        return {
            "BENCHMARK_BROKER_URL": self.broker.url,
            "BENCHMARK_CONFIRM": "1" if self.confirm else "0",
        }


@dataclass
class CeleryWithResults(Contender):
    """Celery and django-celery-results."""

    kind = "results"
    uses_database = True
    #: Whether children keep their connection. By default Celery takes a new one for each task; to keep it
    #: takes a setting that its documentation does not name, and more than doubles what this contender can do.
    keep: bool = True

    def __post_init__(self) -> None:
        self.database = f"bench_{self.name}"
        self.fewer_runs = 1 if self.keep else 5

    def prepare(self) -> None:
        self.servers.postgres.create_database(self.database)
        _run(["-m", "django", "migrate", "-v0"], self.environment() | {
            "DJANGO_SETTINGS_MODULE": "tests.benchmarks.results_settings"
        })  # fmt: skip

    def commands(self) -> dict[str, list[str]]:
        return {"worker": celery_worker("results")}

    def environment(self) -> dict[str, str]:
        return {
            "BENCHMARK_BROKER_URL": self.broker.url,
            "BENCHMARK_DATABASE_URL": self.servers.postgres.url_of(self.database),
            "BENCHMARK_CONFIRM": "1",
            "BENCHMARK_REUSE_MAX": "1000000" if self.keep else "0",
        }

    def unfinished(self, truth: psycopg.Connection[Any]) -> bool:
        # A row is made when the body starts, so all rows exist when all bodies have begun.
        row = truth.execute(
            "SELECT 1 FROM django_celery_results_taskresult WHERE status NOT IN ('SUCCESS', 'FAILURE') LIMIT 1"
        ).fetchone()
        return row is not None

    def completed(self, truth: psycopg.Connection[Any]) -> int:
        return _number(truth, "SELECT count(*) FROM django_celery_results_taskresult WHERE status = 'SUCCESS'")


@dataclass
class Signalbox(Contender):
    """Signalbox, by its shipped commands."""

    kind = "signalbox"
    uses_database = True

    def __post_init__(self) -> None:
        self.database = f"bench_{self.name}"

    def prepare(self) -> None:
        self.servers.postgres.create_database(self.database)
        (self.servers.folder / "state").mkdir(exist_ok=True)
        _run(["manage.py", "migrate", "-v0"], self.environment())

    def commands(self) -> dict[str, list[str]]:
        worker = ["manage.py", "run_worker", "--name", "w1", "--slots", str(SLOTS), "--task-types", "default"]
        return {
            "dispatcher": ["manage.py", "run_dispatcher"],
            "ingest": ["manage.py", "run_ingest"],
            "worker": worker,
        }

    def environment(self) -> dict[str, str]:
        return signalbox_environment(self.servers, self.database, self.broker)

    def unfinished(self, truth: psycopg.Connection[Any]) -> bool:
        row = truth.execute(
            "SELECT 1 FROM tasks_app_taskrun WHERE status IN ('PENDING', 'DISPATCHED', 'RUNNING') LIMIT 1"
        ).fetchone()
        return row is not None

    def completed(self, truth: psycopg.Connection[Any]) -> int:
        return _number(truth, "SELECT count(*) FROM tasks_app_taskrun WHERE status = 'COMPLETED'")


def signalbox_environment(servers: Servers, database: str, broker: Broker) -> dict[str, str]:
    """An installation's environment: nothing but addresses, keys, and JSON logs."""
    return {
        "SIGNALBOX_DATABASE_URL": servers.postgres.url_of(database),
        "SIGNALBOX_BROKER_URL": broker.url,
        "SIGNALBOX_STATE_DIR": str(servers.folder / "state"),
        "SIGNALBOX_SECRET_KEY": "s" * 50,
        "SIGNALBOX_SIGNING_KEY": "k" * 50,
        "SIGNALBOX_IMPORTS": "tests.benchmarks.jobs",
        "SIGNALBOX_HEALTH_PORT": "0",
        "SIGNALBOX_LOG_FORMAT": "json",
        "DJANGO_SETTINGS_MODULE": "scheduler_project.settings",
    }


def celery_worker(module: str) -> list[str]:
    """Celery's own command for a worker with its own defaults: prefork, logs from WARNING on, no events."""
    return ["-m", "celery", "-A", f"tests.benchmarks.{module}", "worker", "-P", "prefork", "-c", str(SLOTS)]


def all_contenders(servers: Servers) -> Mapping[str, list[Contender]]:
    """Everybody, by the part of the benchmark in whose rounds they meet; Signalbox last."""
    rabbitmq, stock, stream = servers.rabbitmq, servers.redis, servers.redis_stream
    return {
        "rounds": [
            BareCelery(servers, rabbitmq, "celery", "Celery, a confirm per message", confirm=True),
            BareCelery(servers, rabbitmq, "celery_unconfirmed", "Celery, no confirms", confirm=False),
            CeleryWithResults(servers, rabbitmq, "results", "Celery + django-celery-results, connections kept"),
            CeleryWithResults(
                servers, rabbitmq, "results_default", "Celery + django-celery-results, as it comes", keep=False
            ),
            Signalbox(servers, rabbitmq, "signalbox", "Signalbox, submitted in hundreds"),
        ],
        "redis": [
            BareCelery(servers, stock, "celery_redis", "Celery, stock Redis"),
            BareCelery(servers, stream, "celery_stream", "Celery, redis-stream"),
            CeleryWithResults(
                servers, stock, "results_redis", "Celery + django-celery-results, stock Redis, connections kept"
            ),
            CeleryWithResults(
                servers, stock, "results_redis_default", "Celery + django-celery-results, stock Redis, as it comes",
                keep=False,
            ),
            Signalbox(servers, stock, "signalbox_redis", "Signalbox, stock Redis, submitted in hundreds"),
            Signalbox(servers, stream, "signalbox_stream", "Signalbox, redis-stream, submitted in hundreds"),
        ],
    }  # fmt: skip


def wait_for(condition: Callable[[], object], *, seconds: float, what: str) -> None:
    """Return when the condition is true. Raises BenchmarkError."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise BenchmarkError(f"waited {seconds:.0f} s in vain: {what}")
        time.sleep(0.02)


def _run(command: Sequence[str], environment: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        raise BenchmarkError(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")


def _number(connection: psycopg.Connection[Any], sql: str) -> int:
    row = connection.execute(sql).fetchone()
    return int(row[0]) if row else 0
