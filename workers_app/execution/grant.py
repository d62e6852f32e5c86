"""A permit on its way from the main process to the pool child that will use it.

It travels inside the job that Celery's pool hands over, as an object of the class `Grant`. Jobs are pickled between the
processes of a worker, messages are JSON: no message can bring one, in its headers or in its body's third part, which
Celery mixes into the request. (`strip` only keeps nonsense out of the main process.)

It is good for one start, for a short time, under one incarnation: a pool may drop a job or keep it for long, and the
main process must know from when on nobody can start it any more, without asking.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple
from uuid import UUID

from tasks_app.lifecycle.facts import Permitted
from tasks_app.messages.execution import Ticket

#: Where a job carries it, among the message's headers.
GRANT: Final = "signalbox_grant"


class Grant(NamedTuple):
    """What the child needs, in types that cost nothing to pickle. valid_until_ns is by `boottime_ns`."""

    run_id: int
    attempt: int
    token: bytes
    nonce: bytes
    task_id: int
    task_name: str
    executor: str
    parameters: dict[str, Any]
    timeout_seconds: int
    keep_running: bool
    trace_id: str
    incarnation: bytes
    valid_until_ns: int


def grant_of(permit: Permitted, ticket: Ticket, incarnation: UUID, valid_until_ns: int) -> Grant:
    """The permit as a job carries it."""
    return Grant(
        permit.run_id, permit.attempt, permit.token.bytes, permit.nonce.bytes, permit.task_id, permit.task_name,
        permit.executor, permit.parameters, permit.timeout_seconds, permit.keep_running, ticket.trace_id,
        incarnation.bytes, valid_until_ns,
    )  # fmt: skip


def taken(request: dict[str, Any]) -> Grant | None:
    """The grant that came with a job, taken out of it; None without one, or where something only looks like it."""
    found = request.pop(GRANT, None)
    return found if isinstance(found, Grant) else None


def strip(headers: dict[str, Any]) -> None:
    """Remove what only the main process may put there."""
    headers.pop(GRANT, None)
