"""What can be wrong with an installation, found by `manage.py check`; more of it by `check --deploy`."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any, Final
from urllib.parse import urlsplit

from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register  # noqa: A004
from django.utils.translation import gettext as _

from scheduler_project.config import Config

LOOPBACK: Final = frozenset({"", "localhost", "127.0.0.1", "::1"})


@register(Tags.compatibility)
def modules_of_jobs(app_configs: Sequence[Any] | None, **_options: Any) -> list[CheckMessage]:  # noqa: ARG001
    """Every module that is named for import can be imported."""
    found: list[CheckMessage] = []
    for name in getattr(settings, "SIGNALBOX", {}).get("workers", {}).get("imports", ()):
        try:
            import_module(name)
        except Exception as error:  # noqa: BLE001  (somebody else's module may raise anything)
            found.append(
                Error(
                    _('the module "%(name)s" cannot be imported: %(reason)s')
                    % {"name": name, "reason": f"{type(error).__name__}: {error}"},
                    hint=_("Correct the module, SIGNALBOX_IMPORTS, or the file in the jobs folder."),
                    id="signalbox.E001",
                )
            )
    return found


@register(Tags.compatibility)
def sections(app_configs: Sequence[Any] | None, **_options: Any) -> list[CheckMessage]:  # noqa: ARG001
    """Every section of the configuration can be read."""
    from dispatch.conf import conf as dispatch
    from tasks_app.conf import conf as tasks
    from tasks_app.sections import ConfigurationError
    from workers_app.conf import conf as workers

    found: list[CheckMessage] = []
    for read in (tasks, workers, dispatch):
        try:
            read()
        except ConfigurationError as error:
            found.append(Error(str(error), id="signalbox.E002"))
    return found


@register(Tags.security, deploy=True)
def keys(app_configs: Sequence[Any] | None, **_options: Any) -> list[CheckMessage]:  # noqa: ARG001
    """Keys are given, not made up by each host for itself."""
    config: Config | None = getattr(settings, "CONFIG", None)
    found: list[CheckMessage] = []
    if config is None:
        return found  # inside somebody else's project: its settings are its own
    if not config.signing_key and "signing_keys" not in config.sections.get("tasks", {}):
        found.append(
            Warning(
                _("messages are signed with a key that this host made for itself; other hosts would refuse them"),
                hint=_("Set SIGNALBOX_SIGNING_KEY (32 characters or more) to the same value everywhere."),
                id="signalbox.W001",
            )
        )
    if not config.secret_key:
        found.append(
            Warning(
                _("sessions and tokens are signed with a key that this host made for itself"),
                hint=_("Set SIGNALBOX_SECRET_KEY to the same value for every web process."),
                id="signalbox.W002",
            )
        )
    if not config.https:
        found.append(
            Warning(
                _("cookies and redirects are not restricted to HTTPS"),
                hint=_("Put a gateway with TLS before the web process and set SIGNALBOX_HTTPS=1."),
                id="signalbox.W003",
            )
        )
    return found


@register(Tags.database, deploy=True)
def stores(app_configs: Sequence[Any] | None, **_options: Any) -> list[CheckMessage]:  # noqa: ARG001
    """The database and the broker fit each other and can be reached by more than one host."""
    found: list[CheckMessage] = []
    if not hasattr(settings, "CONFIG"):
        return found
    sqlite = settings.DATABASES["default"]["ENGINE"].endswith("sqlite3")
    broker = urlsplit(settings.BROKER_URL).hostname or ""
    if sqlite and broker not in LOOPBACK:
        found.append(
            Warning(
                _("SQLite serves one host, and the broker %(broker)s serves more") % {"broker": broker},
                hint=_("Set SIGNALBOX_DATABASE_URL to a PostgreSQL database."),
                id="signalbox.W004",
            )
        )
    elif sqlite:
        found.append(
            Warning(
                _("SQLite serves one host only"),
                hint=_(
                    "Set SIGNALBOX_DATABASE_URL to a PostgreSQL database, or silence signalbox.W005 on a single host."
                ),
                id="signalbox.W005",
            )
        )
    if not settings.CONFIG.cache_url:
        found.append(
            Warning(
                _("sign-in attempts are counted by each web process for itself"),
                hint=_("Set SIGNALBOX_CACHE_URL to a Redis address, or silence signalbox.W006 for a single process."),
                id="signalbox.W006",
            )
        )
    return found
