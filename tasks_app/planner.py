"""How PostgreSQL is asked to plan in the platform's own processes: once a statement, and by index, never by table.

Every statement of a dispatcher, an ingest or a worker's main process names its rows by an indexed key, so that one plan
is right for any values: planned anew for each call, some of them take as long to plan as to carry out. PostgreSQL keeps
plans for as long as a connection lasts; one that was made while a table was nearly empty reads the whole of it, and
goes on doing so while the table grows, until the next ANALYZE (seen: three milliseconds for a permit of six runs, most
of a burst's database time). Bitmaps are out for another reason: rows leave the indexes of what is pending, dispatched
and running all the time, and only a plain index scan marks what it finds dead, so that the next one need not look at it
again (seen: a millisecond and more a round after some thousand runs, until the next VACUUM).

Web processes and pool children, which ask other things, are left alone, and so are threads of bodies in the process of
a worker.
"""

from __future__ import annotations

import threading
from typing import Any

from django.db.backends.signals import connection_created

_UID = "signalbox.planner"


#: Begins the names of the platform's own threads.
OWN_THREADS = "signalbox-"

_only_own_threads = False


def read_by_index(*, only_own_threads: bool = False) -> None:
    """For each connection that this process, or only the platform's own threads in it, opens from now on."""
    global _only_own_threads
    _only_own_threads = only_own_threads
    connection_created.connect(_plan_once_by_index, weak=False, dispatch_uid=_UID)


def read_as_planned() -> None:
    """As PostgreSQL likes it again, for connections from now on; for a process that inherited the other."""
    connection_created.disconnect(dispatch_uid=_UID)


def _plan_once_by_index(connection: Any, **_: Any) -> None:
    if _only_own_threads and not threading.current_thread().name.startswith(OWN_THREADS):
        return
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute(
                "SET enable_seqscan = off; SET enable_bitmapscan = off; SET jit = off; "
                "SET plan_cache_mode = force_generic_plan"
            )
