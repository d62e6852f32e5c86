"""Each reason for which a run does not start is one object: one predicate, two uses.

`q(now)` is its part of the claim: rows that it keeps back; None where the reason lies with the queue and not with the
row (then it shows as credit). `explain(run, now)` is its part of the answer to "why is it not running?".

The claim is built once and carried out with many instants: there `now` is an expression, which takes arithmetic and
comparison with columns, but no look at its value.

A new reason is a new object in BLOCKERS. Its `q` must leave the claim's plan alone: conditions on the run's own
columns, or `IN` over a sub-select that stays small, which PostgreSQL hashes once and never turns into a join.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Protocol

from django.db.models import Expression, Q
from django.utils.translation import gettext as _

from dispatch import broker_probe, queries
from dispatch.conf import conf
from tasks_app.messages.execution import queue_for
from tasks_app.models import Task, TaskRun
from tasks_app.querysets import RunQuerySet
from tasks_app.states import RunStatus
from workers_app.models import WorkerIncarnation

#: A moment, or what stands for one in a query that is built before it is known.
Instant = datetime | Expression


@dataclass(frozen=True, slots=True)
class Explanation:
    """One reason, for a person: what, who holds it, since when, until when if that is known, and what to do.

    code never changes: `not_due`, `task_paused`, `task_deleted`, `no_worker`, `no_slot`, `broker_away`, `at_broker`,
    `no_dispatcher`.
    """

    code: str
    text: str
    holder: str = ""
    since: datetime | None = None
    expected_release: datetime | None = None
    remedy: str = ""


class Blocker(Protocol):
    """One reason not to start."""

    code: str

    def q(self, now: Instant) -> Q | None:
        """The runs that it keeps back, as a condition on TaskRun; None when it does not depend on the row."""

    def explain(self, run: TaskRun, now: datetime) -> Explanation | None:
        """The reason in words if it holds this run back now. The run is PENDING."""


class NotDue:
    """Its time has not come: a schedule, a wish of the caller, or the wait before a retry."""

    code = "not_due"

    def q(self, now: Instant) -> Q:
        """See `Blocker`."""
        return Q(due_at__gt=now)

    def explain(self, run: TaskRun, now: datetime) -> Explanation | None:
        """See `Blocker`."""
        if run.due_at <= now:
            return None
        text = _("It waits before attempt %(attempt)d.") if run.attempt > 1 else _("It is due later.")
        return Explanation(
            self.code, text % {"attempt": run.attempt}, holder=_("its due time"), expected_release=run.due_at,
            remedy=_("Wait, or trigger the task again to run it now."),
        )  # fmt: skip


class TaskPaused:
    """Somebody paused the task."""

    code = "task_paused"

    def q(self, _now: Instant) -> Q:
        """See `Blocker`."""
        return Q(task_id__in=Task.objects.filter(paused_at__isnull=False).values("pk"))

    def explain(self, run: TaskRun, _now: datetime) -> Explanation | None:
        """See `Blocker`."""
        task = run.task
        if task.paused_at is None:
            return None
        text = _("The task is paused.") if not task.pause_reason else _("The task is paused: %(reason)s")
        return Explanation(
            self.code, text % {"reason": task.pause_reason}, holder=task.paused_by or _("unknown"),
            since=task.paused_at, remedy=_("Resume the task."),
        )  # fmt: skip


class TaskDeleted:
    """The task was deleted while this run was being submitted."""

    code = "task_deleted"

    def q(self, _now: Instant) -> Q:
        """See `Blocker`."""
        return Q(task_id__in=Task.objects.filter(deleted_at__isnull=False).values("pk"))

    def explain(self, run: TaskRun, _now: datetime) -> Explanation | None:
        """See `Blocker`."""
        if run.task.deleted_at is None:
            return None
        return Explanation(
            self.code, _("The task was deleted."), holder=run.task.name, since=run.task.deleted_at,
            remedy=_("Cancel the run."),
        )  # fmt: skip


class NoWorker:
    """No live worker takes this task type."""

    code = "no_worker"

    def q(self, _now: Instant) -> None:
        """It lies with the queue, not with the row."""

    def explain(self, run: TaskRun, _now: datetime) -> Explanation | None:
        """See `Blocker`."""
        live = list(
            WorkerIncarnation.objects.live().values_list(
                "worker_id", "task_types", "draining", "worker__draining_since"
            )
        )
        serving = [row for row in live if run.task_type in row[1]]
        if any(not draining and since is None for _worker, _types, draining, since in serving):
            return None
        names = {"task_type": run.task_type}
        if serving:
            return Explanation(
                self.code, _('Every worker that takes "%(task_type)s" is draining.') % names,
                holder=", ".join(sorted({row[0] for row in serving})[:5]),
                since=min((row[3] for row in serving if row[3]), default=None),
                remedy=_("Resume one of these workers, or start another."),
            )  # fmt: skip
        return Explanation(
            self.code, _('No live worker takes the task type "%(task_type)s".') % names,
            holder=queue_for(run.task_type),
            remedy=_('Start one: manage.py run_worker --task-types "%(task_type)s"') % names,
        )  # fmt: skip


class NoCredit:
    """Every slot is taken, and what may wait at the broker waits there already."""

    code = "no_slot"

    def q(self, _now: Instant) -> None:
        """It lies with the queue, not with the row."""

    def explain(self, run: TaskRun, now: datetime) -> Explanation | None:
        """See `Blocker`."""
        load = queries.loads({run.task_type: queries.Look(now)}, now)[run.task_type]
        if load.slots == 0 or load.free * 2 > load.dispatched:
            return None
        numbers = {"slots": load.slots, "running": load.running, "waiting": load.dispatched}
        running: RunQuerySet = TaskRun.objects.running().filter(task_type=run.task_type)
        longest = running.order_by("started_at").values_list("task_name", "started_at").first()
        return Explanation(
            self.code,
            _("All %(slots)d slots are taken: %(running)d running, %(waiting)d at the broker.") % numbers,
            holder=longest[0] if longest else queue_for(run.task_type),
            since=longest[1] if longest else None,
            remedy=_("Wait, raise the run's priority, or start more workers."),
        )  # fmt: skip


class BrokerAway:
    """The broker does not answer; nothing is claimed until it does."""

    code = "broker_away"

    def q(self, _now: Instant) -> None:
        """It lies with the queue, not with the row."""

    def explain(self, _run: TaskRun, _now: datetime) -> Explanation | None:
        """See `Blocker`."""
        address = broker_probe.unreachable()
        if address is None:
            return None
        return Explanation(
            self.code, _("The broker does not answer."), holder=address,
            remedy=_("Start the broker. Nothing is lost; runs go on by themselves when it is back."),
        )  # fmt: skip


class Unserved:
    """Nothing holds it back and still nobody took it: the last reason, asked when no other one applies."""

    code = "no_dispatcher"

    def q(self, _now: Instant) -> None:
        """It lies with the queue, not with the row."""

    def explain(self, run: TaskRun, now: datetime) -> Explanation | None:
        """See `Blocker`."""
        late = timedelta(seconds=5 * conf().tick_seconds)
        if run.due_at > now - late:
            return None
        return Explanation(
            self.code, _("It is due and no dispatcher has taken it."), holder=_("dispatcher"), since=run.due_at,
            remedy=_("See that a dispatcher runs: manage.py run_dispatcher"),
        )  # fmt: skip


BLOCKERS: Final[tuple[Blocker, ...]] = (NotDue(), TaskPaused(), TaskDeleted(), NoWorker(), NoCredit(), BrokerAway())
LAST_RESORT: Final[Blocker] = Unserved()


def unblocked(runs: RunQuerySet, now: Instant) -> RunQuerySet:
    """Without the rows that any blocker keeps back."""
    for blocker in BLOCKERS:
        kept_back = blocker.q(now)
        if kept_back is not None:
            runs = runs.filter(~kept_back)
    return runs


def at_broker(run: TaskRun, now: datetime) -> Explanation | None:
    """For a DISPATCHED run: its message waits at the broker for a worker to begin it."""
    if run.status != RunStatus.DISPATCHED.value:
        return None
    away = BrokerAway().explain(run, now)
    if away is not None:
        return away
    return Explanation(
        "at_broker", _("Its message waits at the broker for a free slot."), holder=queue_for(run.task_type),
        since=run.dispatched_at, expected_release=run.permit_by,
        remedy=_("Wait; if no worker begins it in time it is sent again."),
    )  # fmt: skip
