"""Deletes what is old: runs that ended, with their attempts, events and output; or only the output.

In batches by primary key, each its own short transaction, so that nobody waits for it and it may be stopped at any
time. Only final states can be named: a final state is never left, so what is deleted cannot come back to life.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime

from django.db import transaction

from tasks_app.models import RunEvent, RunLogChunk, ScheduleFire, TaskRun, TaskRunAttempt
from tasks_app.querysets import RunQuerySet
from tasks_app.states import FINAL, RunStatus

BATCH = 1000


@dataclass(frozen=True, slots=True)
class Pruned:
    """What was deleted, or would be (dry run)."""

    runs: int = 0
    attempts: int = 0
    events: int = 0
    log_chunks: int = 0

    def __add__(self, other: Pruned) -> Pruned:
        return Pruned(
            self.runs + other.runs,
            self.attempts + other.attempts,
            self.events + other.events,
            self.log_chunks + other.log_chunks,
        )


def prune(
    *,
    before: datetime,
    states: Collection[RunStatus] = tuple(sorted(FINAL)),
    logs_only: bool = False,
    dry_run: bool = False,
    batch: int = BATCH,
) -> Pruned:
    """Delete runs in these states that ended before an instant. Raises ValueError for a state that is not final."""
    total = Pruned()
    for done in prune_in_batches(before=before, states=states, logs_only=logs_only, dry_run=dry_run, batch=batch):
        total += done
    return total


def prune_in_batches(
    *,
    before: datetime,
    states: Collection[RunStatus] = tuple(sorted(FINAL)),
    logs_only: bool = False,
    dry_run: bool = False,
    batch: int = BATCH,
) -> Iterator[Pruned]:
    """The same, telling after each batch; stop asking and it stops. Expected plan: Index Scan using the primary key."""
    active = sorted(state.value for state in states if state not in FINAL)
    if active:
        raise ValueError(f"only runs in a final state can be pruned, not {', '.join(active)}")
    old: RunQuerySet = TaskRun.objects.filter(
        status__in=sorted(state.value for state in states), completed_at__lt=before
    ).order_by("pk")
    last = 0
    while ids := list(old.filter(pk__gt=last).values_list("pk", flat=True)[:batch]):
        last = ids[-1]
        if dry_run:
            yield _counted(ids, logs_only)
        else:
            yield _deleted(ids, logs_only)


def _counted(ids: list[int], logs_only: bool) -> Pruned:
    chunks = RunLogChunk.objects.filter(run_id__in=ids).count()
    if logs_only:
        return Pruned(log_chunks=chunks)
    return Pruned(
        runs=len(ids),
        attempts=TaskRunAttempt.objects.filter(run_id__in=ids).count(),
        events=RunEvent.objects.filter(run_id__in=ids).count(),
        log_chunks=chunks,
    )


def _deleted(ids: list[int], logs_only: bool) -> Pruned:
    # Straight deletes: Django's own would first read every row to find out what hangs on it.
    with transaction.atomic():
        chunks = _delete(RunLogChunk, ids)
        if logs_only:
            return Pruned(log_chunks=chunks)
        events, attempts = _delete(RunEvent, ids), _delete(TaskRunAttempt, ids)
        ScheduleFire.objects.filter(run_id__in=ids).update(run=None)
        TaskRun.objects.filter(retry_of_id__in=ids).update(retry_of=None)
        runs = TaskRun.objects.filter(pk__in=ids)
        return Pruned(runs._raw_delete(runs.db), attempts, events, chunks)


def _delete(model: type[RunLogChunk | RunEvent | TaskRunAttempt], ids: list[int]) -> int:
    rows = model._default_manager.filter(run_id__in=ids)
    return int(rows._raw_delete(rows.db))
