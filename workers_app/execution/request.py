"""Celery's request, with two differences for managed messages.

They are acknowledged early, whatever the task says: when their permit was answered (`reception`), or, where pool
processes ask for themselves, when one accepts it.

Late acknowledgement would tie a run's life to a broker connection: a cut connection runs it twice, RabbitMQ's consumer
timeout kills the whole worker, Redis reruns what outlasts the visibility timeout. The permit already decides what may
start, and the row brings a run back whose worker died.

And whoever asks a worker what it does (`inspect active`, Flower) is shown the arguments as the message describes them,
which is without secrets where an executor knows which these are.
"""

from __future__ import annotations

from typing import Any

from celery.worker.request import Request as CeleryRequest

from tasks_app.messages.execution import HEADER
from workers_app.execution.grant import strip


class Request(CeleryRequest):
    """A delivered message in the worker's main process."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """As Celery makes it, without what only this process may add."""
        super().__init__(*args, **kwargs)
        strip(self._request_dict)

    def on_accepted(self, pid: int, time_accepted: float) -> None:
        """A pool process has it: acknowledge, whatever the task says about `acks_late`."""
        super().on_accepted(pid, time_accepted)
        if HEADER in self.request_dict:
            self.acknowledge()

    def info(self, safe: bool = False) -> Any:
        """What `inspect` answers."""
        return super().info(safe=safe or HEADER in self.request_dict)

    def reject(self, requeue: bool = False) -> Any:
        """Managed messages never go back to the queue: a new dispatch has a new token."""
        return super().reject(requeue=requeue and HEADER not in self.request_dict)
