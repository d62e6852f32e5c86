"""Ways back that use up no attempt, and the way forward again for a permit that the database forgot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from django.db import transaction

from tasks_app.lifecycle.ending import write_events
from tasks_app.lifecycle.facts import HandBack, Holder
from tasks_app.lifecycle.rows import LockedRun, lock_runs, update_rows
from tasks_app.lifecycle.wake import wake_dispatchers
from tasks_app.models import TaskRun, TaskRunAttempt
from tasks_app.states import RunStatus

_CLEARED = (
    "status", "token", "nonce", "worker_id", "incarnation_id", "permit_by", "permitted_at", "started_at",
    "deadline_at", "stop_reason", "completed_at",
)  # fmt: skip


def unpublish(claims: Sequence[tuple[int, UUID]], *, now: datetime, reason: str) -> list[int]:
    """Back to PENDING for (run id, token) whose message could not be published or was not confirmed.

    A message that got through all the same carries the old token and is refused.
    """
    return hand_back([HandBack(run_id, token, None, reason) for run_id, token in claims], now=now)


def hand_back(returned: Sequence[HandBack], *, now: datetime) -> list[int]:
    """Deliveries given up before their body began: PENDING again at the same attempt. Returns the ids that moved."""
    with transaction.atomic():
        locked = lock_runs(item.run_id for item in returned)
        moved: list[tuple[LockedRun, HandBack]] = []
        for item in returned:
            run = locked.get(item.run_id)
            if run is None or run.token != item.token:
                continue
            waiting = run.status == RunStatus.DISPATCHED.value
            holding = run.status == RunStatus.RUNNING.value and item.nonce is not None and run.nonce == item.nonce
            if waiting or holding:
                moved.append((run, item))
                del locked[item.run_id]
        update_rows(
            TaskRun,
            _CLEARED,
            [
                (
                    run.id,
                    (RunStatus.CANCELLED if run.cancel_requested_at else RunStatus.PENDING).value,
                    *(None, None, "", None, None, None, None, None, ""),
                    now if run.cancel_requested_at else None,
                )
                for run, _ in moved
            ],
        )
        write_events([(run.id, now, "handed_back", run.attempt, {"reason": item.reason}) for run, item in moved])
        if moved:
            wake_dispatchers()
    return [run.id for run, _ in moved]


@dataclass(frozen=True, slots=True)
class Held:
    """One attempt on a worker's list: its permit was answered, or it ended and is not known to be recorded."""

    run_id: int
    attempt: int
    token: UUID
    nonce: UUID


@dataclass(frozen=True)
class Reasserted:
    """What the database says about a worker's lists, by nonce.

    void: these attempts are not this worker's (any more). stops: asked to stop, with the reason. recorded: their end
    is written or is nobody's business any more. unknown: held here by this incarnation, yet on none of the lists.
    """

    void: set[UUID] = field(default_factory=set)
    stops: dict[UUID, str] = field(default_factory=dict)
    recorded: set[UUID] = field(default_factory=set)
    unknown: list[Held] = field(default_factory=list)


def reassert(
    holder: Holder,
    running: Sequence[Held],
    finished: Sequence[Held],
    registered: Sequence[UUID],
    *,
    now: datetime,
) -> Reasserted:
    """Compare a worker's lists with the truth, and set RUNNING again what a crashed database forgot to have permitted.

    `running` holds attempts whose permit was *answered*; those merely `registered` keep an attempt from being called
    unknown and prove nothing. Writes only where a permit was lost.
    """
    answer = Reasserted()
    with transaction.atomic():
        if running:
            _reassert_running(answer, holder, running, now)
        if finished:
            _settle_finished(answer, finished)
        listed = {held.nonce for held in (*running, *finished)} | set(registered)
        rows = TaskRun.objects.held_by([holder.incarnation_id]).values_list("id", "attempt", "token", "nonce")
        for run_id, attempt, token, nonce in rows:
            if nonce not in listed and token is not None and nonce is not None:
                answer.unknown.append(Held(run_id, attempt, token, nonce))
    return answer


def _reassert_running(answer: Reasserted, holder: Holder, running: Sequence[Held], now: datetime) -> None:
    columns = ("id", "status", "attempt", "token", "nonce", "stop_reason", "cancel_requested_at")
    rows = {
        row[0]: row for row in TaskRun.objects.filter(pk__in=[held.run_id for held in running]).values_list(*columns)
    }
    forgotten: list[Held] = []
    for held in running:
        row = rows.get(held.run_id)
        if row is None or row[3] != held.token or row[2] != held.attempt:
            answer.void.add(held.nonce)
        elif row[1] == RunStatus.RUNNING.value and row[4] == held.nonce:
            if row[6] is not None:
                answer.stops[held.nonce] = "cancel"
            elif row[5]:
                answer.stops[held.nonce] = row[5]
        elif row[1] == RunStatus.DISPATCHED.value:
            forgotten.append(held)
        else:
            answer.void.add(held.nonce)
    if forgotten:
        _permit_again(answer, holder, forgotten, now)


def _permit_again(answer: Reasserted, holder: Holder, forgotten: Sequence[Held], now: datetime) -> None:
    locked = lock_runs(held.run_id for held in forgotten)
    moved = []
    for held in forgotten:
        run = locked.get(held.run_id)
        if run is None or run.status != RunStatus.DISPATCHED.value or run.token != held.token:
            answer.void.add(held.nonce)
            continue
        deadline = now + timedelta(seconds=run.timeout_seconds)
        moved.append(
            (
                run.id,
                RunStatus.RUNNING.value,
                held.nonce,
                holder.worker_id,
                holder.incarnation_id,
                now,
                now,
                deadline,
            )
        )
    update_rows(
        TaskRun,
        ("status", "nonce", "worker_id", "incarnation_id", "permitted_at", "started_at", "deadline_at"),
        moved,
    )
    write_events([(row[0], now, "permit_reasserted", locked[row[0]].attempt, {}) for row in moved])


def _settle_finished(answer: Reasserted, finished: Sequence[Held]) -> None:
    """An end is recorded when its attempt row exists; it is void when the run went on without it."""
    ids = [held.run_id for held in finished]
    written = set(TaskRunAttempt.objects.filter(run_id__in=ids).values_list("run_id", "number"))
    current = {
        row[0]: row for row in TaskRun.objects.filter(pk__in=ids).values_list("id", "status", "token", "attempt")
    }
    open_states = (RunStatus.RUNNING.value, RunStatus.DISPATCHED.value)
    for held in finished:
        row = current.get(held.run_id)
        still_open = row is not None and row[1] in open_states and (row[2], row[3]) == (held.token, held.attempt)
        if (held.run_id, held.attempt) in written or not still_open:
            answer.recorded.add(held.nonce)
