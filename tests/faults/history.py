"""What really ran: one file an execution, written by the body itself, read after the fact.

A file holds JSON lines: `{"kind": "start", "run", "attempt", "token", "pid", "t", …}`, `{"kind": "tick", "t"}` every
100 ms, `{"kind": "end", "t", "how"}`; `t` is CLOCK_MONOTONIC_RAW in seconds, one clock for all processes of the host.
Each line is appended with O_APPEND and fsynced, so what was written survives its writer; a body that was killed has no
end, and its last tick says until when it was alive, to 100 ms.
"""

from __future__ import annotations

import json
import os
import threading
import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

TICK_SECONDS: Final = 0.1


def raw_clock() -> float:
    """Seconds of the raw monotonic clock: the same for all processes, never adjusted."""
    return time.clock_gettime(getattr(time, "CLOCK_MONOTONIC_RAW", time.CLOCK_MONOTONIC))


@dataclass(frozen=True, slots=True)
class Execution:
    """One execution of a body. ended: None when the body was killed. how: ok or failed, as the body itself meant it."""

    run: str
    attempt: int
    token: str
    pid: int
    started: float
    ticks: tuple[float, ...] = ()
    ended: float | None = None
    how: str = ""
    file: str = ""

    @property
    def last_sign(self) -> float:
        """When it was last known to be alive."""
        return max((self.started, *self.ticks, *(() if self.ended is None else (self.ended,))))

    def active_after(self, instant: float) -> float:
        """For how many seconds after `instant` it was really executing.

        A body that stands still writes no ticks: each sign of life counts for the time since the one before it, and
        for no more than a tick and a half. So a process that was stopped for a minute and ran for 50 ms before it was
        killed counts 50 ms, not a minute.
        """
        signs = sorted({self.started, *self.ticks, *(() if self.ended is None else (self.ended,))})
        total = 0.0
        before = signs[0]
        for sign in signs:
            if sign > instant:
                total += min(sign - max(before, instant), TICK_SECONDS * 1.5)
            before = sign
        return total


class Recorder:
    """Writes an execution's file; used as a context manager around the body's work."""

    def __init__(self, folder: Path, facts: Mapping[str, Any]) -> None:
        """facts: run, attempt, token and whatever else the start line should say."""
        name = f"{facts['run']}.{facts['attempt']}.{os.getpid()}.{uuid.uuid4().hex[:8]}.jsonl"
        self._fd = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        self._facts = dict(facts)
        self._done = threading.Event()
        self._ticker = threading.Thread(target=self._tick, name="history", daemon=True)
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self._write({"kind": "start", **self._facts, "pid": os.getpid(), "t": raw_clock()})
        self._ticker.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._done.set()
        self._ticker.join()
        self._write({"kind": "end", "t": raw_clock(), "how": "ok" if kind is None else "failed"})
        os.close(self._fd)

    def _tick(self) -> None:
        while not self._done.wait(TICK_SECONDS):
            self._write({"kind": "tick", "t": raw_clock()})

    def _write(self, line: dict[str, Any]) -> None:
        data = json.dumps(line, separators=(",", ":")).encode() + b"\n"
        with self._lock:
            os.write(self._fd, data)
            os.fsync(self._fd)


def parse(text: str, *, name: str = "") -> Execution | None:
    """An execution from its file's text; None when it was killed before its start line was whole.

    A last line that was cut short is left out. Raises ValueError for anything else that is not as `Recorder` writes.
    """
    lines = text.split("\n")
    whole = [json.loads(line) for line in lines[:-1] if line]
    if not whole:
        return None
    start, rest = whole[0], whole[1:]
    if start.get("kind") != "start":
        raise ValueError(f"{name}: the first line is not a start")
    ends = [line for line in rest if line["kind"] == "end"]
    if len(ends) > 1 or any(line["kind"] not in {"tick", "end"} for line in rest):
        raise ValueError(f"{name}: lines of more than one execution")
    return Execution(
        run=str(start["run"]), attempt=int(start["attempt"]), token=str(start["token"]), pid=int(start["pid"]),
        started=float(start["t"]), ticks=tuple(float(line["t"]) for line in rest if line["kind"] == "tick"),
        ended=float(ends[0]["t"]) if ends else None, how=str(ends[0].get("how", "")) if ends else "", file=name,
    )  # fmt: skip


def pid_of(file_name: str) -> int:
    """The process that wrote a file, by the name that `Recorder` gave it."""
    return int(file_name.split(".")[2])


def read_folder(folder: Path, runs: Iterable[str] | None = None) -> list[Execution]:
    """All executions in a folder, in the order in which they started; only those of `runs` where it is given."""
    wanted = None if runs is None else set(runs)
    found = []
    for path in folder.glob("*.jsonl"):
        if wanted is not None and path.name.partition(".")[0] not in wanted:
            continue
        execution = parse(path.read_text(), name=path.name)
        if execution is not None:
            found.append(execution)
    return sorted(found, key=lambda execution: execution.started)
