"""Use cases that also concern workers. Views, admin actions and commands make one call into these."""

from __future__ import annotations

from collections.abc import Collection

from django.db import transaction

from dispatch import control
from tasks_app import lifecycle
from tasks_app import services as task_services
from tasks_app.clock import clock
from tasks_app.errors import NotFound
from tasks_app.lifecycle import CancelAnswer
from workers_app.models import Worker


def cancel_run(run_id: int, *, by: str = "") -> CancelAnswer:
    """Cancel one run, and tell the worker at once if it runs. Raises RunNotFound, StaleTransition."""
    answer = task_services.cancel_run(run_id, by=by)
    _tell(answer)
    return answer


def cancel_runs(run_ids: Collection[int], *, by: str = "") -> CancelAnswer:
    """Cancel many runs; final ones are reported as stale."""
    answer = task_services.cancel_runs(run_ids, by=by)
    _tell(answer)
    return answer


def drain_worker(name: str, *, by: str = "") -> Worker:
    """No more work for this worker from now on; what it runs goes on. Twice keeps the first. Raises NotFound."""
    with transaction.atomic():
        worker = _locked(name)
        if worker.draining_since is None:
            worker.draining_since, worker.drain_requested_by = clock.now(), by[:150]
            worker.save(update_fields=["draining_since", "drain_requested_by"])
        transaction.on_commit(lambda: control.drain(name))
    return worker


def resume_worker(name: str) -> Worker:
    """The worker takes work again. Raises NotFound."""
    with transaction.atomic():
        worker = _locked(name)
        if worker.draining_since is not None:
            worker.draining_since, worker.drain_requested_by = None, ""
            worker.save(update_fields=["draining_since", "drain_requested_by"])
            lifecycle.wake_dispatchers()
        transaction.on_commit(lambda: control.resume(name))
    return worker


def _tell(answer: CancelAnswer) -> None:
    if answer.requested:
        # After the commit: a worker that asks the database must find the fact there.
        transaction.on_commit(lambda: control.cancel(control.by_worker(answer.requested)))


def _locked(name: str) -> Worker:
    try:
        return Worker.objects.select_for_update().get(pk=name)
    except Worker.DoesNotExist as error:
        raise NotFound(worker=name[:200]) from error
