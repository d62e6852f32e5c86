"""Named points between two effects at which a fault harness may stop a process.

In production `reach` is an empty function. With the environment variable SIGNALBOX_CRASH_DIR set, reaching a point
for which the folder holds a file `armed/<point>` takes that file away (one process wins), writes `fired/<point>.<pid>`
and then does what the file says: `kill` (SIGKILL to itself) or `stop` (SIGSTOP), before its thread goes on. `POINTS`
is the complete list, with what has happened before each.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

POINTS: Final[dict[str, str]] = {
    "submit.after_insert": "run rows inserted, not committed",
    "submit.after_commit": "run rows committed, client not answered",
    "fire.before_commit": "schedule fire, run and next fire written, not committed",
    "claim.before_commit": "runs set DISPATCHED, not committed",
    "claim.after_commit": "runs DISPATCHED, nothing published",
    "publish.after_first": "first message of a batch published",
    "publish.before_confirm": "batch published, confirms not awaited",
    "publish.after_confirm": "batch published and confirmed",
    "permit.before_ask": "deliveries in main with their nonces, permits not asked for",
    "permit.before_commit": "permits written, not committed",
    "permit.after_commit": "permits committed, not answered",
    "permit.before_hand": "permit answered in main, not handed to the pool",
    "worker.before_register": "delivery in a child, not registered",
    "worker.after_register": "child registered, body not begun (or permit not asked for)",
    "worker.before_body": "permit answered, body not begun",
    "worker.after_effect": "body ended, outcome not told to anyone",
    "worker.after_outcome": "outcome told to the main process, record not finished",
    "report.before_flush": "outcomes collected in main, not published",
    "report.after_flush": "outcomes published, not yet confirmed",
    "renew.before": "lease about to be renewed",
    "renew.after": "lease renewed, answer not acted on",
    "ingest.before_commit": "reports applied, not committed",
    "ingest.after_commit": "reports committed, messages not acknowledged",
    "finish.before_dependants": "runs finished, what depends on them not released",
    "reap.before_commit": "lost attempts written, not committed",
    "reap.after_verdict": "a lease judged over, its attempts not yet ended",
    "cancel.after_commit": "cancel committed, worker not told",
}


def _nothing(_point: str) -> None:
    """Outside the harness a crash point does nothing."""


def _armed(folder: Path) -> Callable[[str], None]:
    def reach(point: str) -> None:
        if point not in POINTS:
            raise KeyError(f"crash point {point!r} is not listed")
        armed = folder / "armed" / point
        if not armed.exists():
            return
        fired = folder / "fired" / f"{point}.{os.getpid()}"
        try:
            armed.rename(fired)
        except FileNotFoundError:
            return  # another process won
        action = fired.read_text().strip() or "kill"
        if action == "stop":
            # To this thread: one to the process stops it when another thread takes it up, and this one would go on
            # for another statement or two.
            signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)
        else:
            os.kill(os.getpid(), signal.SIGKILL)

    return reach


_folder = os.environ.get("SIGNALBOX_CRASH_DIR")
reach: Callable[[str], None] = _armed(Path(_folder)) if _folder else _nothing
