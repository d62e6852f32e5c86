"""`/livez`, `/readyz` and `/metrics` of the web process.

Ready means: submissions are taken. That needs the database; a broker that is away is named and told apart as
"degraded", because what is submitted meanwhile is kept and runs when the broker is back.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

from django.core.cache import cache
from django.db import connection
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from workers_app.celery_app import broker_url

logger = logging.getLogger(__name__)

BROKER_TIMEOUT_SECONDS: Final = 1.0


def check_database() -> None:
    """Raises what the database raises."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        cursor.fetchone()


def check_broker() -> None:
    """Raises what the broker's client raises."""
    from kombu import Connection

    timeout = {"socket_connect_timeout": BROKER_TIMEOUT_SECONDS, "socket_timeout": BROKER_TIMEOUT_SECONDS}
    url = broker_url()
    options = {} if url.startswith("amqp") else timeout
    with Connection(url, connect_timeout=BROKER_TIMEOUT_SECONDS, transport_options=options) as broker:
        broker.ensure_connection(max_retries=1, timeout=BROKER_TIMEOUT_SECONDS, interval_start=0)
        if broker.transport.driver_type != "redis":
            return
        with broker.channel() as channel:
            channel.client.ping()


def check_cache() -> None:
    """Raises what the cache raises."""
    cache.set("signalbox:ready", "1", 10)
    if cache.get("signalbox:ready") != "1":
        raise RuntimeError("does not keep values")


#: name -> (check, whether the web process is of no use without it)
CHECKS: Final[dict[str, tuple[Callable[[], None], bool]]] = {
    "database": (check_database, True),
    "broker": (check_broker, False),
    "cache": (check_cache, False),
}


@never_cache
@require_safe
def livez(_request: HttpRequest) -> HttpResponse:
    """The process answers."""
    return JsonResponse({"status": "ok"})


@never_cache
@require_safe
def readyz(_request: HttpRequest) -> HttpResponse:
    """Each check by name with its time; 503 when submissions cannot be taken."""
    checks: dict[str, dict[str, object]] = {}
    status, code = "ok", 200
    for name, (check, needed) in CHECKS.items():
        began = time.monotonic()
        try:
            check()
        except Exception as error:  # noqa: BLE001  (whatever it raises, it is not ready)
            logger.warning("not ready: %s: %s", name, error)
            checks[name] = {"ok": False, "error": type(error).__name__}
            status = "failed" if needed or status == "failed" else "degraded"
            code = 503 if needed else code
        else:
            checks[name] = {"ok": True}
        checks[name]["ms"] = round((time.monotonic() - began) * 1000, 1)
    return JsonResponse({"status": status, "checks": checks}, status=code)


@never_cache
@require_safe
def metrics(_request: HttpRequest) -> HttpResponse:
    """This process's metrics in Prometheus' text format."""
    return HttpResponse(generate_latest(), content_type=CONTENT_TYPE_LATEST)
