"""One round of claims: which queues have work, how much credit they have, and the best rows for it.

The queues' rows are locked first, and in the transaction of the claim: SKIP LOCKED on the runs alone would let two
dispatchers count the same credit and spend it twice. A queue that somebody else holds is left to them; nobody waits for
a queue, so the order in which they are locked does not matter.

One thing is done without the lock: when the bell rings and the last look left credit, `at_once` takes as many due rows
as there is of that, at most one a slot, and asks for nothing before. That is what a run on an idle system is spared: a
whole exchange with the database. Several dispatchers may so send more than there is credit for, each at most once as
many; these wait a moment at the broker, and the next look counts them.

Rows are taken priority by priority, each with equality on queue and priority: then the index `run_claim` gives them
in order, and the scan ends at the first row that is not due yet. One query over all priorities would read every row
that is due later at a higher priority, each time.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from typing import NamedTuple

from django.db import connection, transaction

from dispatch import queries
from dispatch.blockers import unblocked
from dispatch.credit import LookAhead, QueueLoad
from tasks_app import lifecycle
from tasks_app.crashpoints import reach
from tasks_app.lifecycle import Claimed
from tasks_app.lifecycle.claim import ClaimStatement, Given
from tasks_app.models import TaskRun
from tasks_app.querysets import RunQuerySet


@dataclass
class Round:
    """What one round of claims did, and what it saw.

    claimed: best first. next_due_at: of the earliest run that is not due yet. more: credit and due rows are left.
    contended: another dispatcher held a queue with due rows. starved: queues with due rows and no credit. soon: a
    queue's credit was just spent, or one that is starved drains fast: the seconds until there may be credit again.
    """

    claimed: list[Claimed] = field(default_factory=list)
    next_due_at: datetime | None = None
    more: bool = False
    contended: bool = False
    starved: list[str] = field(default_factory=list)
    soon: float | None = None

    def look_again_in(self, seconds: float) -> None:
        """Some queue may have credit again in so many seconds; the soonest counts."""
        self.soon = seconds if self.soon is None else min(self.soon, seconds)


class Ready(NamedTuple):
    """The queue and the priority that were served last, and the credit that was left, at most one a slot.

    Credit and not free slots: a run that has ended counts as running until its report has come.
    """

    queue: str
    priority: int
    credit: int


class Claiming:
    """Claims for one dispatcher; remembers each queue's look-ahead between rounds."""

    def __init__(self, *, batch_max: int, per_slot_max: int, permit_within: timedelta) -> None:
        """batch_max bounds a round over all queues."""
        self._batch_max = batch_max
        self._per_slot_max = per_slot_max
        self._permit_within = permit_within
        self._ahead: dict[str, LookAhead] = {}
        self._looked_at: dict[str, datetime] = {}
        #: Queues that had due rows when there were any.
        self._last_due: set[str] = set()
        self._ready: Ready | None = None

    def at_once(self, now: datetime, *, without: Sequence[str] = ()) -> list[Claimed]:
        """Due rows for the credit that the last look left, in one exchange; none where the database has no bell.

        From the queue and of the priority that were served last: what else became due comes with the next round.
        """
        ready = self._ready
        if ready is None or ready.credit <= 0 or ready.queue in without or connection.vendor != "postgresql":
            return []
        with transaction.atomic():
            values = {"queue": ready.queue, "priority": ready.priority, "now": now, ClaimStatement.COUNT: ready.credit}
            claimed = lifecycle.claim(
                claim_statement(), now=now, permit_within=self._permit_within, values=values, durable=False
            )
            reach("claim.before_commit")
        reach("claim.after_commit")
        self._ready = ready._replace(credit=ready.credit - len(claimed))
        return claimed

    def round(self, now: datetime, at: float, *, without: Sequence[str] = (), expecting: bool = False) -> Round:
        """Claim what there is credit for. `at`: monotonic seconds. `without`: queues that are left out this time.

        expecting: something is probably due, where it was due the last time. The loads of these queues are asked for
        together with what is due, one exchange less until an idle system's run is on its way.
        """
        result = Round()
        guessed = self._last_due.difference(without) if expecting else set()
        with transaction.atomic() if guessed else nullcontext():
            heads, loads = queries.heads_and_loads(self._looks(guessed, now), now)
            due = [head for head in heads if head.due_at <= now and head.queue not in without]
            result.next_due_at = min((head.due_at for head in heads if head.due_at > now), default=None)
            if not due:
                if self._ready is not None and (load := loads.get(self._ready.queue)) is not None:
                    self._ready = self._ready._replace(credit=min(load.slots, load.window_left))
                return result
            wanted = self._last_due = {head.queue for head in due}
            with transaction.atomic(savepoint=False):
                if others := wanted.difference(guessed):
                    loads |= queries.lock_and_load(self._looks(others, now), now)
                self._serve(result, due, {name: loads[name] for name in wanted.intersection(loads)}, now, at)
                result.contended = not wanted.issubset(loads)
                reach("claim.before_commit")
        reach("claim.after_commit")
        return result

    def _serve(
        self, result: Round, due: Sequence[queries.Head], loads: Mapping[str, QueueLoad], now: datetime, at: float
    ) -> None:
        credit_of = {}
        for name, load in loads.items():
            ahead = self._ahead[name]
            self._looked_at[name] = now
            credit_of[name] = ahead.credit(load, at)
            if credit_of[name] == 0:
                result.starved.append(name)
                if ahead.drains_fast(at):
                    result.look_again_in(ahead.pause_seconds())
        left = self._claim(result, due, credit_of, now)
        best = due[0]
        if (served := loads.get(best.queue)) is not None:
            self._ready = Ready(best.queue, best.priority, min(served.slots, left[best.queue]))

    def _claim(
        self, result: Round, due: Sequence[queries.Head], credit_of: dict[str, int], now: datetime
    ) -> dict[str, int]:
        """Returns what is left of the credit."""
        left, room = dict(credit_of), self._batch_max
        for head in due:
            count = min(left.get(head.queue, 0), room)
            if count <= 0:
                continue
            claimed = self._take(head.queue, head.priority, now, count)
            result.claimed.extend(claimed)
            left[head.queue] -= len(claimed)
            room -= len(claimed)
            # The limit cut it off, not the lack of rows.
            result.more = result.more or (len(claimed) == count and room <= 0)
        for name, credit in credit_of.items():
            if credit:
                self._ahead[name].claimed(credit - left[name], credit)
                if left[name] <= 0:
                    result.look_again_in(self._ahead[name].pause_seconds())
        return left

    def _take(self, queue: str, priority: int, now: datetime, count: int) -> list[Claimed]:
        if connection.vendor != "postgresql":
            rows = candidates(queue, priority, now)[:count]
            return lifecycle.claim(rows, now=now, permit_within=self._permit_within)
        return lifecycle.claim(
            claim_statement(), now=now, permit_within=self._permit_within,
            values={"queue": queue, "priority": priority, "now": now, ClaimStatement.COUNT: count},
        )  # fmt: skip

    def _looks(self, names: Collection[str], now: datetime) -> dict[str, queries.Look]:
        looks = {}
        for name in names:
            ahead = self._ahead.setdefault(name, LookAhead(self._per_slot_max))
            looks[name] = queries.Look(self._looked_at.get(name, now), ahead.overtaken_before)
        return looks


def candidates(queue: str | Given, priority: int | Given, now: datetime | Given) -> RunQuerySet:
    """The rows of a queue at one priority that nothing keeps back, best first.

    Expected plan on PostgreSQL, with whatever statistics: Limit over LockRows over Index Scan using run_claim with the
    three conditions as Index Cond, the blockers as hashed SubPlans in its Filter, and no Sort.
    """
    rows: RunQuerySet = TaskRun.objects.pending().filter(task_type=queue, priority=priority, due_at__lte=now)
    return unblocked(rows, now).order_by("due_at", "id")


@lru_cache(maxsize=1)
def claim_statement() -> ClaimStatement:
    """The claim of `count` candidates, with `queue`, `priority` and `now` to be given. PostgreSQL only."""
    fields = {field.name: field for field in TaskRun._meta.concrete_fields}
    queue, priority = Given("queue", fields["task_type"]), Given("priority", fields["priority"])
    return ClaimStatement(candidates(queue, priority, Given("now", fields["due_at"])), counted=True)
