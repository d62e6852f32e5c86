"""What the verbs are told and what they answer. Pure values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from tasks_app.states import Outcome


@dataclass(frozen=True, slots=True)
class Holder:
    """The worker incarnation that asks, and how the database sees that its lease is still good.

    alive_sql is a boolean SQL expression with `alive_params` (in the form of the database in use); a permit is
    given only where it is true at that moment.
    """

    worker_id: str
    incarnation_id: UUID
    alive_sql: str
    alive_params: Sequence[Any] = ()


@dataclass(frozen=True, slots=True)
class PermitAsk:
    """A delivery that wants to begin: the token from its message and a nonce made for this delivery."""

    run_id: int
    token: UUID
    nonce: UUID


@dataclass(frozen=True, slots=True)
class Permitted:
    """The permit. What it carries is authoritative, whatever the message said."""

    run_id: int
    attempt: int
    token: UUID
    nonce: UUID
    task_id: int
    task_name: str
    executor: str
    parameters: dict[str, Any]
    timeout_seconds: int
    keep_running: bool
    permitted_at: datetime
    deadline_at: datetime
    #: A stop that was asked for between the first answer and this one.
    stop_reason: str = ""


@dataclass(frozen=True, slots=True)
class Refused:
    """No permit, and why: `unknown`, `stale`, `cancelled`, `lease_over`."""

    run_id: int
    nonce: UUID
    reason: str


@dataclass(frozen=True, slots=True)
class Finished:
    """How an attempt ended, as its worker says. Times are on the database's clock; result is JSON text or None.

    counts_as_crash: whether a LOST attempt counts towards quarantine; one that a shutdown cut short does not.
    """

    run_id: int
    attempt: int
    token: UUID
    outcome: Outcome
    nonce: UUID | None = None
    worker_id: str = ""
    incarnation_id: UUID | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    duration_ms: int | None = None
    result_json: str | None = None
    error_type: str = ""
    error_message: str = ""
    retryable: bool = True
    retry_after_seconds: float | None = None
    counts_as_crash: bool = True


@dataclass(frozen=True, slots=True)
class HandBack:
    """A delivery that is given up before its body began; uses up no attempt.

    nonce: set when a permit was asked for; None for what was only prefetched.
    """

    run_id: int
    token: UUID
    nonce: UUID | None
    reason: str
