"""The states of a run and the moves between them: the one copy that everything else reads."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class RunStatus(StrEnum):
    """State of a TaskRun; the value is what the database, the API and the console show."""

    PENDING = "PENDING"
    DISPATCHED = "DISPATCHED"
    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    TIMEOUT = "TIMEOUT"
    CANCELLED = "CANCELLED"
    SKIPPED = "SKIPPED"
    LOST = "LOST"
    QUARANTINED = "QUARANTINED"


S = RunStatus

#: verb -> {state before: states after}. A verb that is not listed for a state is refused there.
TRANSITIONS: Final[dict[str, dict[RunStatus, frozenset[RunStatus]]]] = {
    "claim": {S.PENDING: frozenset({S.DISPATCHED})},
    "permit": {S.DISPATCHED: frozenset({S.RUNNING})},
    "return": {S.DISPATCHED: frozenset({S.PENDING}), S.RUNNING: frozenset({S.PENDING, S.CANCELLED})},
    "finish": {
        # DISPATCHED: the permit was given and then lost by a database that crashed; the token proves it.
        source: frozenset({S.COMPLETED, S.FAILED, S.TIMEOUT, S.CANCELLED, S.LOST, S.PENDING, S.QUARANTINED})
        for source in (S.DISPATCHED, S.RUNNING)
    },
    "cancel": {
        S.PENDING: frozenset({S.CANCELLED}),
        S.DISPATCHED: frozenset({S.CANCELLED}),
        S.QUARANTINED: frozenset({S.CANCELLED}),
    },
    "skip": {S.PENDING: frozenset({S.SKIPPED})},
    "release": {S.QUARANTINED: frozenset({S.PENDING})},
}

FINAL: Final[frozenset[RunStatus]] = frozenset({S.COMPLETED, S.FAILED, S.TIMEOUT, S.CANCELLED, S.SKIPPED, S.LOST})
ACTIVE: Final[frozenset[RunStatus]] = frozenset(RunStatus) - FINAL
#: States in which a message for the run, or a body, may exist somewhere.
IN_FLIGHT: Final[frozenset[RunStatus]] = frozenset({S.DISPATCHED, S.RUNNING})


class Outcome(StrEnum):
    """How an attempt ended; the subset of states that a TaskRunAttempt can have."""

    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    TIMEOUT = "TIMEOUT"
    CANCELLED = "CANCELLED"
    LOST = "LOST"


def is_final(status: str) -> bool:
    """True when a run in this state can never move again."""
    return status in FINAL


def may_move(verb: str, before: str, after: str) -> bool:
    """Whether the diagram has an arrow `before` -> `after` under this verb."""
    return after in TRANSITIONS[verb].get(RunStatus(before), frozenset())
