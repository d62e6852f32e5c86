"""`manage.py run_worker`: a Celery worker for managed runs."""

from __future__ import annotations

import socket
from argparse import ArgumentParser
from dataclasses import replace
from typing import Any

from django.core.management.base import CommandError
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy as _lazy

from tasks_app.described_command import DescribedCommand


class Command(DescribedCommand):
    """Start a worker."""

    help: Any = _lazy("Start a worker: takes runs of the given task types until it is told to stop.")

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Options of the command."""
        parser.add_argument("--name", default=socket.gethostname().partition(".")[0], help=_("worker id, without dots"))
        parser.add_argument("--slots", type=int, help=_("bodies at the same time; default: 2, with solo 1"))
        parser.add_argument("--task-types", default="", help=_("comma separated; default: all configured ones"))
        parser.add_argument("--pool", help=_("prefork, threads or solo; default: as configured"))
        parser.add_argument("--max-tasks-per-child", type=int, help=_("replace a pool process after so many bodies"))
        parser.add_argument(
            "--max-memory-per-child-kib", type=int, help=_("replace a pool process that has grown above so many KiB")
        )
        parser.add_argument("--loglevel", default="INFO")

    def handle(self, *_args: Any, **options: Any) -> None:
        """Run until stopped."""
        from tasks_app.parameters import task_type_problems
        from workers_app import wiring
        from workers_app.celery_app import celery_app
        from workers_app.conf import conf
        from workers_app.queue_types import QueueTypeDiffers
        from workers_app.running import run_worker

        task_types = [name.strip() for name in options["task_types"].split(",") if name.strip()] or list(
            conf().task_types
        )
        for name in task_types:
            if problems := task_type_problems(name):
                raise CommandError(f"--task-types {name!r}: {problems[0]}")
        if not options["name"] or "." in options["name"] or "@" in options["name"]:
            raise CommandError(_("--name must not be empty and must not contain dots or @"))
        told = {key: options[key] for key in ("pool", "max_tasks_per_child", "max_memory_per_child_kib")}
        try:
            settings = replace(conf(), **{key: value for key, value in told.items() if value is not None})
        except ValueError as error:
            raise CommandError(str(error)) from None
        slots = options["slots"] if options["slots"] is not None else 1 if settings.pool == "solo" else 2
        if slots < 1:
            raise CommandError(_("--slots must be 1 or more"))
        if settings.pool == "solo" and slots > 1:
            raise CommandError(_("the pool solo runs one body at a time: --slots must be 1"))
        app = celery_app()
        wiring.connect(app)
        try:
            run_worker(
                app,
                name=options["name"],
                slots=slots,
                task_types=task_types,
                loglevel=options["loglevel"],
                settings=settings,
            )
        except QueueTypeDiffers as error:
            raise CommandError(str(error)) from None
