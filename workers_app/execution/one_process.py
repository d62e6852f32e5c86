"""Bodies in threads of the worker's own process: the pools threads and solo.

What a pool child has by being a process of its own, each thread gets here: a seat in the table, a way to tell the main
process (a call), a connection to the broker with confirms for what bodies publish. The permit desk is the same; the
process that asks is the process that runs.

Celery builds the tracing function of every task anew after each reconnect. So `__trace__` becomes an attribute of the
class that puts the permit around whatever is built (`_Tracing`).

Celery calls back from the thread of a body when that begins and ends, and from there its consumer would be touched: its
connection, its events, its lists. So callbacks are put in a row for the event loop (`LoopCalls`), and what the loop
hands out it has acknowledged before. solo has no other thread than the loop's: there the body is put behind the
acknowledgements, and the loop comes round between two bodies.
"""

from __future__ import annotations

import functools
import logging
import sys
import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from celery import signals
from celery.app.task import Task
from celery.utils import log
from celery.worker import state
from kombu import pools

from tasks_app.clock import DatabaseClock
from workers_app.control_plane.database import DatabaseControlPlane
from workers_app.execution import interruption
from workers_app.execution.channel import Frame
from workers_app.execution.child import Child, attach, permitted_trace
from workers_app.execution.redis_lists import acknowledge_all
from workers_app.execution.registry import Record, Registry, Seat
from workers_app.job import LogToJob, StreamOfThreads, loggers_of_bodies, share_process

if TYPE_CHECKING:
    from celery import Celery

    from workers_app.execution.node import Node

logger = logging.getLogger(__name__)


def prepare(app: Celery, node: Node) -> None:
    """Before Celery builds tracing functions and makes its pool."""
    child_clock = DatabaseClock(host_until_read=True)
    child = Child(
        registry=node.registry,
        seat=SeatOfThread(node.registry),
        channel=Direct(node.hear),
        identity=node.identity,
        control_plane=DatabaseControlPlane(child_clock, node.settings.lease_seconds).as_worker(node.hello.worker_id),
        clock=child_clock,
        ring=node.ring,
        one_process=True,
    )
    Task.__trace__ = _Tracing()
    attach(app.tasks.values(), child)
    signals.task_prerun.connect(_entered, weak=False, dispatch_uid="signalbox.entered")
    signals.task_postrun.connect(_left, weak=False, dispatch_uid="signalbox.left")
    # Bodies wait until the broker has what they publish; the loop, whose app this is as well, must not.
    app.amqp._producer_pool = pools.producers[app.connection_for_write(transport_options={"confirm_publish": True})]
    app.amqp._producer_pool.limit = app.pool.limit


def share_streams() -> None:
    """Once logging is set up: what a body prints and logs goes to its run's log, what others do where it went."""
    share_process()
    sys.stdout, sys.stderr = StreamOfThreads("stdout", sys.stdout), StreamOfThreads("stderr", sys.stderr)
    for of_bodies in loggers_of_bodies():
        of_bodies.addHandler(LogToJob())


def keep_pool(pool: Any, drain: Callable[[bool], None]) -> None:
    """What Celery does with a pool of processes and cannot do with this one.

    A cold shutdown waits here for bodies that nobody has told to end, and inside a signal handler; so they are told.
    A revoke with `terminate` is refused with what to do instead; but not a cold shutdown's, which comes out of the
    signal handler, and with solo inside the body.
    """
    stop = pool.stop

    def tell_and_stop() -> None:
        drain(bool(state.should_terminate))
        stop()

    def refuse(*_: Any, **__: Any) -> None:
        if not log._in_sighandler:
            raise NotImplementedError("a body in a thread cannot be terminated by Celery: cancel its run instead")

    pool.stop, pool.terminate_job = tell_and_stop, refuse


class SeatOfThread:
    """A seat for each thread that registers something."""

    def __init__(self, registry: Registry) -> None:
        """Takes none yet."""
        self._registry = registry
        self._here = threading.local()

    def register(self, run_id: int, attempt: int, token: bytes, nonce: bytes) -> Record:
        """As `Seat.register` does, on this thread's own. Raises NoSeat."""
        seat: Seat | None = getattr(self._here, "seat", None)
        if seat is None:
            seat = self._here.seat = self._registry.take_seat(in_worker=True)
        return seat.register(run_id, attempt, token, nonce)


class Direct:
    """Stands for the socket between a pool process and the main process."""

    def __init__(self, hear: Callable[[Frame], None]) -> None:
        """hear: the main process's ear."""
        self._hear = hear

    def send(self, kind: int, nonce: bytes, payload: bytes) -> None:
        """The frame arrives at once. The body is not interrupted in the midst of it."""
        with interruption.shielded():
            self._hear(Frame(kind, nonce, payload))


class LoopCalls:
    """What is to be called on the event loop's thread, in the order in which it was asked for."""

    def __init__(self, hub: Any) -> None:
        """hub: Kombu's loop, which is the same one after a reconnect."""
        self._hub = hub
        self._row: deque[Callable[[], Any]] = deque()

    def deferred(self, function: Callable[..., Any]) -> Callable[..., None]:
        """A function for any thread that has this one called on the loop's."""

        def ask(*args: Any, **kwargs: Any) -> None:
            self._row.append(functools.partial(function, *args, **kwargs))
            self._hub.call_soon(self._run)

        return ask

    def _run(self) -> None:
        while self._row:
            call = self._row.popleft()
            try:
                call()
            except Exception:
                logger.exception("what was left to do for a delivery failed")


def hand_to_thread(calls: LoopCalls, straight: Callable[[Any], Any]) -> Callable[[Any], None]:
    """`straight` for the threads pool: what Celery does about a request, it does on the loop's thread."""

    def hand(request: Any) -> None:
        acknowledge_all([request])
        for name in ("on_accepted", "on_success", "on_failure"):
            setattr(request, name, calls.deferred(getattr(request, name)))
        straight(request)

    return hand


def after_acknowledging(hub: Any, wake: Callable[[], None], hand: Callable[[Any], None]) -> Callable[[Any], None]:
    """`hand` for solo: the body runs in the loop's next round but one, when what was acknowledged is on its way.

    wake: let the loop not wait for anything before its next round.
    """

    def later(delivery: Any) -> None:
        acknowledge_all([delivery.request])
        soon(soon, hand, delivery)

    def soon(function: Callable[..., Any], *args: Any) -> None:
        # The loop runs what is ready in no order, acknowledgements of the same round among it.
        hub.call_soon(function, *args)
        wake()

    return later


class _Tracing:
    """`__trace__` of every task."""

    def __get__(self, task: Any, _owner: Any = None) -> Any:
        return None if task is None else vars(task).get("__trace__")

    def __set__(self, task: Any, tracer: Any) -> None:
        vars(task)["__trace__"] = None if tracer is None else permitted_trace(task, tracer)


def _entered(task_id: str, **_: Any) -> None:
    interruption.entered(task_id)


def _left(task_id: str, **_: Any) -> None:
    interruption.left(task_id)
