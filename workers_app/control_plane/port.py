"""The control-plane port: everything that a worker may ask, as data in and data out.

A call that cannot be answered now raises `Unreachable`; the caller decides whether to try again. Nothing else is
raised for reasons outside the caller's control.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol
from uuid import UUID

from tasks_app.lifecycle.facts import HandBack, PermitAsk, Permitted, Refused
from tasks_app.lifecycle.recede import Held


class Unreachable(ConnectionError):
    """The control plane did not answer; what was asked may or may not have been done."""


@dataclass(frozen=True, slots=True)
class Hello:
    """A worker's introduction at its start."""

    worker_id: str
    task_types: Sequence[str]
    functions: Sequence[str]
    labels: dict[str, str]
    slots: int
    pool: str
    host: str
    pid: int
    code_version: str


@dataclass(frozen=True, slots=True)
class Renewal:
    """One renewal: the lists are one snapshot, taken before it is sent.

    running: permit answered, outcome not yet on the finished list. finished: ended, not known to be recorded.
    registered: nonces that asked or are about to ask. draining: the worker shuts down and takes no more work.
    """

    running: Sequence[Held]
    finished: Sequence[Held]
    registered: Sequence[UUID]
    draining: bool = False


@dataclass(frozen=True)
class RenewalAnswer:
    """alive: False when the lease was judged over, nothing else counts then. drain: asked to take no more work.

    void, stops, recorded by nonce and unknown: see `tasks_app.lifecycle.recede.Reasserted`.
    """

    alive: bool
    drain: bool = False
    void: frozenset[UUID] = frozenset()
    stops: dict[UUID, str] = field(default_factory=dict)
    recorded: frozenset[UUID] = frozenset()
    unknown: Sequence[Held] = ()


class ControlPlane(Protocol):
    """What a worker may ask."""

    def register(self, hello: Hello) -> UUID:
        """A new incarnation of this worker; its lease begins now."""

    def permit(self, incarnation_id: UUID, asks: Sequence[PermitAsk]) -> list[Permitted | Refused]:
        """Permission to begin, in the order asked."""

    def renew(self, incarnation_id: UUID, renewal: Renewal) -> RenewalAnswer:
        """Raise the lease counter and compare lists."""

    def hand_back(self, returned: Sequence[HandBack]) -> None:
        """Give up deliveries whose body never began."""

    def hand_in(self, incarnation_id: UUID, reports: Sequence[dict[str, Any]]) -> None:
        """Apply finish reports directly (the way round a broker or ingest that does not work)."""

    def goodbye(self, incarnation_id: UUID) -> None:
        """End the incarnation cleanly; anything it still held is lost at once."""
