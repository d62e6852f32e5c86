"""The two processes of this package: what the commands `run_dispatcher` and `run_ingest` start."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable
from typing import Any

from django.db import connections

from dispatch.broker import Broker, from_url
from dispatch.conf import conf
from dispatch.dispatcher import Dispatcher
from dispatch.reaper import Reaper
from tasks_app import planner
from tasks_app.clock import clock
from tasks_app.process_health import Check, serve
from workers_app.celery_app import broker_url
from workers_app.conf import conf as worker_conf

logger = logging.getLogger(__name__)


def run_dispatcher() -> None:
    """A dispatcher with its reaper, until SIGTERM or SIGINT."""
    planner.read_by_index()
    section = conf()
    broker = _broker()
    dispatcher, reaper = Dispatcher(clock, broker, section), Reaper(clock, section, broker=_broker())
    _on_signal(dispatcher.stop)
    checks = {
        "database": check_database,
        "broker": _check(lambda: broker.available),
        "reaper": _check(lambda: reaper.alive),
    }
    health = serve(checks, dispatcher.beat)
    reaper.start()
    try:
        dispatcher.run()
    finally:
        reaper.stop(timeout=2.0)
        if health:
            health.stop()


def run_ingest() -> None:
    """An ingest, until SIGTERM or SIGINT."""
    from dispatch.ingest.ingest import Ingest

    planner.read_by_index()
    section = conf()
    broker = _broker()
    ingest = Ingest(clock, broker.reports(prefetch=section.ingest_prefetch), section)
    _on_signal(ingest.stop)
    health = serve({"database": check_database, "broker": _check(lambda: ingest.connected)}, ingest.beat)
    try:
        ingest.run()
    finally:
        broker.close()
        if health:
            health.stop()


def check_database() -> None:
    """Raises when the database does not answer; on a connection of its own, closed again."""
    own = connections["default"].copy()
    try:
        with own.cursor() as cursor:
            cursor.execute("SELECT 1")
    finally:
        own.close()


def _broker() -> Broker:
    section = conf()
    return from_url(
        broker_url(), confirm_seconds=section.publish_confirm_seconds, queue_type=worker_conf().queue_type,
        compress_above_bytes=section.compress_above_bytes,
    )  # fmt: skip


def _check(condition: Callable[[], bool]) -> Check:
    def check() -> None:
        if not condition():
            raise ConnectionError

    return check


def _on_signal(stop: Callable[[], None]) -> None:
    def handle(_number: int, _frame: Any) -> None:
        stop()

    signal.signal(signal.SIGTERM, handle)
    signal.signal(signal.SIGINT, handle)
