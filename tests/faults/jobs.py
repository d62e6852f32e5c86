"""Bodies of the fault harness: the same work in every form that a Celery task can have.

Each writes its history (see `history`) into the folder FAULTS_HISTORY. In a managed run the job interface says which
attempt it is; in plain Celery the message id and the retry count say it, so one checker reads both.

seconds: how long the body works. fail_first: it fails in that many attempts, in the way of its form.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from celery import Task, shared_task

from tests.faults.history import Recorder
from workers_app.job import current_job


class PlannedFailure(Exception):
    """The body was told to fail in this attempt."""


def _work(task: Task, seconds: float = 0.3, fail_first: int = 0) -> int:
    """The body of all: work, then fail if this attempt should. Returns the attempt's number."""
    job = current_job()
    if job.managed:
        facts: dict[str, Any] = {"run": job.run_id, "attempt": job.attempt, "token": job.token}
    else:
        request = task.request
        facts = {"run": request.id, "attempt": request.retries + 1, "token": request.id}
    with Recorder(Path(os.environ["FAULTS_HISTORY"]), {**facts, "form": task.name, "parent": os.getppid()}):
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            time.sleep(min(left, 0.02))
        if facts["attempt"] <= fail_first:
            raise PlannedFailure(f"attempt {facts['attempt']} of {fail_first} that fail")
    return int(facts["attempt"])


@shared_task(name="faults.bound", bind=True)
def bound(self: Task, seconds: float = 0.3, fail_first: int = 0) -> int:
    """A bound function; fails by raising."""
    return _work(self, seconds, fail_first)


@shared_task(name="faults.plain")
def plain(seconds: float = 0.3, fail_first: int = 0) -> int:
    """A plain function."""
    return _work(plain, seconds, fail_first)


@shared_task(name="faults.autoretry", bind=True, autoretry_for=(PlannedFailure,), default_retry_delay=0, max_retries=10)
def autoretry(self: Task, seconds: float = 0.3, fail_first: int = 0) -> int:
    """Fails into `autoretry_for`."""
    return _work(self, seconds, fail_first)


@shared_task(name="faults.retries", bind=True, max_retries=10)
def retries(self: Task, seconds: float = 0.3, fail_first: int = 0) -> int:
    """Fails by calling `self.retry`."""
    try:
        return _work(self, seconds, fail_first)
    except PlannedFailure as error:
        raise self.retry(exc=error, countdown=0) from error


class OwnBase(Task):
    """A base class that changes nothing but that it is there."""


@shared_task(name="faults.own_base", bind=True, base=OwnBase)
def own_base(self: Task, seconds: float = 0.3, fail_first: int = 0) -> int:
    """Has a base class of its own."""
    return _work(self, seconds, fail_first)


class OwnCall(Task):
    """A base class that works around the body: what it does before must not happen without a permit."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Do the work here and never call `run`, so that a wrapper of `run` would be passed by."""
        return _work(self, *args, **kwargs)


@shared_task(name="faults.own_call", bind=True, base=OwnCall)
def own_call(self: Task, seconds: float = 0.3, fail_first: int = 0) -> int:
    """Never reached: the base class does the work in `__call__`."""
    raise AssertionError("the base class's __call__ does the work")


class OwnBeforeStart(Task):
    """A base class that does not call its parent's `before_start`."""

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        """Shadow whatever stands above."""


@shared_task(name="faults.own_before_start", bind=True, base=OwnBeforeStart)
def own_before_start(self: Task, seconds: float = 0.3, fail_first: int = 0) -> int:
    """Has a `before_start` of its own."""
    return _work(self, seconds, fail_first)
