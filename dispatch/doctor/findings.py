"""What a check says, and what a check is."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol


class Severity(enum.StrEnum):
    """How bad it is."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong. code never changes; text and remedy are for people, in their language."""

    code: str
    severity: Severity
    text: str
    remedy: str


class Check(Protocol):
    """One look."""

    name: str
    #: False for what can be looked at while the database is away.
    needs_database: bool

    def find(self, now: datetime) -> Iterable[Finding]:
        """What is wrong at this moment, the worst first; nothing when all is well."""
