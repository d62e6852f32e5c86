"""Django's database settings from a URL: `sqlite:///path` or `postgresql://user:password@host:port/name`."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from django.core.exceptions import ImproperlyConfigured

#: A stopped or cut-off process must not hold its siblings up: every session gives up by itself.
_POSTGRES_SESSION = (
    "-c idle_in_transaction_session_timeout=15s -c lock_timeout=10s -c statement_timeout=60s "
    "-c tcp_keepalives_idle=10 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3 -c tcp_user_timeout=15s"
)


def from_url(url: str, *, pool: bool) -> dict[str, Any]:
    """The entry for DATABASES. Raises ImproperlyConfigured for anything but the two forms above."""
    parts = urlsplit(url)
    if parts.scheme == "sqlite":
        # sqlite:///relative and sqlite:////absolute, as everywhere else
        name = unquote(parts.path).removeprefix("/")
        if not name:
            raise ImproperlyConfigured("SIGNALBOX_DATABASE_URL names no file: sqlite:///path")
        return {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": name,
            "CONN_MAX_AGE": None,
            "OPTIONS": {
                "transaction_mode": "IMMEDIATE",
                "timeout": 20,
                "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA busy_timeout=20000;",
            },
        }
    if parts.scheme in {"postgresql", "postgres"}:
        query = dict(parse_qsl(parts.query))
        options: dict[str, Any] = {
            "options": _POSTGRES_SESSION,
            "prepare_threshold": 5,
            "connect_timeout": 5,
            **query,
        }
        if pool:
            options["pool"] = {"min_size": 1, "max_size": 8, "timeout": 10}
        return {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": unquote(parts.path.lstrip("/")) or "signalbox",
            "USER": unquote(parts.username or ""),
            "PASSWORD": unquote(parts.password or ""),
            "HOST": query.pop("host", None) or parts.hostname or "",
            "PORT": str(parts.port or ""),
            "CONN_MAX_AGE": 0 if pool else None,
            "OPTIONS": {key: value for key, value in options.items() if key != "host"},
        }
    raise ImproperlyConfigured(
        f'SIGNALBOX_DATABASE_URL has the scheme "{parts.scheme}"; use sqlite:///path or postgresql://…'
    )
