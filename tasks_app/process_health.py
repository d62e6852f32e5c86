"""A loopback HTTP server in a thread that says how its process is: /livez, /readyz, /metrics. Every role uses it.

`/livez` fails when the main loop has not beaten for `LIVE_SECONDS`: then only a restart helps. `/readyz` runs named
checks, each with its own result: a role whose database is away is not ready, and is not helped by a restart.
"""

from __future__ import annotations

import http.server
import json
import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from tasks_app.sections import accessor

logger = logging.getLogger(__name__)

LIVE_SECONDS: Final = 30.0

Check = Callable[[], None]


@dataclass(frozen=True)
class HealthSettings:
    """Configuration section "health": where a role says how it is; port 0 is nowhere."""

    host: str = "127.0.0.1"
    port: int = 0

    def __post_init__(self) -> None:
        """Refuse what no socket could be bound to."""
        if not 0 <= self.port <= 65535:
            raise ValueError("port must be 0 to 65535")


conf = accessor(HealthSettings, "health")


class LoopBeat:
    """When the main loop last went round, on the monotonic clock. Safe from any thread."""

    def __init__(self) -> None:
        """A loop that has just begun counts as alive."""
        self._last = time.monotonic()

    def beat(self) -> None:
        """The loop went round."""
        self._last = time.monotonic()

    @property
    def age_seconds(self) -> float:
        """Seconds since the last beat."""
        return time.monotonic() - self._last


class HealthServer:
    """What `serve` started; port 0 was replaced by the port that is really used."""

    def __init__(self, server: http.server.ThreadingHTTPServer) -> None:
        self._server = server
        self.port: int = server.server_address[1]
        self._thread = threading.Thread(target=server.serve_forever, name="signalbox-health", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Answer no more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=5)


def serve(
    checks: Mapping[str, Check],
    heartbeat: LoopBeat,
    *,
    host: str | None = None,
    port: int | None = None,
    live_seconds: float = LIVE_SECONDS,
) -> HealthServer | None:
    """Start the server. checks: name -> function that raises when something is wrong.

    Without `port` it listens where the section "health" says, and nowhere, answering None, when that port is 0. Raises
    OSError for a busy port.
    """
    if port is None:
        section = conf()
        if section.port == 0:
            return None
        host, port = section.host, section.port

    class Handler(http.server.BaseHTTPRequestHandler):
        server_version = "signalbox"
        sys_version = ""
        timeout = 10

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path == "/livez":
                self._answer(*_live(heartbeat, live_seconds))
            elif path == "/readyz":
                self._answer(*_ready(checks))
            elif path == "/metrics":
                self._send(200, CONTENT_TYPE_LATEST, generate_latest())
            else:
                self._answer(404, {"status": "not found"})

        def _answer(self, status: int, content: Mapping[str, object]) -> None:
            self._send(status, "application/json", json.dumps(content).encode() + b"\n")

        def _send(self, status: int, content_type: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Probes every few seconds are no news."""

    class Server(http.server.ThreadingHTTPServer):
        daemon_threads = True
        # A restarted role must not wait for its predecessor's closed connections.
        allow_reuse_address = True

    return HealthServer(Server((host or "127.0.0.1", port), Handler))


def _live(heartbeat: LoopBeat, live_seconds: float) -> tuple[int, dict[str, object]]:
    age = heartbeat.age_seconds
    if age <= live_seconds:
        return 200, {"status": "ok"}
    return 503, {"status": "stuck", "seconds_since_last_beat": round(age, 1)}


def _ready(checks: Mapping[str, Check]) -> tuple[int, dict[str, object]]:
    results: dict[str, str] = {}
    failed = False
    for name, check in checks.items():
        try:
            check()
        except Exception as error:  # noqa: BLE001  (a probe reports whatever is wrong)
            failed = True
            # The kind only: a message may hold an address or a user name.
            results[name] = f"failed: {type(error).__name__}"
        else:
            results[name] = "ok"
    return (503 if failed else 200), {"status": "failed" if failed else "ok", "checks": results}
