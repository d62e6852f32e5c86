"""How a body ended, as Celery's own signals say it: one function a signal, connected in `celery_signals`.

The receivers run in the pool child, inside the tracing function, and put the end into a box of the thread; `child`
takes it out. `Reject` and `Ignore` have no signal in the child: they come from the tracing function's answer.

Any exception may say by `retryable` and `retry_after_seconds` whether and when to try again (docs/embedding.md); what
is of another type was meant for somebody else.
"""

from __future__ import annotations

import sys
import threading
import traceback
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from tasks_app.states import Outcome
from workers_app.execution.interruption import Interruption
from workers_app.job import BodyStopped


@dataclass(frozen=True, slots=True)
class BodyEnd:
    """How a body ended. retry_after_seconds: what `self.retry(countdown=…)` asked for."""

    outcome: Outcome
    result: Any = None
    error_type: str = ""
    error_message: str = ""
    retry_after_seconds: float | None = None
    retryable: bool = True


#: What a body that was ended for one of these reasons has come to: outcome, error type, error message.
STOPPED: Final = {
    "cancel": (Outcome.CANCELLED, "Cancelled", "cancelled by request"),
    "timeout": (Outcome.TIMEOUT, "Timeout", "ran longer than its timeout"),
    "lease": (Outcome.LOST, "LeaseOver", "the worker could not renew its lease and ended the body"),
    "drain": (Outcome.LOST, "WorkerDrained", "the worker was shut down before the body ended"),
}


class _Box(threading.local):
    end: BodyEnd | None = None


_box = _Box()


def clear() -> None:
    """Forget the last end; before a body."""
    _box.end = None


def taken() -> BodyEnd | None:
    """The end that a signal told since `clear`, if any."""
    return _box.end


def failed(exception: BaseException, text: str) -> None:
    """`task_failure`; text is the traceback."""
    # The platform's own exceptions alone: anybody's may have an attribute of that name.
    ours = isinstance(exception, BodyStopped | Interruption)
    stopped = STOPPED.get(str(getattr(exception, "stop_reason", ""))) if ours else None
    retryable = getattr(exception, "retryable", True)
    _box.end = BodyEnd(
        stopped[0] if stopped else Outcome.FAILED,
        error_type=type(exception).__name__,
        error_message=described(exception, text),
        retry_after_seconds=_number(getattr(exception, "retry_after_seconds", None)),
        retryable=retryable if isinstance(retryable, bool) else True,
    )


def retried(reason: Any, text: str) -> None:
    """`task_retry`: `self.retry` or `autoretry_for`; becomes the lifecycle's retry."""
    cause = getattr(reason, "exc", None) or reason
    _box.end = BodyEnd(
        Outcome.FAILED,
        error_type=type(cause).__name__,
        error_message=described(cause, text),
        retry_after_seconds=_seconds(getattr(reason, "when", None)),
    )


def stopped_by(reason: str, text: str) -> BodyEnd:
    """The end of a body that the platform interrupted; text says where it was."""
    outcome, error_type, message = STOPPED[reason]
    return BodyEnd(outcome, error_type=error_type, error_message=f"{message}\n\n{text}".strip())


def described(exception: BaseException, text: str) -> str:
    """First line: the exception; below it the traceback."""
    head = "".join(traceback.format_exception_only(type(exception), exception)).strip()
    return f"{head}\n\n{text}".strip() if text else head


def _seconds(when: Any) -> float | None:
    if isinstance(when, datetime):
        moment = when if when.tzinfo else when.replace(tzinfo=UTC)
        return max(0.0, (moment - datetime.now(UTC)).total_seconds())
    return _number(when)


def _number(value: Any) -> float | None:
    """As finite seconds; None for what is none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= sys.float_info.max:
        return None
    return float(value)
