"""A permit on its way from the main process to the pool child that will use it.

It travels inside the job that Celery's pool hands over, under a name that no message can bring (`strip`). It is good
for one start, for a short time, under one incarnation: a pool may drop a job or keep it for long, and the main process
must know from when on nobody can start it any more, without asking.
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


def strip(headers: dict[str, Any]) -> None:
    """Remove what only the main process may put there."""
    headers.pop(GRANT, None)
