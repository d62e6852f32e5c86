"""The leash: a small process that ends our servers when we are killed before we could.

It reads lines `+pid`, `-pid`, `+directory`, `-directory` from a pipe whose other end only this process holds.
When the pipe closes, whatever is still on the list is killed (by session) and removed. Run as a script it is
that process.
"""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

_process: subprocess.Popen[bytes] | None = None
_owner = 0


def hold(pid: int) -> None:
    """Put a session's leader on the leash."""
    _tell(f"+{pid}")


def release(pid: int) -> None:
    """Take an ended one off."""
    _tell(f"-{pid}")


def hold_directory(path: Path) -> None:
    """Have a directory removed when we are killed."""
    _tell(f"+{path}")


def release_directory(path: Path) -> None:
    """The directory is gone already."""
    _tell(f"-{path}")


def _tell(line: str) -> None:
    global _process, _owner
    if _process is None or _owner != os.getpid():
        # A fork of us shares the pipe but not the duty: it gets a leash of its own for what it starts.
        _owner = os.getpid()
        _process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        atexit.register(_let_go, _process, _owner)
    assert _process.stdin is not None
    _process.stdin.write(line.encode() + b"\n")
    _process.stdin.flush()


def _let_go(process: subprocess.Popen[bytes], owner: int) -> None:
    if owner == os.getpid() and process.stdin is not None:
        process.stdin.close()
        process.wait(30)


def processes() -> dict[int, tuple[int, int, int]]:
    """Pid → parent, session, start time in clock ticks, without zombies (Linux; elsewhere empty)."""
    table = {}
    proc = Path("/proc")
    for entry in proc.iterdir() if (proc / "self" / "stat").exists() else ():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if fields[0] != "Z":
                table[int(entry.name)] = (int(fields[1]), int(fields[3]), int(fields[19]))
    return table


def family(leader: int) -> dict[int, int]:
    """Pid → start time of a session's members and of all that descends from them.

    Descendants count in whatever session they are: Erlang's helpers and PostgreSQL's children lead their own.
    """
    table = processes()
    members = {pid: start for pid, (_, session, start) in table.items() if leader in (pid, session)}
    while True:
        more = {pid: start for pid, (parent, _, start) in table.items() if parent in members and pid not in members}
        if not more:
            return members
        members |= more


def kill_families(leaders: Sequence[int], *, seconds: float) -> bool:
    """SIGKILL for the families of these leaders until none is left; whether that was so within `seconds`."""
    deadline = time.monotonic() + seconds
    doomed: dict[int, int] = {}
    while True:
        for leader in leaders:
            doomed |= family(leader)
        table = processes()
        # The start time tells a process from a later one of the same number.
        alive = [pid for pid, start in doomed.items() if pid in table and table[pid][2] == start]
        if not alive and table:
            return True
        for pid in alive or leaders:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline or not table:
            return not table
        time.sleep(0.01)


def _keep() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    held: dict[str, None] = {}
    for line in sys.stdin:
        sign, name = line[0], line[1:].strip()
        if sign == "+":
            held[name] = None
        else:
            held.pop(name, None)
    kill_families([int(name) for name in held if name.isdigit()], seconds=20)
    for name in held:
        if name.startswith("/"):
            if os.path.ismount(name):
                subprocess.run(["umount", "--lazy", name], check=False, stderr=subprocess.DEVNULL)
            shutil.rmtree(name, ignore_errors=True)


if __name__ == "__main__":
    _keep()
