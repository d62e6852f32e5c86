"""A process that forks while its threads are at work in SQLite. Prints how many of its children opened the database.

Arguments: the database's path, how many forks, and "keep" to keep it from forking at a bad moment.
"""

from __future__ import annotations

import os
import sqlite3
import sys
import threading
import time
from contextlib import closing

import django

django.setup()

from workers_app.control_plane import quiet_forks  # noqa: E402  (Django comes first)


def use(path: str) -> None:
    with closing(sqlite3.connect(path, timeout=30)) as connection:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchall()


def always(path: str) -> None:
    while True:
        with quiet_forks.inside():
            use(path)


def main(path: str, forks: int, keeps: bool) -> None:
    if keeps:
        quiet_forks.keep()
    for _ in range(3):
        threading.Thread(target=always, args=(path,), daemon=True).start()
    children = []
    for _ in range(forks):
        pid = os.fork()
        if pid == 0:
            use(path)
            os._exit(0)
        children.append(pid)
        time.sleep(0.002)
    opened, give_up = 0, time.monotonic() + 10
    while children and time.monotonic() < give_up:
        pid, _status = os.waitpid(-1, os.WNOHANG)
        if pid:
            children.remove(pid)
            opened += 1
        else:
            time.sleep(0.01)
    for pid in children:
        os.kill(pid, 9)
    print(opened, flush=True)
    os._exit(0)


main(sys.argv[1], int(sys.argv[2]), sys.argv[3:] == ["keep"])
