"""Celery's signals, one function and one call each. `wiring.connect` is the one place that connects them.

Celery logs what a receiver raises and goes on. For the two that put the permit in place that would mean bodies without
a permit, so there a failure ends the process.
"""

from __future__ import annotations

import logging
import os
import time
from typing import Any

from workers_app.execution import outcome
from workers_app.worker_process import WorkerProcess

logger = logging.getLogger(__name__)


def worker_init(sender: Any, **_: Any) -> None:
    """Main process, before the pool is made."""
    try:
        WorkerProcess.prepare(sender)
    except Exception:
        logger.exception("the worker could not be prepared")
        raise SystemExit(1) from None


def worker_process_init(**_: Any) -> None:
    """Pool child, after Celery has built its tracing functions; with solo the main process, as it makes its pool."""
    if WorkerProcess.current().pool.one_process:
        return
    try:
        WorkerProcess.current().attach_child()
    except BaseException:
        logger.exception("a pool process could not be attached; it ends")
        time.sleep(1.0)  # Celery starts another at once
        os._exit(70)


def worker_ready(sender: Any, **_: Any) -> None:
    """Main process, consuming."""
    WorkerProcess.current().start(sender)


def worker_shutting_down(how: str = "Warm", **_: Any) -> None:
    """Main process, SIGTERM or the like: running bodies go on (not in a cold shutdown), nothing new begins."""
    WorkerProcess.current().drain(at_once=how == "Cold")


def worker_shutdown(**_: Any) -> None:
    """Main process, after a warm shutdown."""
    WorkerProcess.current().stop()


def heartbeat_sent(**_: Any) -> None:
    """Main process, every two seconds."""
    WorkerProcess.current().send_heartbeat()


def task_unknown(message: Any, name: str, **_: Any) -> None:
    """Main process: a function that is not registered here."""
    WorkerProcess.current().report_unknown(message, name)


def task_failure(exception: BaseException, einfo: Any, **_: Any) -> None:
    """Pool child, after a body raised (in the main process: a lost child, which `Node` tells by itself)."""
    outcome.failed(exception, str(getattr(einfo, "traceback", "") or ""))


def task_retry(reason: Any, einfo: Any, **_: Any) -> None:
    """Pool child, `self.retry` or `autoretry_for`."""
    outcome.retried(reason, str(getattr(einfo, "traceback", "") or ""))
