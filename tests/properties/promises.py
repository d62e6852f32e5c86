"""What is promised, and what really happened: the abstract model beside the rows.

It never reads a row to learn what should be there. It is told of every answer (submission, permit, cancel), of every
start and end of a body, and of every incarnation that may have lost what it held; then it compares.

The rows are read by plain SQL and not by the product's code.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from django.db import connection

from tasks_app.models import TaskRun, TaskRunAttempt
from tasks_app.states import FINAL, Outcome, RunStatus


class Broken(AssertionError):
    """A promise that did not hold."""


@dataclass(eq=False)
class Body:
    """One execution. ends_at: monotonic deadline. ended: None while it is under way, "killed" with its worker."""

    run_id: int
    attempt: int
    token: UUID
    nonce: UUID
    ends_at: float
    ended: str | None = None

    @property
    def key(self) -> tuple[int, int]:
        """Its attempt."""
        return (self.run_id, self.attempt)


_RUNS: Final = f"SELECT id, status, attempt, completed_at, crash_count FROM {TaskRun._meta.db_table} ORDER BY id"
_ATTEMPTS: Final = (
    f"SELECT id, run_id, number, status, nonce, incarnation_id FROM {TaskRunAttempt._meta.db_table} "
    "WHERE id > %s ORDER BY id"
)


@dataclass
class Promises:
    """The witnesses, and the promises as checks."""

    max_retries: dict[int, int] = field(default_factory=dict)
    quarantine_after: dict[int, int] = field(default_factory=dict)
    #: Run → the nonce that held its permit when a cancel was answered; None when nobody did.
    cancelled: dict[int, UUID | None] = field(default_factory=dict)
    bodies: list[Body] = field(default_factory=list)
    #: Nonces whose permit was given.
    given: set[UUID] = field(default_factory=set)
    #: Nonce → the ends that its worker put down for it.
    said: dict[UUID, set[str]] = field(default_factory=lambda: defaultdict(set))
    #: Incarnations that were killed, shut down, or ended their bodies because their lease was over.
    gone: set[UUID] = field(default_factory=set)
    #: Runs one of whose permits the database forgot: two of their bodies may overlap until the next renewal.
    forgotten: set[int] = field(default_factory=set)
    #: Of each run in a final state, the row.
    final: dict[int, Any] = field(default_factory=dict)
    attempts: dict[tuple[int, int], str] = field(default_factory=dict)
    seen_up_to: int = 0
    starts: Counter[tuple[int, int]] = field(default_factory=Counter)

    # -- what happened ---------------------------------------------------------------------------------------------

    def submitted(self, run_id: int, max_retries: int, quarantine_after: int) -> None:
        """The commit of its submission returned."""
        self.max_retries[run_id], self.quarantine_after[run_id] = max_retries, quarantine_after

    def cancel_answered(self, run_id: int, held_by: UUID | None) -> None:
        """`cancelled` or `requested` was answered; the first answer counts."""
        self.cancelled.setdefault(run_id, held_by)

    def permitted(self, run_id: int, nonce: UUID, *, over: bool) -> None:
        """A permit was given, whether or not its answer arrives. over: the incarnation had been judged before."""
        self.given.add(nonce)
        hold(not over, f"G4: run {run_id} was permitted to an incarnation whose lease is over")
        if run_id in self.cancelled:
            hold(self.cancelled[run_id] == nonce, f"G8: run {run_id} was permitted after its cancel was answered")
        hold(run_id not in self.final, f"G3: run {run_id} was permitted after its end")

    def began(self, body: Body) -> None:
        """A body begins."""
        run_id = body.run_id
        self.starts[body.key] += 1
        others = [other for other in self.bodies if other.run_id == run_id and other.ended is None]
        earlier = sum(count for key, count in self.starts.items() if key[0] == run_id)
        self.bodies.append(body)
        if run_id in self.forgotten:
            return
        hold(self.starts[body.key] == 1, f"G2: attempt {body.key} began twice")
        hold(self.max_retries[run_id] > 0 or earlier == 1, f"G2: run {run_id} has no retries and began twice")
        hold(not others, f"G4: two bodies of run {run_id} at once, attempts {body.attempt} and {_numbers(others)}")

    # -- what the rows say -----------------------------------------------------------------------------------------

    def look(self) -> dict[int, str]:
        """Compare everything with the rows. Returns run → status."""
        with connection.cursor() as cursor:
            cursor.execute(_ATTEMPTS, [self.seen_up_to])
            ended = cursor.fetchall()
            cursor.execute(_RUNS)
            rows = {row[0]: row for row in cursor.fetchall()}
        for row in ended:
            self._look_at_attempt(*row)
        written = Counter(run_id for run_id, _ in self.attempts)
        hold(rows.keys() >= self.max_retries.keys(), f"G1: lost {sorted(self.max_retries.keys() - rows.keys())}")
        for run_id, row in rows.items():
            _, status, attempt, _, crashes = row
            if run_id in self.final:
                hold(row == self.final[run_id], f"G3: a final state was left: {self.final[run_id]}, then {row}")
            elif status in FINAL:
                self.final[run_id] = row
            else:
                hold(attempt == written[run_id] + 1, f"G2: run {run_id} is at {attempt} after {written[run_id]} ends")
                held = crashes < self.quarantine_after[run_id] or status == RunStatus.QUARANTINED.value
                hold(held or attempt > self.max_retries[run_id], f"G9: run {run_id} goes on after {crashes} crashes")
            hold(attempt <= self.max_retries[run_id] + 1, f"G2: run {run_id} is at attempt {attempt}")
        return {run_id: row[1] for run_id, row in rows.items()}

    def _look_at_attempt(
        self, row_id: int, run_id: int, number: int, status: str, nonce: Any, incarnation: Any
    ) -> None:
        nonce, incarnation = _uuid(nonce), _uuid(incarnation)
        self.seen_up_to = row_id
        hold((run_id, number) not in self.attempts, f"G3: attempt {(run_id, number)} ended twice")
        self.attempts[run_id, number] = status
        hold(nonce in self.given, f"G2: attempt {(run_id, number)} is {status} and was never permitted")
        if run_id in self.forgotten:
            return
        bodies = [body for body in self.bodies if body.key == (run_id, number)]
        hold(
            all(body.ended is not None for body in bodies),
            f"G4: attempt {(run_id, number)} is {status} while its body runs",
        )
        ends = self.said[nonce]
        held = (
            status in ends
            or (status in (Outcome.LOST.value, Outcome.TIMEOUT.value) and incarnation in self.gone)
            or (status == Outcome.CANCELLED.value and run_id in self.cancelled)
        )
        hold(held, f"G3, G7: attempt {(run_id, number)} is {status}; its worker said {sorted(ends) or 'nothing'}")


#: Promises that were found broken, in the words of `hold`; the first one is what an example was about.
found: list[str] = []


def hold(held: bool, promise: str) -> None:
    """Raises Broken."""
    if not held:
        found.append(promise)
        raise Broken(promise)


def _uuid(value: Any) -> UUID | None:
    # SQLite keeps them as text.
    return UUID(value) if isinstance(value, str) else value


def _numbers(bodies: list[Body]) -> str:
    return ", ".join(str(body.attempt) for body in bodies)
