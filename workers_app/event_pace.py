"""Flushes Celery's task events a few times a second instead of once a round of the event loop.

Celery buffers them and flushes in the very next round: under load that is one message for two or three events, and a
quarter of the main process's time (measured). Flower shows them a moment later; nothing here relies on them.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

from celery import bootsteps
from celery.worker.consumer.events import Events

FLUSH_SECONDS: Final = 0.25
BUFFERED_MAX: Final = 500


class EventPace(bootsteps.StartStopStep):
    """A step of Celery's consumer, started again after each reconnect, which makes a new dispatcher."""

    requires: ClassVar = (Events,)

    def start(self, parent: Any) -> None:
        """Take the flush out of the event loop's every round; a timer does it."""
        events = parent.event_dispatcher
        if parent.hub is None or events is None:
            return
        events.on_send_buffered = None
        events.buffer_limit = BUFFERED_MAX
        # Cancelled with all timers when the connection is lost.
        parent.timer.call_repeatedly(FLUSH_SECONDS, events.flush)

    def stop(self, parent: Any) -> None:
        """What is left goes out, as far as the connection lasts."""
