"""Whether anybody answers at the broker's address; cheap enough for a page that people look at."""

from __future__ import annotations

import socket
import threading
import time
from typing import Final
from urllib.parse import urlsplit

from workers_app.celery_app import broker_url

TRUST_SECONDS: Final = 5.0
CONNECT_SECONDS: Final = 0.5
_PORTS: Final = {
    "amqp": 5672, "pyamqp": 5672, "amqps": 5671, "redis": 6379, "rediss": 6379, "redis-stream": 6379,
    "rediss-stream": 6379,
}  # fmt: skip

_lock = threading.Lock()
_seen: dict[tuple[str, int], tuple[float, bool]] = {}


def unreachable() -> str | None:
    """The broker's address if nobody accepts connections there, else None. An answer is trusted for some seconds."""
    parts = urlsplit(broker_url())
    address = (parts.hostname or "127.0.0.1", parts.port or _PORTS.get(parts.scheme, 5672))
    with _lock:
        at, accepts = _seen.get(address, (float("-inf"), True))
        if time.monotonic() - at > TRUST_SECONDS:
            accepts = _accepts(address)
            _seen[address] = (time.monotonic(), accepts)
    return None if accepts else f"{address[0]}:{address[1]}"


def _accepts(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address, timeout=CONNECT_SECONDS).close()
    except OSError:
        return False
    return True
