"""All checks, one after the other."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from django.db import Error as DatabaseFailure
from django.utils.translation import gettext as _

from dispatch.doctor.broker import Broker
from dispatch.doctor.cache import Cache
from dispatch.doctor.clock_skew import ClockSkew
from dispatch.doctor.configuration import Configuration
from dispatch.doctor.database import Database
from dispatch.doctor.findings import Check, Finding, Severity
from dispatch.doctor.silent_roles import SilentRoles
from dispatch.doctor.stuck_runs import StuckRuns
from dispatch.doctor.unserved_queues import UnservedQueues
from dispatch.doctor.version_skew import VersionSkew
from tasks_app.clock import Clock

logger = logging.getLogger(__name__)

#: The database first: without it the others have nothing to look at.
CHECKS: Final[tuple[Check, ...]] = (
    Database(), Broker(), Cache(), ClockSkew(), Configuration(), SilentRoles(), UnservedQueues(), StuckRuns(),
    VersionSkew(),
)  # fmt: skip


@dataclass
class Examination:
    """looked: names of the checks that could be made. found: by check, in their order."""

    looked: list[str] = field(default_factory=list)
    found: list[tuple[str, Finding]] = field(default_factory=list)

    @property
    def well(self) -> bool:
        """No error; there may be warnings."""
        return all(finding.severity is not Severity.ERROR for _name, finding in self.found)


def examine(clock: Clock, checks: Sequence[Check] = CHECKS) -> Examination:
    """Make every check that can be made."""
    result, database_is_well = Examination(), True
    for check in checks:
        if check.needs_database and not database_is_well:
            continue
        found = _made(check, clock)
        result.looked.append(check.name)
        result.found += [(check.name, finding) for finding in found]
        if isinstance(check, Database):
            database_is_well = not found
    return result


def _made(check: Check, clock: Clock) -> list[Finding]:
    try:
        try:
            now = clock.now()
        except DatabaseFailure:
            if check.needs_database:
                raise
            now = datetime.now(UTC)
        return list(check.find(now))
    except Exception as error:
        # One check that cannot be made must not hide what the others find.
        logger.exception("check failed", extra={"check": check.name})
        text = _("This could not be looked at: %(reason)s") % {"reason": type(error).__name__}
        remedy = _("See the log; the other checks were made.")
        return [Finding(f"{check.name}.failed", Severity.ERROR, text, remedy)]
