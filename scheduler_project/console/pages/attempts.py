"""The attempts of a run as lines of time: waiting, then running, on one scale for all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from tasks_app.models import TaskRun, TaskRunAttempt
from tasks_app.states import RunStatus, is_final


@dataclass(frozen=True)
class Tried:
    """One attempt. The bars are parts of 1000 of the time from the submission until now or the end."""

    number: int
    status: str
    worker: str
    waited_from: datetime
    waited_until: datetime
    started: datetime | None
    ended: datetime | None
    error_type: str
    error: str
    wait_x: int
    wait_width: int
    run_x: int
    run_width: int

    @property
    def wait_end(self) -> int:
        """Where the waiting ends."""
        return self.wait_x + self.wait_width

    @property
    def ms(self) -> int | None:
        """How long its body took, as far as that is known."""
        return int((self.ended - self.started).total_seconds() * 1000) if self.started and self.ended else None

    @property
    def waited_ms(self) -> int:
        """From when it could have begun until it began, was given up, or is looked at."""
        return max(0, int((self.waited_until - self.waited_from).total_seconds() * 1000))


def tried(run: TaskRun, now: datetime) -> list[Tried]:
    """The attempts that ended, in order, and the one that waits or runs."""
    ended = list(run.attempts.order_by("number")[:1000])
    end = run.completed_at or now
    scale = max((end - run.created_at).total_seconds(), 0.001)

    def place(at: datetime) -> int:
        return min(1000, max(0, round(1000 * (at - run.created_at).total_seconds() / scale)))

    lines: list[Tried] = []
    free_at = run.created_at
    for attempt in ended:
        lines.append(_line(attempt, free_at, place))
        free_at = attempt.ended_at
    if not is_final(run.status):
        begun = run.started_at if run.status == RunStatus.RUNNING.value else None
        waits_until = begun or now
        lines.append(
            Tried(
                run.attempt, run.status, run.worker_id, free_at, waits_until, begun, now if begun else None, "", "",
                place(free_at), place(waits_until) - place(free_at), place(waits_until),
                max(4, place(now) - place(begun)) if begun else 0,
            )
        )  # fmt: skip
    return lines


def _line(attempt: TaskRunAttempt, free_at: datetime, place: Callable[[datetime], int]) -> Tried:
    begun = attempt.started_at or attempt.permitted_at or attempt.ended_at
    x = place(begun)
    return Tried(
        attempt.number, attempt.status, attempt.worker_id, free_at, begun, attempt.started_at, attempt.ended_at,
        attempt.error_type, attempt.error_message, place(free_at), max(0, x - place(free_at)), min(x, 996),
        max(4, place(attempt.ended_at) - x),
    )  # fmt: skip
