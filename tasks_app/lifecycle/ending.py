"""The common end of every attempt, whoever ends it: report, reaper or a cancel that took effect.

Decides what follows, writes the run, the attempt's own row and the event, and releases what depends on the run, all
in the caller's transaction.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from tasks_app.crashpoints import reach
from tasks_app.lifecycle.facts import Finished
from tasks_app.lifecycle.rows import LockedRun, insert_rows, update_rows
from tasks_app.models import RunEvent, TaskRun, TaskRunAttempt
from tasks_app.parameters import canonical_json
from tasks_app.retry import AttemptEnd, Next, decide
from tasks_app.states import RunStatus, is_final


class Ended(NamedTuple):
    """An attempt that was ended: the run's row as it was, the facts, and what the run does now."""

    before: LockedRun
    facts: Finished
    next: Next


_RUN_COLUMNS = (
    "status", "attempt", "crash_count", "token", "nonce", "worker_id", "incarnation_id", "permitted_at", "started_at",
    "deadline_at", "due_at", "completed_at", "execution_duration_ms", "stop_reason", "result", "error_message",
)  # fmt: skip
_ATTEMPT_COLUMNS = (
    "run", "number", "status", "token", "nonce", "worker_id", "incarnation_id", "permitted_at", "started_at",
    "ended_at", "execution_duration_ms", "error_type", "error_message",
)  # fmt: skip
_EVENT_COLUMNS = ("run", "at", "kind", "attempt", "detail")
#: The jitter of each retry, from 0 to 1. A test that must know when a retry is due puts a constant here.
draw_jitter: Callable[[], float] = random.random


def end_attempts(ends: Sequence[tuple[LockedRun, Finished]], *, now: datetime) -> list[Ended]:
    """End each attempt. The caller holds the rows' locks and has compared status, attempt and token."""
    if not ends:
        return []
    ended = [Ended(run, facts, _next(run, facts)) for run, facts in ends]
    update_rows(TaskRun, _RUN_COLUMNS, [_run_row(end, now) for end in ended])
    insert_rows(TaskRunAttempt, _ATTEMPT_COLUMNS, [_attempt_row(end, now) for end in ended])
    reach("finish.before_dependants")
    write_events([_event_row(end, now) for end in ended])
    return ended


def write_events(rows: Sequence[tuple[int, datetime, str, int, dict[str, Any]]]) -> None:
    """Append run events: (run id, at, kind, attempt, detail)."""
    insert_rows(RunEvent, _EVENT_COLUMNS, [(*row[:4], canonical_json(row[4])) for row in rows])


def _next(run: LockedRun, facts: Finished) -> Next:
    end = AttemptEnd(
        outcome=facts.outcome,
        attempt=run.attempt,
        crash_count=run.crash_count,
        cancel_requested=run.cancel_requested_at is not None,
        retryable=facts.retryable,
        retry_after_seconds=facts.retry_after_seconds,
        counts_as_crash=facts.counts_as_crash,
    )
    return decide(end, run.policy, draw_jitter())


def _ended_at(end: Ended, now: datetime) -> datetime:
    reported = end.facts.ended_at
    return min(reported, now) if reported else now


def _run_row(end: Ended, now: datetime) -> tuple[Any, ...]:
    run, facts, following = end
    status = following.status.value
    if is_final(status):
        return (
            run.id, status, run.attempt, following.crash_count, run.token, run.nonce or facts.nonce,
            run.worker_id or facts.worker_id, run.incarnation_id or facts.incarnation_id, run.permitted_at,
            facts.started_at or run.started_at, run.deadline_at, run.due_at, _ended_at(end, now), facts.duration_ms,
            run.stop_reason, facts.result_json, facts.error_message,
        )  # fmt: skip
    attempt, due_at = run.attempt, run.due_at
    # The attempt is used up also on the way into quarantine: released, the run goes on with the next one.
    if following.status in (RunStatus.PENDING, RunStatus.QUARANTINED):
        attempt += 1
        due_at = now + timedelta(seconds=following.delay_seconds or 0.0)
    return (
        run.id, status, attempt, following.crash_count, None, None, "", None, None, None, None, due_at, None, None, "",
        None, facts.error_message,
    )  # fmt: skip


def _attempt_row(end: Ended, now: datetime) -> tuple[Any, ...]:
    run, facts, _ = end
    # A cancel that took effect is how the attempt ended, whatever signal its body died of.
    outcome = "CANCELLED" if end.next.status is RunStatus.CANCELLED else facts.outcome.value
    return (
        run.id, run.attempt, outcome, run.token or facts.token, run.nonce or facts.nonce,
        run.worker_id or facts.worker_id, run.incarnation_id or facts.incarnation_id, run.permitted_at,
        facts.started_at or run.started_at, _ended_at(end, now), facts.duration_ms, facts.error_type,
        facts.error_message,
    )  # fmt: skip


def _event_row(end: Ended, now: datetime) -> tuple[int, datetime, str, int, dict[str, Any]]:
    detail: dict[str, Any] = {"outcome": end.facts.outcome.value, "next": end.next.status.value}
    if end.next.delay_seconds is not None:
        detail["delay_seconds"] = round(end.next.delay_seconds, 3)
    if end.facts.error_type:
        detail["error_type"] = end.facts.error_type
    return (end.before.id, now, "attempt_ended", end.before.attempt, detail)
