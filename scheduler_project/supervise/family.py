"""Finding and ending all that descends from this process."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable, Collection
from contextlib import suppress

import psutil

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_prctl: Callable[..., int] | None = None
if sys.platform == "linux":
    with suppress(OSError, AttributeError):
        _prctl = ctypes.CDLL(None, use_errno=True).prctl


def adopt_orphans() -> None:
    """Whoever loses its parent among our descendants becomes our child (Linux; elsewhere nothing)."""
    if _prctl is not None:
        _prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_with_parent() -> None:
    """For a child between fork and exec: SIGTERM when the supervisor dies (Linux; elsewhere nothing)."""
    if _prctl is not None:
        _prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)


def descendants() -> list[psutil.Process]:
    """All that descends from us and is not a zombie."""
    return [process for process in psutil.Process().children(recursive=True) if lives(process)]


def session(leader: int) -> list[psutil.Process]:
    """The members of a session that are not zombies, and what descends from them."""
    members = []
    for process in psutil.process_iter():
        with suppress(OSError, psutil.Error):
            if os.getsid(process.pid) == leader and lives(process):
                members.append(process)
    for process in list(members):
        with suppress(psutil.Error):
            members += [child for child in process.children(recursive=True) if child not in members]
    return members


def lives(process: psutil.Process) -> bool:
    """Whether it runs, or could."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def kill(processes: Collection[psutil.Process]) -> None:
    """SIGKILL for each that still is the process that was seen (psutil compares start times)."""
    for process in processes:
        with suppress(psutil.Error):
            process.kill()


def kill_descendants(*, spare: Collection[int] = (), seconds: float) -> list[str]:
    """SIGKILL for all that descends from us except `spare`, until none is left; what was found, as text."""
    found: dict[int, str] = {}
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        doomed = [process for process in descendants() if process.pid not in spare]
        if not doomed:
            break
        for process in doomed:
            found.setdefault(process.pid, describe(process))
        kill(doomed)
        reap_orphans(spare)
        time.sleep(0.02)
    return list(found.values())


def reap_orphans(spare: Collection[int]) -> None:
    """Collect zombies that became ours by adoption; `spare` are awaited by those who started them."""
    for process in psutil.Process().children():
        with suppress(psutil.Error, ChildProcessError):
            if process.pid not in spare and process.status() == psutil.STATUS_ZOMBIE:
                os.waitpid(process.pid, os.WNOHANG)


def describe(process: psutil.Process) -> str:
    """A process for a person: `1234 python manage.py run_web`."""
    with suppress(psutil.Error):
        words = process.cmdline() or [process.name()]
        words[0] = words[0].rpartition("/")[2]
        return f"{process.pid} {' '.join(words)[:100]}"
    return str(process.pid)
