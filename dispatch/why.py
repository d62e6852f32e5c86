"""Why is it not running? Asks the same objects that the claim asks."""

from __future__ import annotations

from datetime import datetime

from dispatch.blockers import BLOCKERS, LAST_RESORT, Explanation, at_broker
from tasks_app.models import TaskRun
from tasks_app.states import RunStatus


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
