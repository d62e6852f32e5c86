"""What the reaper writes: each with the full guard, never by id alone."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from uuid import UUID

from django.db import transaction

from tasks_app.crashpoints import reach
from tasks_app.lifecycle.ending import Ended, end_attempts, write_events
from tasks_app.lifecycle.facts import Finished
from tasks_app.lifecycle.rows import lock_runs, update_rows
from tasks_app.lifecycle.wake import wake_dispatchers
from tasks_app.models import TaskRun
from tasks_app.states import Outcome, RunStatus


def lose(incarnations: Collection[UUID], *, now: datetime, limit: int = 500) -> list[Ended]:
    """End attempts whose incarnation's lease is over. At most `limit`; call again while any come back."""
    with transaction.atomic():
        ids = list(TaskRun.objects.held_by(incarnations).values_list("pk", flat=True)[:limit])
        ends = []
        for run in lock_runs(ids, skip_locked=True).values():
            if run.status != RunStatus.RUNNING.value or run.incarnation_id not in incarnations or run.token is None:
                continue
            timed_out = run.stop_reason == "timeout"
            ends.append(
                (
                    run,
                    Finished(
                        run_id=run.id,
                        attempt=run.attempt,
                        token=run.token,
                        outcome=Outcome.TIMEOUT if timed_out else Outcome.LOST,
                        error_type="Timeout" if timed_out else "WorkerLost",
                        error_message=f"worker {run.worker_id} was lost"
                        + (" after the deadline had passed" if timed_out else ""),
                    ),
                )
            )
        ended = end_attempts(ends, now=now)
        reach("reap.before_commit")
        if ended:
            wake_dispatchers()
    return ended


def retract_unpermitted(*, now: datetime, limit: int = 500) -> list[int]:
    """Back to PENDING what was dispatched and not permitted in time: the next dispatch has a new token."""
    with transaction.atomic():
        ids = list(TaskRun.objects.overdue_for_permit(now).values_list("pk", flat=True)[:limit])
        late = [
            run
            for run in lock_runs(ids, skip_locked=True).values()
            # The query's snapshot may be older than the lock: compare again.
            if run.status == RunStatus.DISPATCHED.value
        ]
        late_ids = {run.id for run in late}
        still_late = set(TaskRun.objects.filter(pk__in=late_ids, permit_by__lt=now).values_list("pk", flat=True))
        late = [run for run in late if run.id in still_late]
        update_rows(
            TaskRun,
            ("status", "token", "permit_by"),
            [(run.id, RunStatus.PENDING.value, None, None) for run in late],
        )
        write_events([(run.id, now, "not_permitted_in_time", run.attempt, {}) for run in late])
        if late:
            wake_dispatchers()
    return [run.id for run in late]


def request_timeout_stops(*, now: datetime, grace: timedelta, limit: int = 500) -> list[tuple[int, str]]:
    """Ask for a stop of what runs past its deadline plus grace. Returns (run id, worker id) for the quick way.

    The worker ends its attempts at their deadline by itself; this is for one that did not. No successor starts until
    the attempt is off its worker's list or the lease is over.
    """
    with transaction.atomic():
        ids = list(
            TaskRun.objects.past_deadline(now - grace).filter(stop_reason="").values_list("pk", flat=True)[:limit]
        )
        late = [
            run
            for run in lock_runs(ids, skip_locked=True).values()
            if run.status == RunStatus.RUNNING.value
            and run.stop_reason == ""
            and run.deadline_at is not None
            and run.deadline_at < now - grace
        ]
        update_rows(TaskRun, ("stop_reason",), [(run.id, "timeout") for run in late])
        write_events([(run.id, now, "timeout_stop_requested", run.attempt, {}) for run in late])
    return [(run.id, run.worker_id) for run in late]
