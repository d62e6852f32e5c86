"""The platform in one process and on a clock that stands still: for tests of your own tasks.

    with Platform() as platform:
        platform.define("report", "reports.monthly", kwargs={"month": "2026-11"}, max_retries=2)
        run = platform.trigger("report")
        platform.run_until_idle()
        assert run.status == "COMPLETED"

What is left out is the boundary between processes, and nothing else. Runs are submitted by the services, claimed and
published by the dispatcher, verified, permitted and carried out by the code of a worker's pool process, reported by the
code of its main process, and written down by an ingest; schedules fire and the reaper looks as time goes on. Only the
broker is in memory, the pool process's socket is a call, and what a guardian does by killing is done after the fact: a
body that outlasted its timeout counts as ended by it.

A delivery asks for its own permit (as with `permits="each"`): look-ahead is measured in real time, which would make a
test depend on how fast its machine is. For the same reason a retry waits for the whole of its bound: the jitter is 1.

Everything happens on the caller's thread and database connection, so a test may be inside a transaction that is rolled
back at its end.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Self

from celery import Celery, signals
from celery.app.trace import build_tracer

from dispatch import control, queries
from dispatch.broker.memory import MemoryBroker
from dispatch.conf import conf as dispatch_conf
from dispatch.dispatcher import Dispatcher
from dispatch.doorbell import Doorbell
from dispatch.ingest.ingest import Ingest
from dispatch.reaper import Reaper
from tasks_app import services
from tasks_app.clock import clock as process_clock
from tasks_app.definitions import TaskDefinition
from tasks_app.lifecycle import ending
from tasks_app.messages import reports
from tasks_app.messages.execution import Refusal, WireMessage, body_of
from tasks_app.models import RunLogChunk, Task, TaskRun, TaskRunAttempt
from tasks_app.states import RunStatus, is_final
from workers_app import celery_signals
from workers_app.celery_app import celery_app
from workers_app.conf import conf as workers_conf
from workers_app.control_plane.database import DatabaseControlPlane
from workers_app.control_plane.port import Hello
from workers_app.execution.arrival import ticket_of
from workers_app.execution.channel import FINISH, Frame
from workers_app.execution.child import Child, attach, detach
from workers_app.execution.node import Node
from workers_app.execution.publisher import Publisher
from workers_app.execution.registry import RecordView, Registry, StopReason
from workers_app.functions import registered_functions
from workers_app.job import LogToJob, loggers_of_bodies

#: Deliveries at one instant after which a test is told that its tasks never come to rest.
DELIVERIES_MAX: Final = 10_000
WORKER: Final = "in-this-process"
#: What `attach` and the tracer leave on a Celery task.
_ATTACHED: Final = ("__trace__", "signature_from_request", "replace")


class StandingClock:
    """A clock that stands still until it is moved, forwards only."""

    def __init__(self, instant: datetime) -> None:
        """Begin there."""
        self.instant = instant
        self._began = instant

    def now(self) -> datetime:
        """Where it stands."""
        return self.instant

    def move_to(self, instant: datetime) -> None:
        """Stand there from now on; earlier ones change nothing."""
        self.instant = max(self.instant, instant)

    def monotonic(self) -> float:
        """Seconds since the beginning."""
        return (self.instant - self._began).total_seconds()


@dataclass(frozen=True)
class Watched:
    """A run as it is at each look."""

    id: int

    @property
    def row(self) -> TaskRun:
        """Its row in the database, read now."""
        return TaskRun.objects.get(pk=self.id)

    @property
    def status(self) -> str:
        """PENDING, COMPLETED, FAILED …: see `tasks_app.states`."""
        return str(self.row.status)

    @property
    def result(self) -> Any:
        """What the task returned, as JSON keeps it; None before that."""
        return self.row.result

    @property
    def error_message(self) -> str:
        """The last error with its traceback; empty without one."""
        return self.row.error_message

    @property
    def retry_count(self) -> int:
        """Attempts beyond the first."""
        return self.row.retry_count

    @property
    def attempts(self) -> list[TaskRunAttempt]:
        """The attempts that have ended, in their order."""
        return list(TaskRunAttempt.objects.filter(run=self.id).order_by("number"))

    @property
    def outcomes(self) -> list[str]:
        """How these ended: `["FAILED", "COMPLETED"]` after one retry."""
        return [attempt.status for attempt in self.attempts]

    @property
    def log(self) -> str:
        """All that its attempts printed and logged."""
        chunks = RunLogChunk.objects.filter(run=self.id).order_by("attempt", "seq")
        return "".join(chunks.values_list("text", flat=True))


class Platform:
    """Dispatcher, ingest, reaper and one worker, moved by the test. A context manager, for one thread."""

    def __init__(self, *, start: datetime | None = None, task_types: Sequence[str] | None = None) -> None:
        """Nothing is touched before the context is entered.

        start: where the clock stands first, by default the present. task_types: what the worker takes, by default all.
        """
        self._start, self._task_types = start, task_types
        self._open = ExitStack()
        self._in_body = False

    def __enter__(self) -> Self:
        """Take over the clock of this process, and what is told to workers, until the end."""
        self._clock = StandingClock(self._start or process_clock.now())
        self.broker = MemoryBroker()
        settings = dataclasses.replace(dispatch_conf(), **_AT_ONCE)
        self._dispatcher = Dispatcher(self._clock, self.broker, settings, doorbell=_NoDoorbell())
        self._ingest = Ingest(self._clock, self.broker, settings)
        self._reaper = Reaper(self._clock, settings, broker=self.broker, monotonic=self._clock.monotonic)
        with ExitStack() as entered:
            entered.enter_context(process_clock.replaced_by(self._clock))
            entered.enter_context(_retries_wait_their_bound())
            self._worker = _Worker(celery_app(), self._clock, self.broker)
            entered.callback(self._worker.close)
            entered.enter_context(control.diverted(self._worker.told))
            self._open = entered.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """Give everything back."""
        self._open.close()

    @property
    def now(self) -> datetime:
        """Where the clock stands; `tasks_app.clock.clock` says the same."""
        return self._clock.now()

    # -- runs ----------------------------------------------------------------------------------------------------

    def define(
        self,
        name: str,
        function: str,
        *,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        **more: Any,
    ) -> Task:
        """A task that calls a registered function; `more` are fields of `TaskDefinition`, as `max_retries=2`.

        Raises InvalidTask and DuplicateTask.
        """
        parameters = {"function": function, "args": list(args), "kwargs": dict(kwargs or {})}
        return services.create_task(TaskDefinition(name=name, executor="python", parameters=parameters, **more))

    def trigger(self, task: Task | int | str, parameters: Mapping[str, Any] | None = None, **more: Any) -> Watched:
        """Submit a run of a task; `parameters` are merged over the task's, `more` is for `services.trigger`."""
        target = services.find_task(task) if isinstance(task, str) else task
        return Watched(services.trigger(target, parameters_over=parameters, **more).pk)

    def runs(self, task: str | None = None) -> list[Watched]:
        """All runs, or those of one task, oldest first: also what your own code and schedules have submitted."""
        rows = TaskRun.objects.all() if task is None else TaskRun.objects.filter(task_name=task)
        return [Watched(pk) for pk in rows.order_by("pk").values_list("pk", flat=True)]

    # -- time ----------------------------------------------------------------------------------------------------

    def run_until_idle(self) -> None:
        """Carry out everything that is due now, and what follows from it at once. Time does not pass.

        Raises RuntimeError when it does not come to rest, or when a body calls it.
        """
        if self._in_body:
            raise RuntimeError("a body cannot run the platform that runs it; submit a run and return")
        delivered = 0
        while True:
            self._worker.serve(self._task_types)
            tick = self._dispatcher.tick(self.now)
            messages = self.broker.take()
            for message in messages:
                self._deliver(message)
            delivered += len(messages)
            if delivered > DELIVERIES_MAX:
                raise RuntimeError(f"still busy after {delivered} deliveries: do runs submit runs for ever?")
            if not (self._ingest.step(idle_seconds=0.0) or messages or tick.fired or tick.claimed):
                return

    def advance(self, seconds: float) -> None:
        """Let so much time pass and carry out, each at its own instant, what becomes due: retries, schedules, reaping.

        Called by a body, it is that body that takes so long: it is asked to stop when its timeout is over or when it
        was cancelled, and nothing else runs meanwhile.
        """
        if seconds < 0:
            raise ValueError("time does not go back")
        until = self.now + timedelta(seconds=seconds)
        if self._in_body:
            self._clock.move_to(until)
            self._worker.end_overdue()
            self._look()
            return
        self.run_until_idle()
        while (following := self._next_instant()) is not None and following <= until:
            self._clock.move_to(following)
            self._look()
            self.run_until_idle()
        self._clock.move_to(until)
        self._look()
        self.run_until_idle()

    def finish(self, run: Watched, *, within_seconds: float = 24 * 3600) -> Watched:
        """Let time pass until the run has ended for good or is quarantined; not a moment longer.

        Raises TimeoutError when it has not within so many seconds of the platform's time, or when nothing is to come
        that could end it.
        """
        until = self.now + timedelta(seconds=within_seconds)
        self.run_until_idle()
        while not is_final(status := run.status) and status != RunStatus.QUARANTINED.value:
            following = self._next_instant()
            if following is None or following > until:
                raise TimeoutError(f"run {run.id} is {status} and will not end within {within_seconds} s")
            self.advance((following - self.now).total_seconds())
        return run

    def _look(self) -> None:
        # First the worker, second the reaper: leases are renewed while time passes.
        self._worker.node.renew()
        self._reaper.tick(self.now)
        self._worker.node.renew()

    def _next_instant(self) -> datetime | None:
        """When something happens by itself next; None when nothing will."""
        due = TaskRun.objects.pending().filter(due_at__gt=self.now).order_by("due_at").values_list("due_at", flat=True)
        lost = (
            TaskRun.objects.dispatched().filter(permit_by__gt=self.now).order_by("permit_by")
            .values_list("permit_by", flat=True)
        )  # fmt: skip
        fire = queries.next_fire()
        instants = [due.first(), lost.first(), fire if fire is not None and fire > self.now else None]
        return min((instant for instant in instants if instant is not None), default=None)

    def _deliver(self, message: WireMessage) -> None:
        self._in_body = True
        try:
            self._worker.deliver(message)
        finally:
            self._in_body = False


#: Nothing is waited for: what the loops do at their pace, they do at each round.
_AT_ONCE: Final[dict[str, Any]] = {"tick_seconds": 1e-6, "ingest_linger_seconds": 1e-6}


class _Worker:
    """A worker whose pool process, main process and guardian are this process."""

    def __init__(self, app: Celery, clock: StandingClock, broker: MemoryBroker) -> None:
        """Registers nothing before `serve`."""
        from workers_app.executors import tasks  # noqa: F401  (registers the built-in executors)

        self._app = app
        self._attached: dict[str, dict[str, Any]] = {}
        settings = dataclasses.replace(workers_conf(), permits="each")
        self._control_plane = DatabaseControlPlane(clock, settings.lease_seconds, in_callers_transaction=True)
        hello = Hello(
            worker_id=WORKER, task_types=[], functions=sorted(registered_functions()), labels={}, slots=1,
            pool="inline", host="", pid=os.getpid(), code_version="",
        )  # fmt: skip
        self.node = Node(app, hello, settings, self._control_plane, guard=_NoGuardian)
        self.node.publisher = _ToMemory(self.node, broker)
        self._child = Child(
            registry=self.node.registry, seat=self.node.registry.take_seat(), channel=_Calls(self.node),
            identity=self.node.identity, control_plane=self._control_plane, clock=clock, ring=self.node.ring,
            after_body=_keep_connection,
        )  # fmt: skip
        self._connected = [name for name in ("task_failure", "task_retry") if _connect(name)]

    def close(self) -> None:
        """Take the permit from before the bodies, and give descriptors back. What it did stays in the database."""
        for name, before in self._attached.items():
            kept = vars(self._app.tasks[name])
            for attribute in _ATTACHED:
                kept.pop(attribute, None)
            kept.update(before)
        for name in self._connected:
            getattr(signals, name).disconnect(dispatch_uid=f"signalbox.{name}")
        detach()
        self.node.channel.close()
        os.close(self.node.registry.fd)

    def serve(self, task_types: Sequence[str] | None) -> None:
        """Hold the lease, and take these task types, or those of all tasks; others than before are a new start."""
        wanted = set(task_types) if task_types is not None else set(self._task_types_of_all())
        if not wanted.issubset(self.node.hello.task_types):
            if self.node.hello.task_types:
                self._control_plane.goodbye(self.node.identity.incarnation_id)
            self.node.hello = dataclasses.replace(
                self.node.hello, task_types=sorted(wanted.union(self.node.hello.task_types))
            )
            self.node.register()
        if self.node.hello.task_types:
            self.node.renew()

    def told(self, _messages: Collection[control.Message]) -> None:
        """What operators tell workers only makes them ask sooner."""
        if self.node.hello.task_types:
            self.node.renew()

    def deliver(self, message: WireMessage) -> None:
        """From the message to the report, as the two processes of a worker do it."""
        function = str(message.headers["task"])
        args, kwargs, embed = body_of(message)
        request: dict[str, Any] = {
            **message.headers, "correlation_id": message.properties["correlation_id"], "reply_to": "",
            "delivery_info": {
                "exchange": "", "routing_key": message.queue, "priority": message.properties["priority"],
                "redelivered": False,
            },
            "hostname": control.node_name(WORKER), "args": args, "kwargs": kwargs, "is_eager": False, **embed,
        }  # fmt: skip
        task = self._app.tasks.get(function)
        if task is None:
            ticket = ticket_of(message.headers, function, args, kwargs, request["delivery_info"], self.node.ring)
            if not isinstance(ticket, Refusal):
                self.node.report_unknown(ticket, function)
        else:
            self._attach(task)
            try:
                with _logging_to_the_run():
                    task.__trace__(request["id"], args, kwargs, request)
            except SystemExit:
                pass  # ends a pool process, and the attempt with it: that is reported by now
        self.node.publisher.flush()

    def end_overdue(self) -> None:
        """What a guardian does when a deadline is over: here the body can only be asked."""
        now = process_clock.now()
        for nonce, view in self.node.stopping.active().items():
            if TaskRun.objects.filter(pk=view.run_id, nonce=nonce, deadline_at__lte=now).exists():
                self.node.registry.request_stop(view.nonce, StopReason.TIMEOUT)

    def _attach(self, task: Any) -> None:
        if task.name in self._attached:
            return
        self._attached[task.name] = {key: value for key, value in vars(task).items() if key in _ATTACHED}
        task.__trace__ = build_tracer(
            task.name, task, self._app.loader, control.node_name(WORKER), app=self._app
        )  # fmt: skip
        attach([task], self._child)

    @staticmethod
    def _task_types_of_all() -> list[str]:
        return list(Task.objects.live().order_by().values_list("task_type", flat=True).distinct())


def _connect(name: str) -> bool:
    """Connect a signal as `wiring` does. False where that was done before, by the app that is tested."""
    signal, uid = getattr(signals, name), f"signalbox.{name}"
    before = signal.disconnect(dispatch_uid=uid)
    signal.connect(getattr(celery_signals, name), weak=False, dispatch_uid=uid)
    return not before


def _keep_connection() -> None:
    """A pool process gives up a connection in an odd state after each body; here it is the test's, mid-transaction."""


class _Calls:
    """Stands for the socket between pool process and main process."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def send(self, kind: int, nonce: bytes, payload: bytes) -> None:
        """The frame arrives at once."""
        overdue = self._overdue(nonce) if kind == FINISH else None
        if overdue is not None:
            self._node.bury(overdue)  # its guardian would have ended it before it could say this
        else:
            self._node.hear(Frame(kind, nonce, payload))

    def _overdue(self, nonce: bytes) -> RecordView | None:
        return next(
            (
                view for view in self._node.registry.snapshot()
                if view.nonce == nonce and view.stop_reason is StopReason.TIMEOUT
            ),
            None,
        )  # fmt: skip


class _ToMemory(Publisher):
    """Publishes to the broker in memory, and when it is told to."""

    def __init__(self, node: Node, broker: MemoryBroker) -> None:
        settings = node.settings
        super().__init__(
            node.app, node.outbox, node.identity, node.ring, flush_seconds=settings.report_flush_seconds,
            batch_max=settings.report_batch_max,
        )  # fmt: skip
        self._broker = broker

    def publish(self, _key: str, headers: dict[str, Any], body: bytes, _delivery_mode: int) -> None:
        """One batch of reports."""
        self._broker.put_report(reports.QUEUE, headers, body)


class _NoDoorbell(Doorbell):
    """Nobody waits, so nobody has to be woken."""

    rings = False

    def __init__(self) -> None:
        """Opens nothing."""


class _NoGuardian:
    """Nobody is killed in a test's own process."""

    def __init__(self, _registry: Registry) -> None:
        """Watches nothing."""

    def alive(self) -> bool:
        """Always."""
        return True

    def stop(self) -> None:
        """Nothing to end."""


@contextmanager
def _logging_to_the_run() -> Iterator[None]:
    handler, loggers = LogToJob(), loggers_of_bodies()
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)


@contextmanager
def _retries_wait_their_bound() -> Iterator[None]:
    before = ending.draw_jitter
    ending.draw_jitter = lambda: 1.0
    try:
        yield
    finally:
        ending.draw_jitter = before
