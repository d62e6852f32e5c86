"""Connects a Celery app to this package: signals and remote control commands. Twice is once."""

from __future__ import annotations

from celery import Celery, signals

from workers_app import celery_signals, stray_workers
from workers_app.conf import conf
from workers_app.event_pace import EventPace
from workers_app.execution.reception import DeskAtLoop

_MODULES = ("workers_app.executors.tasks",)
CONNECTED = (
    "worker_init",
    "worker_process_init",
    "worker_ready",
    "worker_shutting_down",
    "worker_shutdown",
    "heartbeat_sent",
    "task_unknown",
    "task_failure",
    "task_retry",
)


def connect(app: Celery) -> None:
    """Connect everything. `heartbeat_sent` must be connected before a worker is made: its sender captures receivers."""
    from workers_app import remote_control  # noqa: F401  (registers its commands)

    app.conf.imports = list(dict.fromkeys([*_MODULES, *conf().imports, *(app.conf.imports or ())]))
    app.steps["consumer"].update((EventPace, DeskAtLoop))
    stray_workers.allow()
    for name in CONNECTED:
        getattr(signals, name).connect(getattr(celery_signals, name), weak=False, dispatch_uid=f"signalbox.{name}")
