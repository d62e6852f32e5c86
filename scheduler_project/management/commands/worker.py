"""`manage.py worker`: workers, from the command line."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, ClassVar

from django.core.management.base import CommandParser
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy as _lazy

from scheduler_project.api.workers import WorkerShape
from scheduler_project.management import face
from tasks_app.clock import clock
from tasks_app.errors import NotFound
from tasks_app.text import Text
from workers_app.conf import conf
from workers_app.models import Worker
from workers_app.querysets import WorkerQuerySet


def _name(parser: CommandParser) -> None:
    parser.add_argument("worker", metavar="WORKER", help=_("id of the worker"))


def _nothing(_parser: CommandParser) -> None:
    pass


class Command(face.FaceCommand):
    """Workers."""

    help: Any = _lazy("List and show workers; let them take no more work, or take work again.")
    columns = (
        "name", "state", "current_task_count", "max_concurrent_tasks", "cpu_percent", "memory_percent",
        "supported_task_types", "host", "last_heartbeat",
    )  # fmt: skip
    actions: ClassVar = {
        "list": (_lazy("all workers"), _nothing),
        "show": (_lazy("one worker"), _name),
        "drain": (_lazy("take no more work; what runs goes on"), _name),
        "resume": (_lazy("take work again"), _name),
    }

    def do_list(self, options: dict[str, Any]) -> None:
        """All workers."""
        self.show([WorkerShape(worker).data for worker in _workers().order_by("name")], options)

    def do_show(self, options: dict[str, Any]) -> None:
        """One worker."""
        self.show(WorkerShape(_found(options["worker"])).data, options)

    def do_drain(self, options: dict[str, Any]) -> None:
        """Take no more work."""
        from dispatch.services import drain_worker

        drain_worker(_found(options["worker"]).name, by=face.whoami())
        self.show(WorkerShape(_found(options["worker"])).data, options)

    def do_resume(self, options: dict[str, Any]) -> None:
        """Take work again."""
        from dispatch.services import resume_worker

        resume_worker(_found(options["worker"]).name)
        self.show(WorkerShape(_found(options["worker"])).data, options)


def _workers() -> WorkerQuerySet:
    return Worker.objects.with_state(clock.now(), timedelta(seconds=conf().suspect_after_seconds))


def _found(name: str) -> Worker:
    worker = _workers().filter(pk=name).first() if "\x00" not in name else None
    if worker is None:
        names = list(Worker.objects.values_list("name", flat=True)[:1000])
        raise NotFound(face.suggested(name, names, Text('there is no worker "%(given)s"', given=name)))
    return worker
