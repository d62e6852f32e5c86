"""This host's clock agrees with the database's.

Due times, schedules and leases do not suffer when it does not: they go by the database and by monotonic clocks. What
does is everything else that tells the time on this host: logs, tokens, certificates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Final

from django.db import connection
from django.utils.translation import gettext as _

from dispatch.doctor.findings import Finding, Severity

#: More than a well-kept host has; twice what logs of two hosts can be read side by side with.
SKEW_SECONDS: Final = 1.0


class ClockSkew:
    """Compared with the middle of a question to the database. SQLite goes by the host's clock itself."""

    name = "clock_skew"
    needs_database = True

    def __init__(self, host_now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        """host_now: this host's clock."""
        self._host_now = host_now

    def find(self, _now: datetime) -> Iterator[Finding]:
        """See `Check`."""
        if connection.vendor != "postgresql":
            return
        with connection.cursor() as cursor:
            before = self._host_now()
            cursor.execute("SELECT clock_timestamp()")
            there: datetime = cursor.fetchone()[0]
            after = self._host_now()
        skew = (before + (after - before) / 2 - there).total_seconds()
        if abs(skew) > SKEW_SECONDS + (after - before).total_seconds() / 2:
            text = (
                _("This host's clock is %(seconds).1f s ahead of the database's.")
                if skew > 0
                else _("This host's clock is %(seconds).1f s behind the database's.")
            )
            yield Finding(
                "clock_skew.host", Severity.WARNING, text % {"seconds": abs(skew)},
                _("Let a time service (chrony, systemd-timesyncd) keep both clocks."),
            )  # fmt: skip
