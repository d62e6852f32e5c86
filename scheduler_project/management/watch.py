"""Following a run to its end."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Final, TextIO

from tasks_app import logs, services
from tasks_app.clock import clock
from tasks_app.models import RunLogChunk, TaskRun
from tasks_app.states import RunStatus, is_final

POLL_SECONDS: Final = 0.2
POLL_SECONDS_MAX: Final = 1.0


class WatchTimeout(Exception):
    """The run had not ended when the time was up."""


def follow(
    run_id: int,
    *,
    write: Callable[[RunLogChunk], None],
    changed: Callable[[TaskRun], None],
    timeout_seconds: float | None,
    after: int = 0,
    sleep: Callable[[float], None] = time.sleep,
) -> TaskRun:
    """Pass on output behind `after` and changes of state until the run ends or is quarantined; then the run.

    Raises RunNotFound, or WatchTimeout after `timeout_seconds`.
    """
    until = None if timeout_seconds is None else time.monotonic() + timeout_seconds
    seen, pause = "", POLL_SECONDS
    while True:
        run = services.find_run(run_id)
        page = logs.read_log(run, after=after, now=clock.now())
        for chunk in page.chunks:
            write(chunk)
        after = page.next
        if run.status != seen:
            seen, pause = run.status, POLL_SECONDS
            changed(run)
        if (is_final(run.status) and page.complete) or (run.status == RunStatus.QUARANTINED.value and not page.chunks):
            return run
        if until is not None and time.monotonic() >= until:
            raise WatchTimeout
        if not page.chunks:
            left = POLL_SECONDS_MAX if until is None else max(0.0, until - time.monotonic())
            sleep(min(pause, left))
            pause = min(POLL_SECONDS_MAX, pause * 1.2)


def write_chunk(chunk: RunLogChunk, *, stdout: TextIO | None = None) -> None:
    """To the stream that the job wrote it to; what the platform says goes to stderr."""
    stream = (stdout or sys.stdout) if chunk.stream == "stdout" else sys.stderr
    stream.write(chunk.text)
    stream.flush()
