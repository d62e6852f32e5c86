"""Metrics of the web process. Labels are bounded: no address, no user, no id."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Histogram

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

requests = Counter("signalbox_http_requests_total", "Requests that were answered.", ["method", "status"])
request_seconds = Histogram("signalbox_http_request_seconds", "Time from a request to its answer.", ["method"])


def count_request(method: str | None, status: int, seconds: float) -> None:
    """One request more."""
    label = method if method in METHODS else "other"
    requests.labels(label, str(status)).inc()
    request_seconds.labels(label).observe(seconds)
