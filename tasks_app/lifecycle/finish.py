"""Finish: an attempt's own report of how it ended. Twice, late or out of order changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from django.db import transaction

from tasks_app.lifecycle.ending import Ended, end_attempts
from tasks_app.lifecycle.facts import Finished
from tasks_app.lifecycle.rows import LockedRun, lock_runs
from tasks_app.lifecycle.wake import wake_dispatchers
from tasks_app.states import RunStatus


@dataclass(frozen=True)
class FinishResult:
    """Which reports ended an attempt and which were stale (duplicate, wrong token, unknown run)."""

    ended: list[Ended] = field(default_factory=list)
    stale: list[Finished] = field(default_factory=list)


def finish(reports: Sequence[Finished], *, now: datetime) -> FinishResult:
    """Apply the reports. The token decides: only the holder of the dispatch under way may end its attempt.

    A report with the right token is accepted from DISPATCHED too: its permit was given and then lost by a database
    that crashed.
    """
    result = FinishResult()
    with transaction.atomic():
        locked = lock_runs(report.run_id for report in reports)
        ends: list[tuple[LockedRun, Finished]] = []
        for report in reports:
            run = locked.get(report.run_id)
            if run is not None and _is_current(run, report):
                ends.append((run, report))
                del locked[report.run_id]  # a second report in the same batch is a duplicate
            else:
                result.stale.append(report)
        result.ended.extend(end_attempts(ends, now=now))
        if ends:
            wake_dispatchers()
    return result


def _is_current(run: LockedRun, report: Finished) -> bool:
    if run.token != report.token or run.attempt != report.attempt:
        return False
    if run.status == RunStatus.RUNNING.value:
        return report.nonce is None or run.nonce == report.nonce
    return run.status == RunStatus.DISPATCHED.value
