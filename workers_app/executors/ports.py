"""What an executor needs of the attempt that it carries out."""

from __future__ import annotations

from typing import Protocol


class Job(Protocol):
    """One attempt. `workers_app.job.Job` is one; so is whatever a test makes."""

    run_id: int
    attempt: int
    #: `run_id:attempt`.
    idempotency_key: str

    def log(self, stream: str, text: str) -> None:
        """Add text to the run's log; stream is stdout, stderr or system."""

    def stop_requested(self) -> str | None:
        """Why it should stop (cancel, timeout, lease, drain), or None. Must be cheap: asked often."""

    def remaining_seconds(self) -> float | None:
        """Seconds until the deadline, negative after it; None when there is none."""
