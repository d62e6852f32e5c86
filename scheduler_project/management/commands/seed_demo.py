"""`manage.py seed_demo`: three tasks to look at."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.db import transaction
from django.utils.translation import gettext_lazy as _lazy

from scheduler_project.management.face import PlainCommand
from tasks_app import services
from tasks_app.definitions import TaskDefinition
from tasks_app.models import Task


class Command(PlainCommand):
    """Make the demonstration tasks."""

    help: Any = _lazy("Make three demonstration tasks and run each once; those that were there once are left alone.")

    def handle(self, *_args: Any, **_options: Any) -> None:
        """Make what was never there: a task that somebody deleted stays deleted."""
        known = set(Task.objects.filter(name__startswith="demo.").values_list("name", flat=True))
        for definition in definitions():
            if definition.name in known:
                continue
            with transaction.atomic():
                task = services.create_task(definition, by="seed_demo")
                services.trigger(task, triggered_by="seed", by="seed_demo")
            self.stdout.write(definition.name)


def definitions() -> list[TaskDefinition]:
    """The three tasks, with the paths of this installation."""
    root, state = settings.BASE_DIR, settings.STATE_DIR
    return [
        TaskDefinition(
            name="demo.archive_folder",
            description="Packs the docs folder into the state folder, with a shell command.",
            executor="shell",
            parameters={
                "command": 'tar -czf "$ARCHIVE" -C "$ROOT" docs && tar -tzf "$ARCHIVE" && wc -c "$ARCHIVE"',
                "shell": True,
                "env": {"ROOT": str(root), "ARCHIVE": str(state / "demo-docs.tar.gz")},
            },
            timeout_seconds=60,
            max_retries=1,
        ),
        TaskDefinition(
            name="demo.count_words",
            description="Counts the words of README.md, in Python.",
            executor="python",
            parameters={"function": "demo.count_words", "args": [str(root / "README.md")]},
            timeout_seconds=60,
            max_retries=1,
        ),
        TaskDefinition(
            name="demo.disk_report",
            description="Reports the disks of this host, in Python with progress, every minute.",
            executor="python",
            parameters={"function": "demo.disk_report"},
            timeout_seconds=50,
            max_retries=0,
            every_seconds=60,
        ),
    ]
