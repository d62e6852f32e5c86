"""What limits throughput: py-spy on Signalbox's processes during one load, a table of self time for each.

Sampling disturbs what it samples, so a profile is a load of its own and its rate is not kept. Only samples in which
a thread held the interpreter count; their share of all samples says how busy the process was. The one that comes
near 100 % is the limit; when none does, the machine is, or they wait for each other.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.benchmarks import processes
from tests.benchmarks.contenders import BenchmarkError, Contender, Signalbox
from tests.benchmarks.measure import Scale, Sitting

HERTZ = 200
TOP = 20
_LINE = re.compile(r":\d+\)$")


def run(contender: Signalbox, scale: Scale, out: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """One load under py-spy: {"title", "per_second", "cpu_seconds", "processes": {role: what `table` says}}."""
    contender.database = "bench_profile"  # the rounds of the same sitting have their own
    contender.prepare()
    try:
        sitting = Sitting(contender.start("profile"))
        sitting.warm_up(scale.warm_up_runs)
        targets = _targets(contender)
        recorders = {role: _Recorder(pid, out / f"profile-{role}.txt") for role, pid in targets.items()}
        time.sleep(1.0)  # py-spy reads symbols before it samples
        load = sitting.load(scale.runs)
        found = {role: recorder.stop(load.seconds) for role, recorder in recorders.items()}
    finally:
        contender.stop()
    for role, table in found.items():
        say(f"\n{role}: busy {table['busy']:.0%} of the load's {load.seconds:.1f} s")
        for function, share in table["self"]:
            say(f"  {share:5.1%}  {function}")
    return {
        "title": contender.title, "per_second": load.per_second, "runs": load.runs, "cpu_seconds": load.cpu_seconds,
        "processes": found,
    }  # fmt: skip


def _targets(contender: Contender) -> dict[str, int]:
    """The main process of each role, and one pool child of the worker: the one that has used most CPU."""
    worker = contender.pid_of("worker")
    below = processes.families({"worker": [worker]}, marked=False)["worker"] - {worker}
    pool = [pid for pid in below if "guardian" not in _command(pid)]
    child = max(pool, key=lambda pid: processes.cpu_seconds({"": {pid}})[""])
    return {
        "dispatcher": contender.pid_of("dispatcher"),
        "ingest": contender.pid_of("ingest"),
        "worker main": worker,
        "worker child": child,
        "client": contender.pid_of("client"),
    }


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except FileNotFoundError:
        return ""


class _Recorder:
    """One py-spy, until it is stopped."""

    def __init__(self, pid: int, path: Path) -> None:
        self._path = path.with_name(path.name.replace(" ", "-"))
        program = Path(sys.executable).with_name("py-spy")
        self._process = subprocess.Popen(
            [program, "record", "--pid", str(pid), "--rate", str(HERTZ), "--format", "raw", "--gil", "--nonblocking",
             "--output", self._path],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip

    def stop(self, seconds: float) -> dict[str, Any]:
        """End it as Ctrl-C would, and read what it wrote."""
        import signal

        self._process.send_signal(signal.SIGINT)
        _, errors = self._process.communicate(timeout=60)
        if not self._path.exists():
            raise BenchmarkError(f"py-spy wrote nothing: {errors.decode(errors='replace')[-500:]}")
        return table(self._path.read_text(), seconds)


def table(stacks: str, seconds: float) -> dict[str, Any]:
    """Shares of self time by function, and of time in or below our own functions, from collapsed stacks."""
    own: Counter[str] = Counter()
    below: Counter[str] = Counter()
    for line in stacks.splitlines():
        frames, _, count = line.rpartition(" ")
        names = [_LINE.sub(")", frame) for frame in frames.split(";")]
        own[names[-1]] += int(count)
        for name in set(names):
            if _ours(name):
                below[name] += int(count)
    total = sum(own.values())
    if not total:
        return {"busy": 0.0, "samples": 0, "self": [], "below": []}
    return {
        "busy": min(1.0, total / (seconds * HERTZ)),
        "samples": total,
        "self": [[name, count / total] for name, count in own.most_common(TOP)],
        "below": [[name, count / total] for name, count in below.most_common(TOP)],
    }


def _ours(frame: str) -> bool:
    return any(f"({package}/" in frame for package in ("dispatch", "workers_app", "tasks_app", "scheduler_project"))
