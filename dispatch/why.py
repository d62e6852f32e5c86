"""Why is it not running? Asks the same objects that the claim asks. And why is it where it is, in any other state."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from django.utils.translation import gettext as _

from dispatch.blockers import BLOCKERS, LAST_RESORT, Explanation, at_broker
from tasks_app.models import TaskRun
from tasks_app.states import RunStatus
from tasks_app.text import line_of_error
from workers_app.models import Worker
from workers_app.pools import in_one_process


def blockers_of(run: TaskRun, now: datetime) -> list[Explanation]:
    """Every reason that holds this run back now; empty when it runs, has ended, or is about to be taken."""
    if run.status == RunStatus.DISPATCHED.value:
        waiting = at_broker(run, now)
        return [waiting] if waiting else []
    if run.status != RunStatus.PENDING.value:
        return []
    reasons = [found for blocker in BLOCKERS if (found := blocker.explain(run, now)) is not None]
    if reasons:
        return reasons
    last = LAST_RESORT.explain(run, now)
    return [last] if last else []


def standing_of(run: TaskRun, now: datetime) -> list[Explanation]:
    """What to say first about a run: what holds it back, else what it is doing, else why it ended as it did."""
    explain = _STANDINGS.get(run.status)
    if explain is not None:
        return [explain(run)]
    about_to_start = Explanation("about_to_start", _("Nothing holds it back; a dispatcher takes it next."))
    return blockers_of(run, now) or [about_to_start]


def _running(run: TaskRun) -> Explanation:
    numbers = {"worker": run.worker_id, "attempt": run.attempt, "attempts": run.max_retries + 1}
    text, remedy = _("It runs on %(worker)s, attempt %(attempt)d of at most %(attempts)d."), ""
    if run.cancel_requested_at is not None:
        text = _("It was asked to stop and still runs on %(worker)s.")
        remedy = _("Wait: it is final when the worker says that the body ended, or when the worker's lease is over.")
    elif run.stop_reason:
        text = _("It is past its deadline and is being stopped on %(worker)s.")
    if (run.cancel_requested_at is not None or run.stop_reason) and _cannot_be_killed(run):
        remedy = _(
            "Its worker's pool can interrupt Python code, and not end what blocks in C code; such a body stays until "
            "it returns or the worker's lease is over."
        )
    return Explanation(
        "running", text % numbers, holder=run.cancel_requested_by,
        since=run.cancel_requested_at or run.started_at, expected_release=run.deadline_at, remedy=remedy,
    )  # fmt: skip


def _cannot_be_killed(run: TaskRun) -> bool:
    """Whether it is Python code in a thread of its worker."""
    if run.executor != "python":
        return False
    pools = Worker.objects.filter(pk=run.worker_id).order_by().values_list("pool", flat=True)
    return any(in_one_process(pool) for pool in pools)


def _quarantined(run: TaskRun) -> Explanation:
    text = _("It was set aside after %(count)d deaths of its worker or process: %(error)s")
    return Explanation(
        "quarantined", text % {"count": run.crash_count, "error": _first_line(run)},
        remedy=_("Find out what kills the worker, then release the run or cancel it."),
    )  # fmt: skip


def _completed(run: TaskRun) -> Explanation:
    text = _("It completed at attempt %(attempt)d of at most %(attempts)d.")
    return Explanation(
        "completed", text % {"attempt": run.attempt, "attempts": run.max_retries + 1}, holder=run.worker_id,
        since=run.completed_at,
    )  # fmt: skip


def _failed(run: TaskRun) -> Explanation:
    text = _("Attempt %(attempt)d of at most %(attempts)d failed: %(error)s")
    remedy = _("The error is not one that is retried.") if run.attempt <= run.max_retries else _("No retry is left.")
    numbers = {"attempt": run.attempt, "attempts": run.max_retries + 1, "error": _first_line(run)}
    return Explanation("failed", text % numbers, holder=run.worker_id, since=run.completed_at, remedy=remedy)


def _timeout(run: TaskRun) -> Explanation:
    return Explanation(
        "timeout", _("It was still running after its timeout of %(seconds)d s.") % {"seconds": run.timeout_seconds},
        holder=run.worker_id, since=run.completed_at,
        remedy=_("Raise the task's timeout, or make the work smaller."),
    )  # fmt: skip


def _lost(run: TaskRun) -> Explanation:
    return Explanation(
        "lost", _("Its worker was lost and no retry was left: %(error)s") % {"error": _first_line(run)},
        holder=run.worker_id, since=run.completed_at,
        remedy=_("Its effects may have happened. Look before you retry it."),
    )  # fmt: skip


def _cancelled(run: TaskRun) -> Explanation:
    return Explanation(
        "cancelled", _("It was cancelled."), holder=run.cancel_requested_by or _("unknown"),
        since=run.cancel_requested_at or run.completed_at,
    )  # fmt: skip


def _skipped(run: TaskRun) -> Explanation:
    return Explanation(
        "skipped", _("It was skipped: %(reason)s") % {"reason": _first_line(run)}, since=run.completed_at
    )


def _first_line(run: TaskRun) -> str:
    return line_of_error(run.error_message)[:300] or _("no reason was given")


_STANDINGS: dict[str, Callable[[TaskRun], Explanation]] = {
    RunStatus.RUNNING.value: _running,
    RunStatus.QUARANTINED.value: _quarantined,
    RunStatus.COMPLETED.value: _completed,
    RunStatus.FAILED.value: _failed,
    RunStatus.TIMEOUT.value: _timeout,
    RunStatus.LOST.value: _lost,
    RunStatus.CANCELLED.value: _cancelled,
    RunStatus.SKIPPED.value: _skipped,
}
