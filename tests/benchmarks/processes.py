"""CPU and memory of families of processes, from /proc. Linux only.

A family is a process, everything below it, and everything that carries its mark in the environment (BENCHMARK_ROLE):
so a process that left its parents is still found. CPU of a family is what its living members used and what children
that are gone and were waited for used; so the sum never falls when a child ends.
"""

from __future__ import annotations

import os
import threading
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

MARK = "BENCHMARK_ROLE"
_TICK = os.sysconf("SC_CLK_TCK")
_MIB = 1024 * 1024


def families(roots: Mapping[str, Sequence[int]], *, marked: bool = True) -> dict[str, set[int]]:
    """Members of each family now, by role; a process is in one family at most.

    roots: role → process ids. marked: look for the mark, too.
    """
    children: dict[int, list[int]] = defaultdict(list)
    marks: dict[int, str] = {}
    for pid in _pids():
        stat = _stat(pid)
        if stat is None:
            continue
        children[int(stat[1])].append(pid)
        if marked and (mark := _mark(pid)):
            marks[pid] = mark
    found: dict[str, set[int]] = {role: set() for role in roots}
    taken: set[int] = {os.getpid()}
    for role, pids in roots.items():
        left = [*pids, *(pid for pid, mark in marks.items() if mark == role)]
        while left:
            pid = left.pop()
            if pid not in taken:
                taken.add(pid)
                found[role].add(pid)
                left.extend(children.get(pid, ()))
    return found


def cpu_seconds(members: Mapping[str, set[int]]) -> dict[str, float]:
    """CPU seconds, user and system, that each family used since it began."""
    return {role: sum(_cpu(pid) for pid in pids) for role, pids in members.items()}


def memory_mib(members: Mapping[str, set[int]]) -> dict[str, float]:
    """Proportional set size of each family in MiB: a page that n processes share counts 1/n for each."""
    return {role: sum(_pss(pid) for pid in pids) / _MIB for role, pids in members.items()}


def machine_cpu_seconds() -> float:
    """CPU seconds that everything on this machine used since it started, the hypervisor's share included."""
    fields = [int(ticks) for ticks in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    idle, iowait = fields[3], fields[4]
    return (sum(fields) - idle - iowait) / _TICK


class PeakMemory:
    """Watches the memory of families from a thread; `highest` is the highest sum seen."""

    def __init__(self, roots: Mapping[str, Sequence[int]], every_seconds: float = 1.0) -> None:
        self._roots = roots
        self._every_seconds = every_seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.highest = 0.0
        self.by_role: dict[str, float] = {}

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._look()

    def _watch(self) -> None:
        while not self._stop.wait(self._every_seconds):
            self._look()

    def _look(self) -> None:
        seen = memory_mib(families(self._roots))
        if sum(seen.values()) > self.highest:
            self.highest, self.by_role = sum(seen.values()), seen


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _stat(pid: int) -> list[str] | None:
    """Fields of /proc/<pid>/stat from the state on, or None when the process is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def _cpu(pid: int) -> float:
    stat = _stat(pid)
    # utime, stime, and the same of children that were waited for.
    return sum(int(ticks) for ticks in stat[11:15]) / _TICK if stat else 0.0


def _mark(pid: int) -> str:
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return ""
    for line in environment.split(b"\0"):
        if line.startswith(MARK.encode() + b"="):
            return line.partition(b"=")[2].decode(errors="replace")
    return ""


def _pss(pid: int) -> int:
    """Bytes; the resident size where the kernel does not tell shares apart."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except (FileNotFoundError, ProcessLookupError, PermissionError, OSError):
        pass
    return 0
