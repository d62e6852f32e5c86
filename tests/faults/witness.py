"""What the checker is given: plain values, so that each verdict can be tested with a made-up history."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.faults.history import Execution


@dataclass(frozen=True, slots=True)
class Plan:
    """What a submission should lead to when nothing goes wrong.

    fail_first: that many attempts end FAILED. outcome: the run's state at the end. stopped: how an attempt that is
    still running ends (`TIMEOUT`), empty where the body ends by itself. cancelled: the client means to cancel it.
    """

    outcome: str = "COMPLETED"
    fail_first: int = 0
    max_retries: int = 20
    stopped: str = ""
    cancelled: bool = False


@dataclass(frozen=True, slots=True)
class Submission:
    """What a client was told: `said` is ok, failed or unknown; run is known where it is ok."""

    call: str
    said: str
    run: str | None
    plan: Plan
    asked: float = 0.0
    answered: float | None = None


@dataclass(frozen=True, slots=True)
class Cancel:
    """A cancel and its answer: cancelled (at once), requested (it runs), stale (final before), failed or unknown."""

    run: str
    said: str
    asked: float
    answered: float | None


@dataclass(frozen=True, slots=True)
class RunRow:
    """A run as the database has it at the end."""

    id: str
    status: str
    attempt: int
    max_retries: int
    call: str = ""
    scheduled: bool = False


@dataclass(frozen=True, slots=True)
class AttemptRow:
    """An attempt that ended. Times are seconds of the database's clock."""

    run: str
    number: int
    status: str
    incarnation: str = ""
    error_type: str = ""
    permitted: float | None = None
    ended: float = 0.0


@dataclass(frozen=True, slots=True)
class EventRow:
    """A run's event."""

    run: str
    kind: str
    attempt: int
    next: str = ""
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class IncarnationRow:
    """A start of a worker; pid is its main process. Times are seconds of the database's clock."""

    id: str
    worker: str
    pid: int
    lease_seconds: float
    renewed: float
    over: float | None = None
    clean: bool = False


@dataclass(frozen=True, slots=True)
class FireRow:
    """A decision about a nominal time of a schedule."""

    schedule: str
    instant: float
    decision: str
    run: str | None


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that the harness did, on the raw monotonic clock.

    kind: `kill` (SIGKILL, by us or at a crash point), `stop` (SIGSTOP until `until`), `database` (away, or its disk
    full, until `until`), `cut` (one worker's way to the database, until `until`), `broker`, `emptied`, `clock`,
    `answer`. pid: the process it hit; main: that of the worker it belongs to, where it does. database_clock: what to
    add then for the database's clock, which drifts against the raw one.
    """

    kind: str
    at: float
    until: float | None = None
    pid: int = 0
    main: int = 0
    note: str = ""
    database_clock: float = 0.0

    @property
    def seconds(self) -> float:
        """How long it lasted; 0 for an instant."""
        return 0.0 if self.until is None else self.until - self.at


@dataclass(frozen=True)
class Witnesses:
    """Everything that is known about one round.

    observed: (run, final state) as seen while it went on, to find a final state that was left. hold_seconds: after
    that long without the control plane a worker ends its bodies. overlap_seconds: what the margin allows.
    """

    executions: Sequence[Execution] = ()
    submissions: Sequence[Submission] = ()
    cancels: Sequence[Cancel] = ()
    runs: Sequence[RunRow] = ()
    attempts: Sequence[AttemptRow] = ()
    events: Sequence[EventRow] = ()
    incarnations: Sequence[IncarnationRow] = ()
    fires: Sequence[FireRow] = ()
    faults: Sequence[Fault] = ()
    observed: Sequence[tuple[str, str]] = ()
    hold_seconds: float = 9.0
    overlap_seconds: float = 1.0


#: Verdict kinds and what each means; the order of every table.
KINDS: dict[str, str] = {
    "lost": "a submission that was answered ok has no run",
    "stuck": "a run is in no final state at the end",
    "double_starts": "an attempt, or a run without retries, began twice",
    "double_finals": "an attempt ended twice, or a final state was left",
    "false_losses": "an attempt is LOST and no fault explains it, or its lease was not over",
    "overlaps": "a successor ran beside its predecessor for longer than the margin",
    "starts_after_cancel": "an attempt began after its run's cancel was answered",
    "unpermitted_losses": "a run without retries is LOST without a recorded permit",
    "unplanned_ends": "an attempt or a run ended otherwise than its body said",
    "completed_unseen": "a run is COMPLETED and no body says so",
    "unexplained_reruns": "a body ran again and the attempt before it neither failed nor was lost",
    "ghosts": "a submission that was refused has a run",
    "double_fires": "a nominal time has two runs, or was fired without one",
}


@dataclass
class Verdict:
    """What the checker found: violations by kind, and facts that are no violations.

    recoveries: seconds from a fault to the start of the attempt after the one it ended. duplicates: runs whose body
    ran again after a loss, each with what explains it.
    """

    violations: dict[str, list[str]] = field(default_factory=lambda: {kind: [] for kind in KINDS})
    duplicates: list[str] = field(default_factory=list)
    recoveries: list[float] = field(default_factory=list)
    runs: int = 0
    executions: int = 0
    lost_attempts: int = 0
    overlap_seconds_max: float = 0.0

    @property
    def holds(self) -> bool:
        """No violation of any kind."""
        return not any(self.violations.values())

    @property
    def counts(self) -> dict[str, int]:
        """Violations by kind, zero included."""
        return {kind: len(found) for kind, found in self.violations.items()}

    def summary(self) -> str:
        """One line."""
        bad = ", ".join(f"{kind} {count}" for kind, count in self.counts.items() if count) or "no violation"
        return (
            f"{self.runs} runs, {self.executions} executions, {self.lost_attempts} attempts lost, "
            f"{len(self.duplicates)} bodies run again, overlap {self.overlap_seconds_max:.2f} s: {bad}"
        )
