"""Keeps a worker from forking while one of its threads is inside SQLite.

SQLite guards its memory by locks that a fork copies as they are. A pool process that is forked while another thread
holds one waits for it for ever, at its first connection, with the run that it has begun (seen: about one fork in a
hundred where pool processes are replaced under load). libpq has no such locks, and a server that is away must not hold
up a fork.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from django.db import connection

#: Rather fork at a bad moment than not at all.
PATIENCE_SECONDS: Final = 5.0

_inside = threading.RLock()
_held = False


def keep() -> None:
    """From now on, for every fork of this process. Once."""
    os.register_at_fork(before=_wait, after_in_parent=_go_on, after_in_child=_begin)


@contextmanager
def inside() -> Iterator[None]:
    """The database is at work in this thread."""
    if connection.vendor != "sqlite":
        yield
        return
    with _inside:
        yield


def _wait() -> None:
    global _held
    _held = _inside.acquire(timeout=PATIENCE_SECONDS)


def _go_on() -> None:
    if _held:
        _inside.release()


def _begin() -> None:
    global _inside
    _inside = threading.RLock()
