"""`manage.py run_flower`: Flower on this installation's broker, for this host only."""

from __future__ import annotations

import logging
from argparse import ArgumentParser
from typing import Any, Final

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy as _lazy

from tasks_app.described_command import DescribedCommand

#: Flower has no rights management of its own, so it is never offered to the network: put a gateway before it.
ADDRESS: Final = "127.0.0.1"


class Command(DescribedCommand):
    """Start Flower."""

    help: Any = _lazy(
        "Start Flower, Celery's monitor, on 127.0.0.1. What it shows is telemetry; the runs are in the database."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Options of the command."""
        parser.add_argument("--port", type=int, default=5555, help=_("port to listen on"))

    def handle(self, *_args: Any, **options: Any) -> None:
        """Run until stopped. FLOWER_BASIC_AUTH=user:password and Flower's other variables are heeded."""
        from workers_app.celery_app import celery_app

        # It asks workers before any is there, and says so line by line.
        logging.getLogger("flower.inspector").setLevel(logging.ERROR)

        celery_app().start(
            [
                "flower",
                f"--address={ADDRESS}",
                f"--port={options['port']}",
                "--persistent=False",
                "--logging=none",
                "--max_tasks=5000",
            ]
        )
