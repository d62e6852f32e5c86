"""Names of the harness's functions by what they can be used for; importable without Celery."""

from __future__ import annotations

from typing import Final

SUCCEEDING: Final = (
    "faults.plain",
    "faults.bound",
    "faults.own_base",
    "faults.own_call",
    "faults.own_before_start",
    "faults.autoretry",
    "faults.retries",
)
FAILING: Final = ("faults.bound", "faults.autoretry", "faults.retries", "faults.own_call")
