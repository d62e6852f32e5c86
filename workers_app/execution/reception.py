"""Where Celery's event loop and the permit desk meet: managed messages go to the desk before they go to the pool.

`strategy` is Celery's own default strategy, made for a consumer whose way to the pool has a detour. `DeskAtLoop` is a
step of Celery's consumer that connects the desk to each new event loop. A task has this strategy when the desk asks for
permits (`WorkerProcess`); without it the pool child asks by itself (`child`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from celery import bootsteps
from celery.worker.consumer.tasks import Tasks
from celery.worker.state import task_ready
from celery.worker.strategy import default

from tasks_app.messages.execution import HEADER, Refusal
from tasks_app.messages.signing import KeyRing
from workers_app.execution.arrival import ticket_of
from workers_app.execution.grant import GRANT
from workers_app.execution.one_process import LoopCalls, after_acknowledging, hand_to_thread
from workers_app.execution.permit_desk import Delivery, PermitDesk
from workers_app.execution.redis_lists import acknowledge_all, keep_client

_desk: PermitDesk | None = None
_ring: KeyRing | None = None
_pool = ""


def open_desk(desk: PermitDesk, ring: KeyRing, pool: str) -> None:
    """Managed messages of this process go to this desk from now on; before the consumer is made. pool: its name."""
    global _desk, _ring, _pool
    _desk, _ring, _pool = desk, ring, pool


class _Detour:
    """Celery's consumer, except that managed requests take the way over the desk."""

    def __init__(self, consumer: Any, desk: PermitDesk, ring: KeyRing) -> None:
        self._consumer, self._desk, self._ring = consumer, desk, ring
        self._straight = consumer.on_task_request

    def __getattr__(self, name: str) -> Any:
        return getattr(self._consumer, name)

    def on_task_request(self, request: Any) -> Any:
        headers = request.request_dict
        if HEADER not in headers:
            return self._straight(request)
        ticket = ticket_of(
            headers, request.type, request.args, request.kwargs, headers.get("delivery_info"), self._ring
        )
        if isinstance(ticket, Refusal):
            return _done_with(request)
        return self._desk.take(request, request.type, ticket)


def strategy(task: Any, app: Any, consumer: Any, **options: Any) -> Callable[..., Any]:
    """Celery's `Task.Strategy`: what becomes of each message of one task."""
    if _desk is None or _ring is None:
        raise RuntimeError("a desk is opened before the consumer starts")
    made: Callable[..., Any] = default(task, app, _Detour(consumer, _desk, _ring), **options)
    return made


class DeskAtLoop(bootsteps.StartStopStep):
    """Connects the desk to the event loop; again after each reconnect, which resets the loop."""

    requires: ClassVar = (Tasks,)

    def register_with_event_loop(self, parent: Any, hub: Any) -> None:
        """The loop is about to run."""
        if _desk is None:
            return
        desk, straight = _desk, parent.on_task_request
        if _pool == "threads":
            straight = hand_to_thread(LoopCalls(hub), straight)

        def hand(delivery: Delivery) -> None:
            _hand(desk, straight, delivery)

        waiting = desk.connect(
            hand=after_acknowledging(hub, desk._wake_event_loop, hand) if _pool == "solo" else hand,
            settle=_settle,
            drop=lambda delivery: task_ready(delivery.request),
            prefetch=lambda more: _prefetch(parent.qos, more),
        )
        hub.add_reader(waiting, desk.woken)
        keep_client(parent.task_consumer.channel)

    def stop(self, parent: Any) -> None:  # noqa: ARG002  (as Celery calls it)
        """The connection is lost or closed."""
        if _desk is not None:
            _desk.disconnect()


def _hand(desk: PermitDesk, straight: Callable[[Any], Any], delivery: Delivery) -> None:
    """Give a request to the pool, with its grant, and hear of its end."""
    request = delivery.request
    request.request_dict[GRANT] = delivery.grant()
    succeeded, failed = request.on_success, request.on_failure

    def on_success(*args: Any, **kwargs: Any) -> Any:
        try:
            return succeeded(*args, **kwargs)
        finally:
            desk.left(delivery)

    def on_failure(*args: Any, **kwargs: Any) -> Any:
        try:
            return failed(*args, **kwargs)
        finally:
            desk.left(delivery)

    # Instance attributes: Celery makes a subclass for each task that overrides what a base class could say here.
    request.on_success, request.on_failure = on_success, on_failure
    straight(request)
    if request._already_revoked:
        desk.never_begins(delivery, "revoked in Celery")  # and the pool never saw it


def _prefetch(qos: Any, more: int) -> None:
    """The event loop tells the broker when it has nothing else to read."""
    if more > 0:
        qos.increment_eventually(more)
    else:
        qos.decrement_eventually(-more)


def _settle(answered: Sequence[Delivery]) -> None:
    """The broker need not keep these; those without a permit are done with."""
    acknowledge_all([delivery.request for delivery in answered])
    for delivery in answered:
        if delivery.permit is None:
            task_ready(delivery.request)


def _done_with(request: Any) -> None:
    request.acknowledge()
    task_ready(request)
