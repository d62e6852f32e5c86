"""What follows an attempt that ended. Pure: the caller brings the facts and the randomness, and writes.

Exponential backoff with a cap and *full jitter*: the delay is drawn evenly from zero to the bound, which spreads
a herd of failures over the whole window instead of moving it on as one (see the comparison of jitter kinds in the
AWS Architecture Blog, "Exponential Backoff And Jitter").
"""

from __future__ import annotations

from dataclasses import dataclass

from tasks_app.states import Outcome, RunStatus


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how late to try again; snapshotted on the run when it is submitted.

    max_retries: attempts after the first one. delay_seconds: bound of the first delay, doubled for each further
    one up to delay_cap_seconds. quarantine_after: worker or child deaths of one run before a person must look.
    """

    max_retries: int
    delay_seconds: float
    delay_cap_seconds: float
    quarantine_after: int


@dataclass(frozen=True, slots=True)
class AttemptEnd:
    """The facts about an attempt that ended, as `decide` needs them."""

    outcome: Outcome
    attempt: int
    crash_count: int
    cancel_requested: bool
    retryable: bool = True
    retry_after_seconds: float | None = None
    counts_as_crash: bool = True


@dataclass(frozen=True, slots=True)
class Next:
    """What the run does now: its new state and, for a retry, the seconds until it is due again."""

    status: RunStatus
    crash_count: int
    delay_seconds: float | None = None


def delay_bound(attempt: int, policy: RetryPolicy) -> float:
    """Longest delay in seconds after the given attempt (1, 2, …) failed."""
    # 2 ** 60 seconds is past any cap; the bound on the exponent keeps the float finite.
    return min(policy.delay_cap_seconds, policy.delay_seconds * 2.0 ** min(attempt - 1, 60))


def decide(end: AttemptEnd, policy: RetryPolicy, jitter: float) -> Next:
    """State after an attempt ended; `jitter` is a number in [0, 1] that the caller drew.

    A user's cancel wins over a retry, but not over a body that completed all the same. A lost attempt (its worker
    or child died) is tried again at once, since waiting would not make the host better, and counts towards
    quarantine; one that failed or timed out waits.
    """
    crashes = end.crash_count + (1 if end.outcome is Outcome.LOST and end.counts_as_crash else 0)
    if end.outcome is Outcome.COMPLETED:
        return Next(RunStatus.COMPLETED, crashes)
    if end.cancel_requested or end.outcome is Outcome.CANCELLED:
        return Next(RunStatus.CANCELLED, crashes)
    if end.outcome is Outcome.LOST and crashes >= policy.quarantine_after and end.attempt <= policy.max_retries:
        return Next(RunStatus.QUARANTINED, crashes)
    if not end.retryable or end.attempt > policy.max_retries:
        return Next(RunStatus(end.outcome.value), crashes)
    if end.outcome is Outcome.LOST:
        return Next(RunStatus.PENDING, crashes, 0.0)
    if end.retry_after_seconds is not None:
        return Next(RunStatus.PENDING, crashes, max(0.0, end.retry_after_seconds))
    return Next(RunStatus.PENDING, crashes, delay_bound(end.attempt, policy) * jitter)
