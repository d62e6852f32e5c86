"""`manage.py run_web`: the console, the REST interface and the admin, by gunicorn."""

from __future__ import annotations

import logging
import os
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy as _lazy
from gunicorn.app.base import BaseApplication
from gunicorn.glogging import Logger

from tasks_app.described_command import DescribedCommand

#: Requests that are under way at SIGTERM may go on for so long.
GRACEFUL_SECONDS = 10


class RootLogger(Logger):
    """Gunicorn's lines through our own handler; RequestContextMiddleware writes the one line a request."""

    def setup(self, _cfg: Any) -> None:
        """Install nothing."""
        self.error_log.setLevel(logging.WARNING)

    def access(self, *_args: Any, **_kwargs: Any) -> None:
        """Said already."""


class Server(BaseApplication):
    """Gunicorn with threads, set up here and by nothing else."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self._settings = settings
        super().__init__()

    def load_config(self) -> None:
        """Take the settings that were given."""
        for key, value in self._settings.items():
            self.cfg.set(key, value)

    def load(self) -> Any:
        """The application, in each process after the fork."""
        from scheduler_project.wsgi import application

        return application


class Command(DescribedCommand):
    """Serve HTTP."""

    help: Any = _lazy("Serve the console, the REST interface and the admin until SIGTERM.")

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Options of the command."""
        parser.add_argument("--host", default="127.0.0.1", help=_("address to listen on"))
        parser.add_argument("--port", type=int, default=8000, help=_("port to listen on"))
        parser.add_argument("--workers", type=int, default=1, help=_("processes; each has metrics of its own"))
        parser.add_argument("--threads", type=int, default=8, help=_("threads of each process"))

    def handle(self, *_args: Any, **options: Any) -> None:
        """Serve until stopped."""
        for name, low, high in (("port", 1, 65535), ("workers", 1, 64), ("threads", 1, 256)):
            if not low <= options[name] <= high:
                text = _("--%(name)s must be %(low)s to %(high)s")
                raise CommandError(text % {"name": name, "low": low, "high": high}, returncode=2)
        host = f"[{options['host']}]" if ":" in options["host"] else options["host"]
        # An address that gunicorn would take from the environment is not the one that was asked for.
        os.environ.pop("PORT", None)
        Server(
            {
                "bind": f"{host}:{options['port']}",
                "worker_class": "gthread",
                "workers": options["workers"],
                "threads": options["threads"],
                "graceful_timeout": GRACEFUL_SECONDS,
                "control_socket_disable": True,
                "logger_class": RootLogger,
                "proc_name": "signalbox-web",
                "forwarded_allow_ips": "127.0.0.1,::1",
            }
        ).run()
