"""What tests ask about a SQLite file that others use: one process at a time holds the lock of the whole file."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path


def writable(path: str | Path) -> bool:
    """Whether somebody could write within a second."""
    with contextlib.closing(sqlite3.connect(path, timeout=1, isolation_level=None)) as connection:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return False
        connection.execute("ROLLBACK")
        return True
