"""Runs one shell command for an attempt, in the pool process, and reads what it says while it runs.

The command sees PATH, HOME, LANG, TZ, what its parameters' `env` adds, SIGNALBOX_RUN_ID, SIGNALBOX_ATTEMPT
and SIGNALBOX_IDEMPOTENCY_KEY, and nothing else of the worker's environment. It starts in `cwd`, or in /.

The run is over when the command itself ends; whatever it left behind is killed (see `shell_supervisor`).
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Self

from tasks_app.shell_parameters import argv_of, check_parameters
from workers_app.executors.limits import ShellLimits
from workers_app.executors.output import Output
from workers_app.executors.ports import Job
from workers_app.executors.shell_supervisor import Command
from workers_app.job import BodyStopped

#: How often it looks whether a stop was asked for.
POLL_SECONDS: Final = 0.1
#: Beyond the grace, how long the supervisor may take to end a tree and to say so.
ENDING_SECONDS: Final = 3.0
_SUPERVISOR: Final = str(Path(__file__).with_name("shell_supervisor.py"))
_INHERITED: Final = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/", "LANG": "C.UTF-8", "TZ": None}
_READ_BYTES: Final = 256 * 1024
__all__ = [
    "ShellFailed", "ShellNotStarted", "ShellResult", "ShellStopped", "SupervisorLost", "check_parameters",
    "run_shell",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class ShellResult:
    """How a command that succeeded ended. Tails: the last 4 KiB as text. Bytes: all that was written."""

    exit_code: int
    stdout: str
    stderr: str
    stdout_bytes: int
    stderr_bytes: int
    duration_seconds: float

    def as_json(self) -> dict[str, Any]:
        """For the run's result."""
        return asdict(self)


class ShellFailed(Exception):
    """The command ended with a code other than 0, or by a signal that nobody here sent.

    exit_code: as Python says it, -9 for an end by signal 9. The message holds the last of its stderr.
    """

    def __init__(self, exit_code: int, tail: str) -> None:
        """tail: the last of its stderr (or of its stdout, where that is empty)."""
        self.exit_code, self.tail = exit_code, tail
        how = f"exit code {exit_code}" if exit_code >= 0 else f"ended by {_signal_name(-exit_code)}"
        super().__init__(f"{how}: {tail.strip()}" if tail.strip() else how)

    def __reduce__(self) -> tuple[Any, ...]:
        """Exceptions travel from the pool process to the worker's main process."""
        return type(self), (self.exit_code, self.tail)


class ShellNotStarted(ShellFailed):
    """The command could not be started: no such program, no such folder, wrong parameters."""

    def __init__(self, problem: str) -> None:
        """problem: one line."""
        super().__init__(127, problem)
        self.args = (f"cannot be started: {problem}",)

    def __reduce__(self) -> tuple[Any, ...]:
        """As above."""
        return type(self), (self.tail,)


class ShellStopped(BodyStopped):
    """The command was ended by us; `stop_reason` says why."""

    def __str__(self) -> str:
        """One line."""
        return f"stopped: {self.stop_reason}"


class SupervisorLost(Exception):
    """The command's supervisor was killed from outside; what was left of the command has been killed, too."""


def run_shell(parameters: Mapping[str, Any], *, job: Job, limits: ShellLimits | None = None) -> ShellResult:
    """Run it and return how it ended.

    Raises ShellNotStarted, ShellFailed, ShellStopped, SupervisorLost. However it is left, also by an
    exception of `job`, nothing of the command's tree is alive afterwards.
    """
    limits = limits or ShellLimits()
    problems = check_parameters(parameters)
    if problems:
        raise ShellNotStarted("; ".join(problems))
    remaining = job.remaining_seconds()
    if remaining is not None and remaining <= 0:
        raise ShellStopped("timeout")
    cwd = parameters.get("cwd") or "/"
    command = Command(
        [os.fsencode(word) for word in argv_of(parameters)],
        {os.fsencode(name): os.fsencode(value) for name, value in _environment(parameters, job).items()},
        os.fsencode(cwd),
        remaining,
        limits.stop_grace_seconds,
        limits.rlimits(),
    )
    with _Running(command, parameters.get("stdin"), job, limits) as running:
        return running.result()


def _environment(parameters: Mapping[str, Any], job: Job) -> dict[str, str]:
    inherited = {name: os.environ.get(name, default) for name, default in _INHERITED.items()}
    return {
        **{name: value for name, value in inherited.items() if value is not None},
        **(parameters.get("env") or {}),
        "SIGNALBOX_RUN_ID": str(job.run_id),
        "SIGNALBOX_ATTEMPT": str(job.attempt),
        "SIGNALBOX_IDEMPOTENCY_KEY": job.idempotency_key,
    }


class _Running:
    """A command under its supervisor, seen from the pool process."""

    def __init__(self, command: Command, stdin: str | None, job: Job, limits: ShellLimits) -> None:
        self._job, self._limits = job, limits
        self._output = Output(job.log, bytes_max=limits.log_bytes)
        self._reason: str | None = None
        self._give_up = float("inf")
        self._pid = 0
        self._status = b""
        self._began = time.monotonic()
        self._deadline = self._began + (float("inf") if command.timeout_seconds is None else command.timeout_seconds)
        self._fds: dict[int, str] = {}
        self._process, self._control = self._start(command, stdin)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """The pipe closes, the supervisor kills what there is and ends."""
        os.close(self._control)
        self._process.send_signal(signal.SIGCONT)
        try:
            self._process.wait(ENDING_SECONDS + 10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.returncode != 0:
            _end_session(self._pid)
        for fd in self._fds:
            os.close(fd)

    def _start(self, command: Command, stdin: str | None) -> tuple[subprocess.Popen[bytes], int]:
        ends: list[int] = []
        try:
            for name in ("stdout", "stderr", "status"):
                read, write = os.pipe()
                os.set_blocking(read, False)
                self._fds[read] = name
                ends.append(write)
                _widen(write)
            control_read, control_write = os.pipe()
            ends.append(control_read)
            ends.append(_file_with(stdin))
            stdout, stderr, status, control, source = ends
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", _SUPERVISOR, str(control), str(status)],
                stdin=source,
                stdout=stdout,
                stderr=stderr,
                pass_fds=[control, status],
                start_new_session=True,
                cwd="/",
                env={name: os.environ[name] for name in ("LD_LIBRARY_PATH", "PATH") if name in os.environ},
            )
        finally:
            for fd in ends:
                os.close(fd)
        with contextlib.suppress(BrokenPipeError), open(control_write, "wb", closefd=False) as control_file:
            control_file.write(command.packed())
        return process, control_write

    def result(self) -> ShellResult:
        """Read until it has ended; what it means."""
        poller = select.poll()
        for fd in self._fds:
            poller.register(fd, select.POLLIN)
        statuses = [fd for fd, name in self._fds.items() if name == "status"]
        while statuses:
            for fd, _ in poller.poll(POLL_SECONDS * 1000):
                if not self._read(fd):
                    poller.unregister(fd)
                    if fd in statuses:
                        statuses.remove(fd)
            now = time.monotonic()
            self._output.flush(now)
            self._look_for_stop(now)
        # The status pipe is closed: the supervisor is gone, and so is everybody who could still write.
        for fd, name in self._fds.items():
            while name != "status" and self._read(fd):
                pass
        return self._conclude(time.monotonic() - self._began)

    def _read(self, fd: int) -> bool:
        """Read once; False at the end, and when there is nothing."""
        try:
            data = os.read(fd, _READ_BYTES)
        except BlockingIOError:
            return False
        name = self._fds[fd]
        if name == "status":
            self._status += data
            if not self._pid and data.startswith(b"started "):
                self._pid = int(data.split()[1])
        elif data:
            self._output.feed(name, data, time.monotonic())
        return bool(data)

    def _look_for_stop(self, now: float) -> None:
        if self._reason is None:
            # The supervisor ends it at the deadline by itself, unless the command has stopped it.
            self._reason = self._job.stop_requested() or ("timeout" if now > self._deadline else None)
            if self._reason is not None:
                with contextlib.suppress(BrokenPipeError):
                    os.write(self._control, b"k" if self._reason == "lease" else b"s")
                self._give_up = now + self._limits.stop_grace_seconds + ENDING_SECONDS
            return
        if now > self._give_up:
            self._process.kill()
        else:
            self._process.send_signal(signal.SIGCONT)

    def _conclude(self, duration: float) -> ShellResult:
        words = {line.split(b" ", 1)[0]: line.split(b" ")[1:] for line in self._status.splitlines()}
        self._output.close()
        if b"failed" in words:
            raise ShellNotStarted(b" ".join(words[b"failed"]).decode("utf-8", "replace"))
        if b"ended" not in words:
            if self._reason is not None:
                raise ShellStopped(self._reason)
            raise SupervisorLost("the command's supervisor was killed")
        status, reason, left = words[b"ended"]
        if int(left):
            self._job.log("system", f"[ended {int(left)} processes that the command left behind]\n")
        if reason == b"timeout":
            raise ShellStopped("timeout")
        if reason != b"-":
            raise ShellStopped(self._reason or "lease")
        exit_code = os.waitstatus_to_exitcode(int(status))
        stdout, stderr = self._output.tail("stdout"), self._output.tail("stderr")
        if exit_code != 0:
            raise ShellFailed(exit_code, stderr if stderr.strip() else stdout)
        return ShellResult(
            exit_code,
            stdout,
            stderr,
            self._output.stream_bytes("stdout"),
            self._output.stream_bytes("stderr"),
            round(duration, 3),
        )


def _file_with(text: str | None) -> int:
    """A descriptor to read the text from: a file, so that nobody has to feed a pipe."""
    if text is None:
        return os.open(os.devnull, os.O_RDONLY)
    with tempfile.TemporaryFile() as file:
        file.write(text.encode())
        file.seek(0)
        return os.dup(file.fileno())


def _widen(fd: int) -> None:
    """A larger pipe: fewer turns for much output. Without it, it is slower."""
    import fcntl

    if hasattr(fcntl, "F_SETPIPE_SZ"):
        with contextlib.suppress(OSError):
            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _READ_BYTES)


def _end_session(session: int) -> None:
    """The second line, for a supervisor that was killed: end what is left of the command's session."""
    if session == 0:
        return
    for _ in range(100):
        members = [pid for pid in _processes() if _session(pid) == session]
        if not members:
            return
        for pid in members:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.005)


def _processes() -> list[int]:
    proc = Path("/proc")
    return [int(entry.name) for entry in proc.iterdir() if entry.name.isdigit()] if proc.is_dir() else []


def _session(pid: int) -> int:
    """A living process's session; 0 for a zombie or none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] in (b"Z", b"X") else int(fields[3])


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
