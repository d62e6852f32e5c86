"""What was measured with what."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path

import amqp
import psycopg

from tests.benchmarks.contenders import Servers

PACKAGES = (
    "celery", "kombu", "amqp", "redis", "billiard", "Django", "psycopg", "django-celery-results",
)  # fmt: skip


def all_of_them(servers: Servers) -> dict[str, str]:
    """Name → version, the machine's included."""
    found = {"Python": platform.python_version()}
    found |= {name: version(name) for name in PACKAGES}
    with psycopg.connect(servers.postgres.url) as connection:
        row = connection.execute("SHOW server_version").fetchone()
        found["PostgreSQL"] = str(row[0]).split()[0] if row else "unknown"
    link: amqp.Connection = servers.rabbitmq.connect()
    try:
        found["RabbitMQ"] = str(link.server_properties.get("version", "unknown"))
        found["Erlang"] = str(link.server_properties.get("platform", "unknown")).removeprefix("Erlang/OTP ")
    finally:
        link.close()
    found["Redis"] = servers.redis.version()
    found["kernel"] = platform.release()
    found["processor"] = f"{_processor()}, {len(os.sched_getaffinity(0))} cores"
    found["memory"] = f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB"
    return found


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
