"""The doorbell: tell waiting dispatchers that something became due.

PostgreSQL delivers a NOTIFY when the transaction that sent it commits, so it may be sent at any point of it and is
never heard for rows that were rolled back. SQLite has none: dispatchers poll there.
"""

from __future__ import annotations

from typing import Final

from django.db import connection

CHANNEL: Final = "signalbox_due"
#: What PostgreSQL is told, for those who tell it together with something else.
WAKE_SQL: Final = f"SELECT pg_notify('{CHANNEL}', '')"


def wake_dispatchers() -> None:
    """Wake every dispatcher when the surrounding transaction commits (at once outside of one)."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute(WAKE_SQL)
