"""What cannot be applied is found by halving and set aside; what only cannot be applied *now* is not.

The difference decides whether a report is lost: a database that is away, a deadlock or a lock that was not got in time
passes, so the batch waits and is tried again, for as long as it takes. Anything else is a property of some report.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final, TypeVar

from django.db import Error as DatabaseFailure
from django.db import InterfaceError, OperationalError, connection

from dispatch import metrics
from dispatch.ingest.sorting import Poison
from tasks_app.messages.parsing import storable
from tasks_app.models import PoisonReport

logger = logging.getLogger(__name__)

T = TypeVar("T")

BODY_BYTES_MAX: Final = 16 * 1024
ERROR_BYTES_MAX: Final = 4 * 1024
#: SQLSTATE classes and codes that pass by themselves: connection, transaction rollback, resources, operator, lock.
_PASSING_CLASSES: Final = ("08", "40", "53", "57", "58")
_PASSING_CODES: Final = frozenset({"55P03", "25P03", "25006"})


def passes_by_itself(error: BaseException) -> bool:
    """Whether the same statement may succeed later: the database is away, busy or full, not the report bad."""
    if isinstance(error, InterfaceError):
        return True
    if not isinstance(error, DatabaseFailure):
        return False
    state = getattr(error.__cause__, "sqlstate", None)
    if state is not None:
        return state in _PASSING_CODES or state.startswith(_PASSING_CLASSES)
    # Without a code: psycopg lost the connection, or SQLite is locked or full.
    return isinstance(error, OperationalError)


def halved(items: Sequence[T], apply: Callable[[Sequence[T]], None], set_aside: Callable[[T, Exception], None]) -> None:
    """Apply the items; when that fails for a reason of theirs, apply halves, down to the ones that are at fault.

    Raises what passes by itself.
    """
    if not items:
        return
    try:
        apply(items)
    except Exception as error:
        if passes_by_itself(error):
            raise
        if len(items) == 1:
            set_aside(items[0], error)
            return
        said = f"{type(error).__name__}: {error}"
        logger.warning("batch failed, halving it", extra={"size": len(items), "error": said})
        middle = len(items) // 2
        halved(items[:middle], apply, set_aside)
        halved(items[middle:], apply, set_aside)


def keep(poison: Poison, now: datetime) -> None:
    """Write a poisoned report down, cut to size, and say so. Raises what passes by itself."""
    metrics.POISONED.labels(poison.why).inc()
    logger.error("report set aside", extra={"worker_id": poison.worker_id, "error": poison.error[:500]})
    PoisonReport.objects.create(
        received_at=now,
        worker_id=storable(poison.worker_id, 200)[:200],
        body=storable(poison.body, BODY_BYTES_MAX),
        error=storable(poison.error, ERROR_BYTES_MAX),
    )


def leave_broken_connection() -> None:
    """After a failure: never reuse a connection in an unknown state."""
    connection.close()
