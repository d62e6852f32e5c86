"""Cancel, skip and release: the moves that people and policies ask for."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from django.db import transaction

from tasks_app.crashpoints import reach
from tasks_app.lifecycle.ending import write_events
from tasks_app.lifecycle.rows import LockedRun, lock_runs, update_rows
from tasks_app.lifecycle.wake import wake_dispatchers
from tasks_app.models import TaskRun
from tasks_app.states import RunStatus, is_final


@dataclass(frozen=True)
class CancelAnswer:
    """What a cancel did.

    cancelled: final now. requested: (run id, worker id) of what runs, final when its end is known. stale: neither.
    """

    cancelled: list[int] = field(default_factory=list)
    requested: list[tuple[int, str]] = field(default_factory=list)
    stale: list[int] = field(default_factory=list)


def cancel(ids: Collection[int], *, by: str, now: datetime) -> CancelAnswer:
    """Cancel runs. After this committed, no further permit is given for any of them."""
    answer = CancelAnswer()
    with transaction.atomic():
        locked = lock_runs(ids)
        answer.stale.extend(sorted(set(ids) - locked.keys()))
        waiting: list[LockedRun] = []
        running: list[LockedRun] = []
        for run in locked.values():
            if is_final(run.status):
                answer.stale.append(run.id)
            elif run.status == RunStatus.RUNNING.value:
                answer.requested.append((run.id, run.worker_id))
                if run.cancel_requested_at is None:
                    running.append(run)
            else:
                waiting.append(run)
                answer.cancelled.append(run.id)
        update_rows(
            TaskRun,
            ("status", "completed_at", "cancel_requested_at", "cancel_requested_by"),
            [(run.id, RunStatus.CANCELLED.value, now, now, by) for run in waiting],
        )
        update_rows(TaskRun, ("cancel_requested_at", "cancel_requested_by"), [(run.id, now, by) for run in running])
        write_events(
            [(run.id, now, "cancelled", run.attempt, {"by": by}) for run in waiting]
            + [(run.id, now, "cancel_requested", run.attempt, {"by": by}) for run in running]
        )
        transaction.on_commit(lambda: reach("cancel.after_commit"))
    return answer


def skip(ids: Collection[int], *, reason: str, now: datetime) -> list[int]:
    """PENDING → SKIPPED, always with a reason. Returns the ids that moved."""
    with transaction.atomic():
        waiting = [run for run in lock_runs(ids).values() if run.status == RunStatus.PENDING.value]
        update_rows(
            TaskRun,
            ("status", "completed_at", "error_message"),
            [(run.id, RunStatus.SKIPPED.value, now, reason) for run in waiting],
        )
        write_events([(run.id, now, "skipped", run.attempt, {"reason": reason}) for run in waiting])
    return [run.id for run in waiting]


def release(ids: Sequence[int], *, by: str, now: datetime) -> list[int]:
    """QUARANTINED → PENDING by a person; worker deaths are counted afresh. Returns the ids that moved."""
    with transaction.atomic():
        held = [run for run in lock_runs(ids).values() if run.status == RunStatus.QUARANTINED.value]
        update_rows(
            TaskRun,
            ("status", "due_at", "crash_count"),
            [(run.id, RunStatus.PENDING.value, now, 0) for run in held],
        )
        write_events([(run.id, now, "released", run.attempt, {"by": by}) for run in held])
        if held:
            wake_dispatchers()
    return [run.id for run in held]
