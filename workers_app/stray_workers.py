"""A plain Celery worker must not take the platform's messages: nothing in it asks for a permit before a body.

Such a worker comes about by `celery -A shop worker -Q task.execution.default`. It is refused at its start.
"""

from __future__ import annotations

from typing import Any

from celery import signals

from tasks_app.messages.execution import QUEUE_PREFIX


def refuse() -> None:
    """From now on, for every worker of this process whose app is not connected."""
    signals.celeryd_after_setup.connect(_look, weak=False, dispatch_uid="signalbox.stray")


def allow() -> None:
    """The app of this process asks for permits."""
    signals.celeryd_after_setup.disconnect(dispatch_uid="signalbox.stray")


def _look(instance: Any, **_: Any) -> None:
    taken = sorted(name for name in instance.app.amqp.queues.consume_from if name.startswith(QUEUE_PREFIX))
    if taken:
        # An Exception would be logged by Celery, and the worker would start.
        raise SystemExit(f"only manage.py run_worker may take runs from {', '.join(taken)}")
