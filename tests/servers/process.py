"""What all private servers have in common: a directory, processes, ports, waiting."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

from tests.servers import leash

#: Below the range from which the kernel takes ports for outgoing connections, so that none is taken by
#: chance.
PORTS = range(20000, 32000)
START_SECONDS = 60.0
STOP_SECONDS = 30.0


class ServerError(Exception):
    """A server that is installed did not do what it was asked to; the text holds the end of its log."""


class ServerMissing(Exception):
    """The server's program is not on this machine; the text names the cure."""


def free_port() -> int:
    """A TCP port that nobody listens on at 127.0.0.1 now."""
    for port in random.sample(PORTS, 200):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    raise ServerError(f"no free port between {PORTS.start} and {PORTS.stop}")


def wait_until(condition: Callable[[], object], *, seconds: float, what: str, every: float = 0.02) -> None:
    """Return when `condition()` is true. Raises ServerError naming `what` after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise ServerError(f"waited {seconds:.0f} s in vain: {what}")
        time.sleep(every)


def answers(port: int) -> bool:
    """Whether somebody accepts connections on this loopback port."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Server:
    """A server of ours: subclasses say how it is prepared, started and asked to stop."""

    #: The name in messages and directories.
    name = "server"

    def __init__(self) -> None:
        """Make the directory; nothing runs yet. Raises ServerMissing when the program is not there."""
        self.require()
        self.directory = Path(tempfile.mkdtemp(prefix=f"signalbox-{self.name}-"))
        leash.hold_directory(self.directory)
        self._processes: list[subprocess.Popen[bytes]] = []
        self._prepared = False

    # What subclasses write

    def require(self) -> None:
        """Raise ServerMissing when the program is not on this machine."""

    def prepare(self) -> None:
        """Make the data directory; called once, before the first start."""

    def launch(self) -> None:
        """Start the processes with `spawn` and return when the server answers."""
        raise NotImplementedError

    def ask_to_stop(self) -> None:
        """Ask for an orderly end. The default is SIGTERM to the main process."""
        self.main.send_signal(signal.SIGTERM)

    # What callers use

    @property
    def running(self) -> bool:
        """Whether the main process lives."""
        return bool(self._processes) and self.main.poll() is None

    @property
    def main(self) -> subprocess.Popen[bytes]:
        """The server's main process, the one started last. Raises ServerError when there is none."""
        if not self._processes:
            raise ServerError(f"{self.name} was not started")
        return self._processes[-1]

    @property
    def pid(self) -> int:
        """The main process."""
        return self.main.pid

    @property
    def pids(self) -> list[int]:
        """All processes of this server, the main one's children too."""
        return sorted({pid for process in self._processes for pid in leash.family(process.pid)})

    def start(self) -> Self:
        """Start, and return when the server answers; a running one is left alone."""
        if self.running:
            return self
        self.kill()  # whatever an end that nobody asked for left behind
        if not self._prepared:
            self.prepare()
            self._prepared = True
        try:
            self.launch()
        except BaseException:
            self.kill()
            raise
        return self

    def stop(self) -> None:
        """An orderly end; data is kept for the next `start()`. Killed when it takes longer than 30 s."""
        if self.running:
            self.ask_to_stop()
            with suppress(subprocess.TimeoutExpired):
                self.main.wait(STOP_SECONDS)
        self.kill()

    def kill(self) -> None:
        """SIGKILL for every process of the server; returns when all are gone."""
        gone = leash.kill_families([process.pid for process in reversed(self._processes)], seconds=STOP_SECONDS)
        for process in self._processes:
            process.wait(STOP_SECONDS)
            leash.release(process.pid)
        self._processes.clear()
        if not gone:
            raise ServerError(f"processes of {self.name} do not end")

    def pause(self) -> None:
        """SIGSTOP for every process of the server."""
        for pid in self.pids:
            os.kill(pid, signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT for every process of the server."""
        for pid in self.pids:
            os.kill(pid, signal.SIGCONT)

    def close(self) -> None:
        """Stop and remove the data."""
        try:
            self.stop()
        finally:
            shutil.rmtree(self.directory, ignore_errors=True)
            leash.release_directory(self.directory)

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(self, *_: object) -> None:
        self.close()

    def log(self, last: int = 2000) -> str:
        """The end of what the server printed."""
        path = self.directory / "server.log"
        return path.read_text(errors="replace")[-last:] if path.exists() else ""

    # What subclasses use

    def spawn(
        self, command: Sequence[str | Path], *, env: Mapping[str, str] | None = None, user: str | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a process in a session of its own, with its output in `server.log`."""
        with open(self.directory / "server.log", "ab") as log:
            process = subprocess.Popen(
                [str(word) for word in command],
                cwd=self.directory,
                env=dict(env) if env is not None else None,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                user=user,
                group=user,
                extra_groups=[] if user else None,
            )
        leash.hold(process.pid)
        self._processes.append(process)
        return process

    def wait_for(self, condition: Callable[[], object], *, seconds: float = START_SECONDS) -> None:
        """Return when `condition()` is true. Raises ServerError with the log when the server ends before."""
        process = self.main

        def ready_or_dead() -> object:
            return process.poll() is not None or condition()

        try:
            wait_until(ready_or_dead, seconds=seconds, what=f"{self.name} does not answer")
        except ServerError as error:
            raise ServerError(f"{error}\n{self.log()}") from None
        if process.poll() is not None:
            raise ServerError(f"{self.name} ended with {process.returncode}\n{self.log()}")
