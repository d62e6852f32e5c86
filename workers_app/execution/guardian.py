"""A tiny process that ends children whose lease or deadline is over, whatever the worker's main process does.

The main process renews the lease, and its threads stand still when it is stopped; bodies do what they like.
So neither can be trusted to hold a time. The guardian is a child of the main process with nothing to do but
to look, every TICK_MS, at the clock and at the shared table:

* the lease is over: every child that has registered, was granted or has started is killed (not
  `keep_running`);
* an attempt's deadline is over: its child is killed (a shell body's supervisor holds the deadline itself,
  so that the output is kept; the guardian gives it SHELL_GRACE_NS longer);
* where bodies are threads of the main process, a deadline is the main process's affair, and the lease's end kills the
  whole worker, if a body has started that may not go on;
* the main process is gone: every seated child is killed, then the guardian ends, too.

It tells why in the record before it kills. It ignores SIGINT and SIGTERM and leads a session of its own,
because what ends a worker's process group must not take its guardian first. It ends when its main process
does or tells it to.

Cost: 20 looks a second. A look is one translate over the states (one byte a record) and one word of
each active record: measured 0.16 to 0.19 % of a core with 8 active records. 50 ms is small
beside the lease margin (seconds) and the resolution of a timeout (a second).

It is run by path with `-I -S`, without the packages around it: quick to start, a few MB, and nothing that a
project's site-packages do can break it.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time

if __name__ == "__main__":
    sys.path.append(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120  (no pathlib: small)
    from table import (  # type: ignore[import-not-found,unused-ignore]
        BY_GUARDIAN,
        IN_WORKER,
        KEEP_RUNNING,
        LEASE,
        SHELL,
        STARTED,
        TIMEOUT,
        UNDER_WAY,
        Table,
        boottime_ns,
    )
else:
    from workers_app.execution.table import (
        BY_GUARDIAN,
        IN_WORKER,
        KEEP_RUNNING,
        LEASE,
        SHELL,
        STARTED,
        TIMEOUT,
        UNDER_WAY,
        Table,
        boottime_ns,
    )

TYPE_CHECKING = False
if TYPE_CHECKING:
    import subprocess

    from workers_app.execution.registry import Registry

TICK_MS = 50
SHELL_GRACE_NS = 3_000_000_000
#: After the main process's end: how long a child that was just forked has to take its seat and be found.
LINGER_SECONDS = 2.0


def sweep(table: Table, now_ns: int) -> int:
    """Kill whoever must not go on at this time; returns how many were killed."""
    killed = 0
    lease_over = now_ns >= table.lease_until_ns
    for index in table.active():
        # One word first: all is well nearly always. What is decided on is decided by the whole record.
        if not lease_over and not 0 < table.deadline_ns(index) <= now_ns:
            continue
        raw = table.read(index)
        if raw.flags & IN_WORKER:
            if lease_over and not raw.flags & KEEP_RUNNING:
                killed += table.kill(index, raw.generation, LEASE, by=BY_GUARDIAN, states=(STARTED,))
            continue
        deadline_ns = raw.deadline_ns + (SHELL_GRACE_NS if raw.flags & SHELL else 0)
        if raw.state == STARTED and raw.deadline_ns and now_ns >= deadline_ns:
            killed += table.kill(index, raw.generation, TIMEOUT, by=BY_GUARDIAN, states=(STARTED,))
        elif lease_over and not raw.flags & KEEP_RUNNING:
            killed += table.kill(index, raw.generation, LEASE, by=BY_GUARDIAN, states=UNDER_WAY)
    return killed


def watch(table: Table, main_pid: int, control_fd: int) -> None:
    """Look until the main process ends (then all seated children do) or writes to the control pipe."""
    poller = select.poll()
    poller.register(control_fd, select.POLLIN)
    try:
        main_fd = os.pidfd_open(main_pid) if hasattr(os, "pidfd_open") else -1
    except ProcessLookupError:
        end_all(table)
        return
    if main_fd >= 0:
        poller.register(main_fd, select.POLLIN)
    while True:
        # The pidfd may have been opened for a later process of that number: the parent tells.
        if os.getppid() != main_pid:
            end_all(table)
            return
        ready = poller.poll(TICK_MS)
        if any(fd == control_fd for fd, _ in ready) and os.getppid() == main_pid:
            return
        if any(fd == main_fd for fd, _ in ready):
            end_all(table)
            return
        sweep(table, boottime_ns())


def end_all(table: Table) -> None:
    """Kill every seated child, also one that takes its seat only now."""
    give_up = time.monotonic() + LINGER_SECONDS
    while time.monotonic() < give_up:
        for seat in range(table.seats):
            table.end_seat(seat)
        time.sleep(0.005)


class Guardian:
    """The main process's handle of its guardian."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        """For `start_guardian`."""
        self._process = process
        self._owner = os.getpid()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def alive(self) -> bool:
        """False when it died and another must be started."""
        return self._process.poll() is None

    def stop(self) -> None:
        """End it; returns when it has ended. Does nothing in a forked child."""
        if os.getpid() != self._owner:
            return
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(b"q")
            self._process.stdin.close()
        except BrokenPipeError:
            pass
        try:
            self._process.wait(2)
        except Exception:  # noqa: BLE001  (subprocess is not imported here)
            self._process.kill()
            self._process.wait()


def start_guardian(registry: Registry) -> Guardian:
    """Start the process that watches this registry's children. Raises OSError when it cannot be."""
    import subprocess

    return Guardian(
        subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, str(registry.fd), str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            bufsize=0,
            pass_fds=[registry.fd],
            start_new_session=True,
            cwd="/",
        )
    )


def main() -> None:
    """Be the guardian: arguments are the table's descriptor and the main pid, stdin is the control pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    watch(Table.attach(int(sys.argv[1])), int(sys.argv[2]), sys.stdin.fileno())


if __name__ == "__main__":
    main()
