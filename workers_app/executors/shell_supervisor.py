"""One process for each shell command: starts it, and is done when nothing that descends from it is left.

Run by path with `-I -S`; standard library only. Its own standard streams are the command's. Two descriptors,
given as arguments: *control*, whose other end only the pool process holds, and *status*, on which it tells
what happened.

    control   the command (`pack`), then `s`: SIGTERM, after the grace SIGKILL; `k`: kill now;
              end of file: the pool process is dead, kill now
    status    `started PID`, then `ended WAITSTATUS REASON LEFT`; or `failed TEXT`; a line each.
              REASON is -, stop, timeout or orphaned; LEFT: how many processes the command left behind

The tree is what descends from the command, whatever its sessions and groups: the supervisor is a subreaper,
so what loses its parent becomes its child. The run is over when the command itself has ended; what is then
left of its tree is killed. That is why a command cannot leave a daemon behind: start those with the
system's own means.

Killing a tree: first its process groups, which the kernel does in one step that no fork can slip through;
then rounds of SIGSTOP over all descendants until a round finds nobody new, so that nobody forks into the
room that the dead leave; then SIGKILL and reaping. All of that again until waitpid says that there is no
child: the kernel's word, not a count.

If the supervisor itself is killed, PDEATHSIG ends the command and the pool process ends the rest of its
session. If the command stops it (SIGSTOP), the pool process lets it go on when there is something to end,
and so does the kernel when the pool process dies.

On systems without /proc and prctl (macOS) it kills the command's process group, and that is all.
"""

from __future__ import annotations

import errno
import os
import resource
import select
import signal
import struct
import sys
import time

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 36, 38

#: A process that SIGKILL does not end within this time hangs in the kernel; nobody can help that.
KILL_SECONDS_MAX = 10.0
_STOP_ROUNDS_MAX = 50
#: Whether this kernel lists a thread's children.
_CHILDREN_FILES = os.path.exists(f"/proc/self/task/{os.getpid()}/children")  # noqa: PTH110

_SIZE = struct.Struct("!I")


def pack(words: list[bytes]) -> bytes:
    """Byte strings as one frame."""
    body = b"".join(_SIZE.pack(len(word)) + word for word in words)
    return _SIZE.pack(len(body)) + body


def read_words(fd: int) -> list[bytes]:
    """The byte strings of one frame. Raises EOFError when the other end is gone first."""
    body = _read_exactly(fd, _SIZE.unpack(_read_exactly(fd, _SIZE.size))[0])
    words = []
    at = 0
    while at < len(body):
        size = _SIZE.unpack_from(body, at)[0]
        words.append(body[at + _SIZE.size : at + _SIZE.size + size])
        at += _SIZE.size + size
    return words


def _read_exactly(fd: int, size: int) -> bytes:
    parts = []
    while size:
        part = os.read(fd, size)
        if not part:
            raise EOFError
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


class Command:
    """What to run. timeout_seconds: None for none. rlimits: `resource.RLIMIT_*` → value."""

    def __init__(
        self,
        argv: list[bytes],
        env: dict[bytes, bytes],
        cwd: bytes,
        timeout_seconds: float | None,
        grace_seconds: float,
        rlimits: dict[int, int],
    ) -> None:
        self.argv, self.env, self.cwd = argv, env, cwd
        self.timeout_seconds, self.grace_seconds, self.rlimits = timeout_seconds, grace_seconds, rlimits

    def packed(self) -> bytes:
        """As a frame for the control pipe."""
        limits = ",".join(f"{number}:{value}" for number, value in self.rlimits.items())
        timeout = "" if self.timeout_seconds is None else repr(self.timeout_seconds)
        head = [self.cwd, timeout.encode(), repr(self.grace_seconds).encode(), limits.encode()]
        env = [part for item in self.env.items() for part in item]
        return pack([*head, str(len(self.argv)).encode(), *self.argv, *env])

    @classmethod
    def read(cls, fd: int) -> Command:
        """From the control pipe. Raises EOFError."""
        cwd, timeout, grace, limits, count, *rest = read_words(fd)
        argv, env = rest[: int(count)], rest[int(count) :]
        pairs = [pair.split(":") for pair in limits.decode().split(",") if pair]
        return cls(
            argv,
            dict(zip(env[::2], env[1::2], strict=True)),
            cwd,
            float(timeout) if timeout else None,
            float(grace),
            {int(number): int(value) for number, value in pairs},
        )


def load_prctl() -> object:
    """The C function, or None where there is none."""
    if sys.platform != "linux":
        return None
    import ctypes

    return ctypes.CDLL(None, use_errno=True).prctl


class Supervisor:
    """One command from its start to the end of its tree."""

    def __init__(self, command: Command, control_fd: int, status_fd: int) -> None:
        self._command, self._control, self._status = command, control_fd, status_fd
        self._prctl = load_prctl()
        self._pid = 0
        self._ended: int | None = None
        self._reason = "-"
        self._kill_at = float("inf")
        self._kill_now = False
        self._wake_read, self._wake_write = os.pipe()

    def run(self) -> None:
        """All of it."""
        self._prepare()
        problem = self._start()
        if problem:
            self._tell(f"failed {problem}")
            return
        self._tell(f"started {self._pid}")
        self._wait()
        left = self._end_tree()
        self._tell(f"ended {self._ended or 0} {self._reason} {left}")

    # -- start -------------------------------------------------------------------------------------

    def _prepare(self) -> None:
        for fd in (self._control, self._status):
            os.set_inheritable(fd, False)
        for fd in (self._wake_read, self._wake_write):
            os.set_blocking(fd, False)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
            signal.signal(number, signal.SIG_IGN)
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._set(PR_SET_CHILD_SUBREAPER, 1)
        self._set(PR_SET_PDEATHSIG, signal.SIGCONT)

    def _set(self, option: int, value: int) -> None:
        if self._prctl is not None and self._prctl(option, value, 0, 0, 0) != 0:  # type: ignore[operator]
            raise OSError(errno.EPERM, f"prctl({option}) refused")

    def _start(self) -> str:
        """Fork and exec; returns what went wrong, or "": exec closes the pipe when it works."""
        problem_read, problem_write = os.pipe()
        supervisor = os.getpid()
        self._pid = os.fork()
        if self._pid == 0:
            try:
                self._become_command(supervisor)
            except BaseException as error:  # noqa: BLE001
                os.write(problem_write, str(error).encode("utf-8", "replace")[:2000] or b"unknown")
            finally:
                os._exit(127)
        os.close(problem_write)
        problem = b""
        while part := os.read(problem_read, 4096):
            problem += part
        os.close(problem_read)
        if problem:
            os.waitpid(self._pid, 0)
        return problem.decode("utf-8", "replace").replace("\n", " ")

    def _become_command(self, supervisor: int) -> None:
        signal.set_wakeup_fd(-1)
        os.setsid()
        self._set(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != supervisor:
            os._exit(127)
        self._set(PR_SET_NO_NEW_PRIVS, 1)
        # Whatever the worker was started with (nohup, a shell's background job), the command starts as usual.
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        for limit, value in self._command.rlimits.items():
            hard = resource.getrlimit(limit)[1]
            most = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.setrlimit(limit, (most, most))
        named = self._command.cwd
        try:
            os.chdir(named)
            named = self._command.argv[0]
            os.execvpe(named, self._command.argv, self._command.env)  # noqa: S606
        except OSError as error:
            raise OSError(error.errno, error.strerror, os.fsdecode(named)) from None

    # -- wait --------------------------------------------------------------------------------------

    def _wait(self) -> None:
        """Until the command has ended or its tree must be killed at once."""
        now = time.monotonic()
        deadline = now + self._command.timeout_seconds if self._command.timeout_seconds is not None else None
        poller = select.poll()
        poller.register(self._control, select.POLLIN)
        poller.register(self._wake_read, select.POLLIN)
        while True:
            self._reap()
            now = time.monotonic()
            if deadline is not None and now >= deadline:
                deadline = None
                self._begin_stop("timeout", now)
            if self._ended is not None or self._kill_now or now >= self._kill_at:
                return
            until = min(self._kill_at, deadline if deadline is not None else float("inf"))
            # Rounded up, because a timer that is a little early would spin; an hour at most, because poll
            # takes an int.
            ready = poller.poll(int(min(until - now, 3600.0) * 1000) + 1)
            for fd, _ in ready:
                if fd == self._wake_read:
                    _drain(fd)
                else:
                    self._obey(os.read(self._control, 64))

    def _obey(self, orders: bytes) -> None:
        if not orders or b"k" in orders:
            self._kill_now = True
            if self._reason == "-":
                self._reason = "stop" if orders else "orphaned"
        else:
            self._begin_stop("stop", time.monotonic())

    def _begin_stop(self, reason: str, now: float) -> None:
        if self._reason == "-":
            self._reason = reason
            self._kill_at = now + self._command.grace_seconds
            _signal_all({self._pid, *descendants()}, signal.SIGTERM)

    def _reap(self) -> bool:
        """Take the dead; False when no child is left at all."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if pid == self._pid:
                self._ended = status

    # -- end ---------------------------------------------------------------------------------------

    def _end_tree(self) -> int:
        """Kill and reap until there is no child; returns how many processes outlived the command."""
        give_up = time.monotonic() + KILL_SECONDS_MAX
        command_ended = self._ended is not None
        left: set[int] = set()
        while self._reap() and time.monotonic() < give_up:
            doomed = self._halt()
            left |= doomed - {self._pid}
            _signal_all(doomed, signal.SIGKILL)
            if self._ended is None:
                _signal_all({self._pid}, signal.SIGKILL)
            time.sleep(0.001)
        return len(left) if command_ended else 0

    def _halt(self) -> set[int]:
        """Stop all descendants, round after round until nobody new turns up; returns them."""
        halted: set[int] = set()
        if sys.platform != "linux":
            _signal_groups({self._pid}, signal.SIGKILL)
        for _ in range(_STOP_ROUNDS_MAX):
            new = descendants() - halted
            if not new:
                break
            if not halted:
                # One step in the kernel for each group: nobody in it can fork away.
                _signal_groups(new, signal.SIGKILL)
            else:
                _signal_all(new, signal.SIGSTOP)
            halted |= new
        return halted

    def _tell(self, line: str) -> None:
        try:  # noqa: SIM105  (contextlib would be most of what this process loads)
            os.write(self._status, line.encode() + b"\n")
        except BrokenPipeError:
            pass


def descendants() -> set[int]:
    """Pids of everything that descends from this process, zombies too. Without /proc: nothing."""
    own = os.getpid()
    found: set[int] = set()
    todo = [own]
    while todo:
        for child in _children(todo.pop()):
            if child not in found and child != own:
                found.add(child)
                todo.append(child)
    return found


def _children(pid: int) -> list[int]:
    children: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208
            with open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
                children.extend(int(word) for word in file.read().split())
    except OSError:
        # Gone meanwhile, or a kernel without this file; the second is found out by `_by_scan`.
        return children or _by_scan(pid)
    return children


def _by_scan(parent: int) -> list[int]:
    """Children by looking at every process: for kernels without CONFIG_PROC_CHILDREN."""
    children: list[int] = []
    if _CHILDREN_FILES or not os.path.isdir("/proc/self"):  # noqa: PTH112
        return children
    for name in os.listdir("/proc"):  # noqa: PTH208
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    if int(file.read().rpartition(b")")[2].split()[1]) == parent:
                        children.append(int(name))
            except OSError:
                continue
    return children


def _signal_groups(pids: set[int], number: int) -> None:
    own = os.getpgid(0)
    groups = set()
    for pid in pids:
        try:
            groups.add(os.getpgid(pid))
        except ProcessLookupError:
            continue
    for group in groups - {own, 0, 1}:
        try:
            os.killpg(group, number)
        except (ProcessLookupError, PermissionError):
            continue


def _signal_all(pids: set[int], number: int) -> None:
    _signal_groups(pids, number)
    for pid in pids:
        try:
            os.kill(pid, number)
        except (ProcessLookupError, PermissionError):
            continue


def _drain(fd: int) -> None:
    try:
        while os.read(fd, 4096):
            pass
    except BlockingIOError:
        pass


def main() -> None:
    """Arguments: the descriptors of control and status."""
    control_fd, status_fd = int(sys.argv[1]), int(sys.argv[2])
    try:
        command = Command.read(control_fd)
    except EOFError:
        return
    Supervisor(command, control_fd, status_fd).run()


if __name__ == "__main__":
    main()
