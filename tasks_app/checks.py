"""What a project must give the task domain: found by `manage.py check`, and before any of our processes starts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register  # noqa: A004
from django.db import connections
from django.utils.translation import gettext as _


@register(Tags.compatibility)
def database(app_configs: Sequence[Any] | None, **_options: Any) -> list[CheckMessage]:  # noqa: ARG001
    """The default database is one that the verbs of the lifecycle are written for."""
    found: list[CheckMessage] = []
    connection = connections["default"]
    options: dict[str, Any] = connection.settings_dict.get("OPTIONS") or {}
    if not settings.USE_TZ:
        found.append(Error(_("instants are kept in UTC"), hint=_("Set USE_TZ = True."), id="signalbox.E003"))
    if connection.vendor == "sqlite":
        if options.get("transaction_mode") != "IMMEDIATE":
            found.append(
                Error(
                    _("SQLite has no row locks, and its transactions do not lock the database from their beginning"),
                    hint=_(
                        'Set "transaction_mode": "IMMEDIATE" and a "timeout" in the OPTIONS of the default database.'
                    ),
                    id="signalbox.E004",
                )
            )
    elif connection.vendor == "postgresql":
        from django.db.backends.postgresql.psycopg_any import is_psycopg3

        if not is_psycopg3:
            found.append(
                Error(_("psycopg2 is not supported"), hint=_("Install psycopg 3 instead of it."), id="signalbox.E005")
            )
    else:
        found.append(
            Error(
                _("the default database is %(name)s; runs can be kept in PostgreSQL and SQLite")
                % {"name": connection.display_name},
                id="signalbox.E006",
            )
        )
    return found


@register(Tags.database, deploy=True)
def sessions(app_configs: Sequence[Any] | None, **_options: Any) -> list[CheckMessage]:  # noqa: ARG001
    """A process that was stopped in a transaction must not hold its siblings up for ever."""
    connection = connections["default"]
    options = str((connection.settings_dict.get("OPTIONS") or {}).get("options", ""))
    if connection.vendor != "postgresql" or "idle_in_transaction_session_timeout" in options:
        return []
    return [
        Warning(
            _("a process that stands still in a transaction keeps its locks, and others wait for them"),
            hint=_(
                'Set "options": "-c idle_in_transaction_session_timeout=15s -c lock_timeout=10s" in the OPTIONS of '
                "the default database, or the same for its role in PostgreSQL, and silence signalbox.W007."
            ),
            id="signalbox.W007",
        )
    ]


@register(Tags.database, deploy=True)
def kept_connections(app_configs: Sequence[Any] | None, **_options: Any) -> list[CheckMessage]:  # noqa: ARG001
    """A worker does not open a connection for each body and each exchange about permits."""
    given = connections["default"].settings_dict
    if given.get("CONN_MAX_AGE") != 0 or (given.get("OPTIONS") or {}).get("pool"):
        return []
    return [
        Warning(
            _("workers connect to the database anew for each body and each time that they ask for permits"),
            hint=_('Set "CONN_MAX_AGE": None for the default database, at least where workers run.'),
            id="signalbox.W008",
        )
    ]
