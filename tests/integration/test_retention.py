"""What prune deletes and what it never touches."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tasks_app import lifecycle, services
from tasks_app.models import RunEvent, RunLogChunk, TaskRun, TaskRunAttempt
from tasks_app.retention import prune, prune_in_batches
from tasks_app.states import ACTIVE, RunStatus
from tests.integration.domain import NOW, AWorker, a_finish, a_run_in, running

pytestmark = pytest.mark.django_db

LATER = NOW + timedelta(days=1)


def ended(worker: AWorker) -> int:
    permit = running(worker)
    RunLogChunk.objects.create(
        run_id=permit.run_id, attempt=1, token=permit.token, seq=1, stream="stdout", text="x", at=NOW
    )
    lifecycle.finish([a_finish(permit)], now=NOW)
    return permit.run_id


def test_old_runs_go_with_all_that_hangs_on_them():
    worker = AWorker()
    ids = [ended(worker) for _ in range(3)]
    done = prune(before=LATER, batch=2)
    assert (done.runs, done.attempts, done.log_chunks) == (3, 3, 3)
    assert not TaskRun.objects.filter(pk__in=ids).exists()
    assert TaskRunAttempt.objects.count() == RunEvent.objects.count() == RunLogChunk.objects.count() == 0


def test_runs_in_other_states_younger_ones_and_active_ones_stay():
    kept = [a_run_in(status).pk for status in sorted(ACTIVE)] + [a_run_in(RunStatus.FAILED).pk]
    old = ended(AWorker())
    assert prune(before=NOW, states=[RunStatus.COMPLETED]).runs == 0
    assert prune(before=LATER, states=[RunStatus.COMPLETED]).runs == 1
    assert set(TaskRun.objects.values_list("pk", flat=True)) == set(kept)
    assert old not in kept


@pytest.mark.parametrize("status", sorted(ACTIVE))
def test_an_active_state_cannot_be_named(status: RunStatus):
    with pytest.raises(ValueError, match=status.value):
        prune(before=LATER, states=[status])


def test_only_the_output_can_be_deleted():
    run_id = ended(AWorker())
    assert prune(before=LATER, logs_only=True).log_chunks == 1
    assert TaskRun.objects.filter(pk=run_id).exists()
    assert RunEvent.objects.filter(run_id=run_id).exists()
    assert RunLogChunk.objects.count() == 0


def test_a_dry_run_counts_and_deletes_nothing():
    ended(AWorker())
    done = prune(before=LATER, dry_run=True)
    assert (done.runs, done.attempts, done.log_chunks) == (1, 1, 1)
    assert TaskRun.objects.count() == 1


def test_a_run_that_repeats_a_deleted_one_stays_and_forgets_it():
    run_id = ended(AWorker())
    again = services.retry_run(run_id)
    prune(before=LATER)
    assert TaskRun.objects.get(pk=again.pk).retry_of_id is None


def test_batches_are_transactions_of_their_own_and_may_be_left():
    worker = AWorker()
    for _ in range(4):
        ended(worker)
    batches = prune_in_batches(before=LATER, batch=1)
    next(batches)
    batches.close()
    assert TaskRun.objects.count() == 3
