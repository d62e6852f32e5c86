"""Configuration section "dispatch": the dispatcher's and the ingest's pace."""

from __future__ import annotations

from dataclasses import dataclass

from tasks_app.messages.compression import ABOVE_BYTES
from tasks_app.sections import accessor, require_positive


@dataclass(frozen=True)
class DispatchSettings:
    """Everything that dispatchers and ingests can be told."""

    #: Longest wait between two looks at the database when nobody rings; also the pace of schedules.
    tick_seconds: float = 1.0
    #: Wait between looks where the database cannot ring (SQLite).
    poll_seconds: float = 0.1
    reaper_tick_seconds: float = 2.0
    claim_batch_max: int = 500
    #: Messages per slot that may wait at the broker while a queue drains fast; a slow queue gets none ahead.
    look_ahead_per_slot_max: int = 64
    #: A message that has not led to a permit for this long is replaced by a new one with a new token.
    permit_within_seconds: float = 60.0
    #: How long past its deadline an attempt may be before the reaper asks for a stop.
    deadline_grace_seconds: float = 5.0
    publish_confirm_seconds: float = 10.0
    #: Messages that are larger than this are compressed (zstd); 0: none.
    compress_above_bytes: int = ABOVE_BYTES
    ingest_batch_max: int = 1000
    ingest_linger_seconds: float = 0.02
    #: Messages (each a batch of reports) that one ingest may hold unacknowledged.
    ingest_prefetch: int = 64

    def __post_init__(self) -> None:
        """Refuse what could not work."""
        require_positive(
            self,
            "tick_seconds",
            "poll_seconds",
            "reaper_tick_seconds",
            "claim_batch_max",
            "look_ahead_per_slot_max",
            "permit_within_seconds",
            "deadline_grace_seconds",
            "publish_confirm_seconds",
            "ingest_batch_max",
            "ingest_linger_seconds",
            "ingest_prefetch",
        )
        if self.compress_above_bytes < 0:
            raise ValueError("compress_above_bytes must be 0 or more")


#: The section as configured; read once a process.
conf = accessor(DispatchSettings, "dispatch")
