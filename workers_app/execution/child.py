"""In the pool child: verify, register, ask, run, tell.

`attach` wraps the tracing function (`__trace__`) of every task once Celery has built it in a new child. A message
without our header goes straight through: plain Celery stays plain Celery. A delivery that the main process has verified
and got a permit for brings its grant with it; any other is verified and asked for here.

Where bodies run in threads of the worker's own process, each thread does what a child does (`one_process`).
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, Protocol
from uuid import UUID

from billiard import pool
from billiard.einfo import ExceptionInfo
from celery.app.trace import IGNORED, TraceInfo, trace_ok_t
from celery.exceptions import Ignore
from django.db import close_old_connections, connections

from tasks_app import context
from tasks_app.clock import Clock
from tasks_app.conf import conf as tasks_conf
from tasks_app.crashpoints import reach
from tasks_app.lifecycle.facts import PermitAsk, Permitted, Refused
from tasks_app.messages.execution import HEADER, SHELL_FUNCTION, Refusal, Ticket, call_for
from tasks_app.messages.reports import finish_report, hand_back_report
from tasks_app.messages.signing import KeyRing
from tasks_app.states import Outcome
from workers_app.conf import conf
from workers_app.control_plane.port import ControlPlane
from workers_app.execution import outcome
from workers_app.execution.arrival import ticket_of
from workers_app.execution.asking import answers
from workers_app.execution.channel import FINISH, HAND_BACK, TELEMETRY
from workers_app.execution.grant import Grant, taken
from workers_app.execution.identity import SharedIdentity
from workers_app.execution.outcome import BodyEnd
from workers_app.execution.registry import Record, Registry, boottime_ns
from workers_app.execution.surroundings import around
from workers_app.job import Job, set_current_job
from workers_app.metrics import PERMITS_REFUSED

logger = logging.getLogger(__name__)

Traced = Callable[..., Any]

#: Made once: `json.dumps` with options makes one for each call.
_RESULTS: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False)
_UNCHAINED: Final = {"callbacks": None, "errbacks": None, "chain": None, "chord": None, "group": None}


class Seated(Protocol):
    """A place in the table: the process's one, or that of each thread."""

    def register(self, run_id: int, attempt: int, token: bytes, nonce: bytes) -> Record:
        """As `registry.Seat` does."""


class Teller(Protocol):
    """What a child tells its main process: the socket's end, or whatever stands for it where both are one process."""

    def send(self, kind: int, nonce: bytes, payload: bytes) -> None:
        """One frame, in the order of the calls; from any thread of the child."""


@dataclass
class Child:
    """What a pool child works with. one_process: it is a thread of the worker's own process, one of several."""

    registry: Registry
    seat: Seated
    channel: Teller
    identity: SharedIdentity
    control_plane: ControlPlane
    clock: Clock
    ring: KeyRing
    one_process: bool = False
    #: After any body, managed or not: connections that broke or grew old are not kept.
    after_body: Callable[[], None] = close_old_connections


_child: Child | None = None


def attach(tasks: Iterable[Any], child: Child) -> None:
    """Put the permit before the bodies of these tasks, and make managed retries publish nothing."""
    global _child
    _child = child
    for task in list(tasks):
        if not child.one_process:  # there Celery builds it later, and again after each reconnect
            task.__trace__ = permitted_trace(task, task.__trace__)
        task.signature_from_request = _silent_signature(task, task.signature_from_request)
        task.replace = _refusing_replace(task, task.replace)


def detach() -> None:
    """This process is nobody's child any more: what was attached and is not taken off starts nothing."""
    global _child
    _child = None


def leave_soon_when_draining(registry: Registry) -> None:
    """Let this process end within a second when its worker shuts down.

    A pool process waits at its end until the main process has read all that it said, for up to half a minute. A main
    process that shuts down under load discards jobs that were written already, and never reads what is said about
    them. Outcomes of managed jobs do not go that way (`channel`).
    """
    wait = pool.Worker._ensure_messages_consumed

    def _ensure_messages_consumed(self: Any, completed: int) -> Any:
        if registry.draining:
            pool.GUARANTEE_MESSAGE_CONSUMPTION_RETRY_LIMIT = int(1 / pool.GUARANTEE_MESSAGE_CONSUMPTION_RETRY_INTERVAL)
        return wait(self, completed)

    pool.Worker._ensure_messages_consumed = _ensure_messages_consumed


def permitted_trace(task: Any, inner: Traced) -> Traced:
    """Celery's tracing function of a task, below the permit."""

    def trace(uuid: str, args: Any, kwargs: Any, request: dict[str, Any] | None = None) -> Any:
        if request is None or HEADER not in request:
            try:
                return inner(uuid, args, kwargs, request)
            finally:
                if _child is not None:
                    _child.after_body()
        assert _child is not None
        return _deliver(_child, task, inner, uuid, args, kwargs, request)

    return trace


def _deliver(child: Child, task: Any, inner: Traced, uuid: str, args: Any, kwargs: Any, request: dict[str, Any]) -> Any:
    reach("worker.before_register")
    grant = taken(request)
    if grant is not None:
        return _begin_granted(child, task, inner, uuid, request, grant)
    ticket = ticket_of(request, task.name, args, kwargs, request.get("delivery_info"), child.ring)
    if isinstance(ticket, Refusal):
        return _ignored(ticket.reason)
    nonce = UUID(bytes=secrets.token_bytes(16), version=4)
    with context.bind(
        run_id=ticket.run_id,
        attempt=ticket.attempt,
        worker_id=child.identity.worker_id,
        trace_id=ticket.trace_id,
    ):
        if child.registry.draining or not child.registry.lease_valid():
            _hand_back(child, ticket.run_id, ticket.token, None, "draining" if child.registry.draining else "no lease")
            return _ignored("draining")
        record = child.seat.register(ticket.run_id, ticket.attempt, ticket.token.bytes, nonce.bytes)
        reach("worker.after_register")
        incarnation = child.identity.incarnation_id
        answer = _ask(child, ticket, nonce, incarnation)
        if answer is None:
            record.refuse()
            _hand_back(child, ticket.run_id, ticket.token, nonce, "the control plane did not answer")
            return _ignored("unreachable")
        if isinstance(answer, Refused):
            record.refuse()
            PERMITS_REFUSED.labels(reason=answer.reason).inc()
            logger.info("permit refused", extra={"reason": answer.reason})
            return _ignored(answer.reason)
        start = Start(
            run_id=answer.run_id,
            attempt=answer.attempt,
            token=answer.token,
            nonce=answer.nonce,
            task_name=answer.task_name,
            executor=answer.executor,
            parameters=answer.parameters,
            keep_running=answer.keep_running,
            seconds=(answer.deadline_at - child.clock.now()).total_seconds(),
            incarnation=incarnation.bytes,
        )
        return _run(child, task, inner, uuid, request, start, record)


def _begin_granted(child: Child, task: Any, inner: Traced, uuid: str, request: dict[str, Any], grant: Grant) -> Any:
    """A delivery whose permit the main process has."""
    start = Start(
        run_id=grant.run_id,
        attempt=grant.attempt,
        token=UUID(bytes=grant.token),
        nonce=UUID(bytes=grant.nonce),
        task_name=grant.task_name,
        executor=grant.executor,
        parameters=grant.parameters,
        keep_running=grant.keep_running,
        seconds=float(grant.timeout_seconds),
        incarnation=grant.incarnation,
        valid_until_ns=grant.valid_until_ns,
    )
    with context.bind(
        run_id=grant.run_id, attempt=grant.attempt, worker_id=child.identity.worker_id, trace_id=grant.trace_id
    ):
        if child.registry.draining or not child.registry.lease_valid():
            _hand_back(
                child, start.run_id, start.token, start.nonce, "draining" if child.registry.draining else "no lease"
            )
            return _ignored("draining")
        if child.registry.knows(grant.nonce):
            logger.error("this grant was used before")
            return _ignored("stale")
        record = child.seat.register(grant.run_id, grant.attempt, grant.token, grant.nonce)
        reach("worker.after_register")
        return _run(child, task, inner, uuid, request, start, record)


@dataclass(frozen=True, slots=True)
class Start:
    """What a permit says about the body that may begin. seconds: how long it may take from now.

    incarnation: under which it was asked for. valid_until_ns: how long one that came with the delivery may be used.
    """

    run_id: int
    attempt: int
    token: UUID
    nonce: UUID
    task_name: str
    executor: str
    parameters: dict[str, Any]
    keep_running: bool
    seconds: float
    incarnation: bytes
    valid_until_ns: int | None = None

    def still_good(self, identity: SharedIdentity) -> bool:
        """Whether it may still be used; to be asked when the table says STARTED.

        A worker that was judged over holds a valid lease again as soon as it has registered anew: what it was
        permitted before is somebody else's by then, whatever the lease says.
        """
        in_time = self.valid_until_ns is None or boottime_ns() < self.valid_until_ns
        return in_time and identity.incarnation_id.bytes == self.incarnation


def _ask(child: Child, ticket: Ticket, nonce: UUID, incarnation: UUID) -> Permitted | Refused | None:
    """The control plane's answer; None when it could not be had in time."""
    asks = [PermitAsk(ticket.run_id, ticket.token, nonce)]
    found = answers(child.control_plane, incarnation, asks, worth_it=child.registry.lease_valid)
    return found[0] if found else None


def _run(
    child: Child,
    task: Any,
    inner: Traced,
    uuid: str,
    request: dict[str, Any],
    start: Start,
    record: Record,
) -> Any:
    deadline_ns = boottime_ns() + int(start.seconds * 1e9)
    function, args, kwargs = call_for(start.executor, start.parameters)
    shell = function == SHELL_FUNCTION
    granted = record.grant(deadline_ns, start.keep_running, shell=shell)
    if not granted or not record.start() or not start.still_good(child.identity):
        _hand_back(child, start.run_id, start.token, start.nonce, "no lease, or the grant's time is over")
        record.refuse()
        return _ignored("lease_over")
    reach("worker.before_body")
    job = Job(
        run_id=start.run_id,
        attempt=start.attempt,
        token=str(start.token),
        task_name=start.task_name,
        send=lambda report: _telemetry(child, start.nonce, report),
        stop_reason=record.stop_reason,
        deadline_monotonic=time.monotonic() + start.seconds,
        log_bytes_max=None if shell else conf().log_bytes_max,
        now=lambda: child.clock.now().timestamp(),
    )
    started = child.clock.now().timestamp()
    began = time.monotonic()
    outcome.clear()
    set_current_job(job)
    answer: Any = None
    end: BodyEnd
    surroundings = around(child.one_process, start.nonce.bytes, uuid, function)
    try:
        if function != task.name:
            raise ValueError(f"the permit is for {function!r}, the message named {task.name!r}")
        with surroundings:
            # Nothing that the message hangs on the call is signed: no callbacks, chains or chords.
            answer = inner(uuid, args, kwargs, request | _UNCHAINED)
        end = surroundings.judged(_end_of(answer), record)
        if _would_end_the_worker(answer):
            answer = _ignored("failed")
    except BaseException as error:
        # SystemExit and the like pass through Celery's tracing; the attempt ends all the same.
        end = BodyEnd(Outcome.FAILED, error_type=type(error).__name__, error_message=outcome.described(error, ""))
        _conclude(child, start, record, job, surroundings.judged(end, record, error), started, began)
        if not isinstance(error, Exception) and not child.one_process:
            raise
        return _ignored("failed")
    finally:
        set_current_job(None)
        child.after_body()
    _conclude(child, start, record, job, end, started, began)
    return answer


def _conclude(child: Child, start: Start, record: Record, job: Job, end: BodyEnd, started: float, began: float) -> None:
    """Tell the main process how it ended, then take the attempt off the table."""
    reach("worker.after_effect")
    with contextlib.suppress(Exception):
        job.close()
    duration = time.monotonic() - began
    report = finish_report(
        run_id=start.run_id,
        attempt=start.attempt,
        token=start.token,
        nonce=start.nonce,
        outcome=end.outcome,
        started_at=started,
        duration_seconds=duration,
        result=_result_text(end.result),
        error_type=end.error_type[:200],
        error_message=_cut(end.error_message, tasks_conf().error_bytes_max),
        retryable=end.retryable,
        retry_after_seconds=end.retry_after_seconds,
    )
    child.channel.send(FINISH, start.nonce.bytes, json.dumps(report).encode())
    reach("worker.after_outcome")
    record.finish()


def _would_end_the_worker(answer: Any) -> bool:
    """Celery's main process raises a body's MemoryError once more, and ends by it, with everything that runs there."""
    found = getattr(getattr(answer, "retval", None), "exception", None)
    return isinstance(getattr(found, "exc", found), MemoryError)


def _end_of(answer: Any) -> BodyEnd:
    """How a body ended: by what Celery's tracing answers, and where it failed by the signal that said why.

    Not by a signal where it went well: that would be the dearest part of a short body. And a task that a body calls
    sends the same signals.
    """
    info = answer.info if isinstance(answer, trace_ok_t) else None
    if isinstance(answer, trace_ok_t) and info is None and answer.runtime is not None:
        return BodyEnd(Outcome.COMPLETED, result=answer.retval)
    if (told := outcome.taken()) is not None:
        return told
    state = getattr(info, "state", None)
    if state == IGNORED:
        return BodyEnd(Outcome.COMPLETED)
    reason = getattr(info, "retval", None)
    return BodyEnd(
        Outcome.FAILED,
        error_type=type(reason).__name__ if reason is not None else "Rejected",
        error_message=str(reason)[:1000] if reason is not None else "the task rejected its message",
    )


def _hand_back(child: Child, run_id: int, token: UUID, nonce: UUID | None, reason: str) -> None:
    report = hand_back_report(run_id, token, nonce, reason)
    child.channel.send(HAND_BACK, nonce.bytes if nonce else bytes(16), json.dumps(report).encode())


def _telemetry(child: Child, nonce: UUID, report: dict[str, Any]) -> None:
    child.channel.send(TELEMETRY, nonce.bytes, json.dumps(report).encode())


def _ignored(reason: str) -> Any:
    """What Celery's tracing gives for `Ignore`: the delivery is dropped quietly and never recorded as a failure."""
    try:
        raise Ignore(reason)
    except Ignore as error:
        return trace_ok_t(ExceptionInfo(internal=True), TraceInfo(IGNORED, error), 0.0, None)


def _result_text(result: Any) -> str | None:
    """A result as JSON text; what is not JSON is kept as its text. What a database cannot hold its reader replaces."""
    if result is None:
        return None
    try:
        text = _RESULTS.encode(result)
    except (TypeError, ValueError, RecursionError):
        from kombu.utils.json import dumps

        try:
            text = _RESULTS.encode(json.loads(dumps(result)))
        except Exception:  # noqa: BLE001  (whatever an odd object's encoding raises)
            text = json.dumps({"text": repr(result)[:10_000]}, ensure_ascii=False)
    text = text.encode("utf-8", "replace").decode("utf-8")
    size = len(text.encode())
    if size > tasks_conf().result_bytes_max:
        return json.dumps({"truncated": True, "bytes": size})
    return text


def _cut(text: str, bytes_max: int) -> str:
    data = text.encode("utf-8", "replace")
    return text if len(data) <= bytes_max else data[:bytes_max].decode("utf-8", "ignore") + "\n[cut]"


class _Unsent:
    """Stands for the message that a managed `self.retry` would have published."""

    def __init__(self, args: Any, kwargs: Any) -> None:
        self.args, self.kwargs = args, kwargs

    def apply_async(self, *_: Any, **__: Any) -> None:
        """The lifecycle retries; nothing goes to the broker."""


def _managed(task: Any) -> bool:
    return bool(getattr(task.request, HEADER, None))


def _silent_signature(task: Any, original: Callable[..., Any]) -> Callable[..., Any]:
    def signature_from_request(request: Any = None, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        if _managed(task):
            return _Unsent(args, kwargs)
        return original(request, args, kwargs, **options)

    return signature_from_request


def _refusing_replace(task: Any, original: Callable[..., Any]) -> Callable[..., Any]:
    def replace(*args: Any, **kwargs: Any) -> Any:
        if _managed(task):
            raise NotImplementedError("a managed run cannot replace itself; submit another task instead")
        return original(*args, **kwargs)

    return replace


def forget_inherited_connections() -> None:
    """Drop what the main process had open, without a word on the wire that both would share."""
    for wrapper in connections.all(initialized_only=True):
        raw = wrapper.connection
        if raw is not None and wrapper.vendor == "postgresql":
            with contextlib.suppress(OSError):
                os.close(raw.pgconn.socket)
        wrapper.connection = None
