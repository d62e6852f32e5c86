"""Messages that the broker no longer has: found before their permit deadline passes.

A broker that was emptied or replaced leaves runs DISPATCHED whose message nobody will ever deliver. The permit
deadline brings them back after a minute; this does it after some seconds, where there is evidence: a worker has free
slots, the queue at the broker is empty, and the message is older than any delivery takes, at two looks in a row.
Should one be on its way all the same (prefetched by a worker that stands still), its token is out of date then and the
permit refuses it.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Final

from dispatch import queries
from dispatch.broker.port import Broker
from tasks_app import lifecycle
from tasks_app.messages.execution import queue_for
from tasks_app.models import TaskRun

OLD_SECONDS: Final = 5.0
_BATCH: Final = 1000


class MissingMessages:
    """Remembers between looks which queues looked as if they had lost messages."""

    def __init__(self, broker: Broker) -> None:
        """The broker is asked for depths only."""
        self._broker = broker
        self._suspected: set[str] = set()

    def take_back(self, now: datetime) -> list[int]:
        """One look; the ids of runs that are PENDING again. Raises BrokerAway, django.db.Error."""
        old = now - timedelta(seconds=OLD_SECONDS)
        suspects = self._empty_with_free_slots(
            set(
                TaskRun.objects.dispatched()
                .filter(dispatched_at__lt=old)
                .order_by()
                .values_list("task_type", flat=True)
                .distinct()
            ),
            now,
        )
        certain, self._suspected = suspects & self._suspected, suspects
        moved: list[int] = []
        for queue in sorted(certain):
            waiting = TaskRun.objects.dispatched().filter(task_type=queue, dispatched_at__lt=old, token__isnull=False)
            claims = [(pk, token) for pk, token in waiting.order_by("id").values_list("pk", "token")[:_BATCH] if token]
            moved += lifecycle.unpublish(claims, now=now, reason="the broker no longer has its message")
        return moved

    def forget(self) -> None:
        """A look failed: two in a row begin afresh."""
        self._suspected.clear()

    def _empty_with_free_slots(self, queues: Collection[str], now: datetime) -> set[str]:
        if not queues:
            return set()
        loads = queries.loads({name: queries.Look(now) for name in queues}, now)
        free = [name for name in queues if loads[name].free > 0]
        depths = self._broker.depths([queue_for(name) for name in free]) if free else {}
        return {name for name in free if not depths.get(queue_for(name))}
