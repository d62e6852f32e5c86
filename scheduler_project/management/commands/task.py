"""`manage.py task`: definitions, from the command line."""

from __future__ import annotations

import json
from typing import Any, ClassVar

from django.core.management.base import CommandError, CommandParser
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy as _lazy

from scheduler_project.api.tasks import TaskShape
from scheduler_project.management import face
from scheduler_project.management.commands.run import submitted
from tasks_app import services
from tasks_app.definitions import definition_from
from tasks_app.models import Task


def _reference(parser: CommandParser) -> None:
    parser.add_argument("task", metavar="TASK", help=_("name or id"))


def _fields(parser: CommandParser) -> None:
    parser.add_argument("--executor", help=_("python, shell or http"))
    parser.add_argument("--parameters", type=face.json_value, metavar="JSON", help=_("of the executor; @file, -"))
    parser.add_argument("--function", metavar="NAME", help=_("python: the registered function"))
    parser.add_argument("--command", metavar="TEXT", help=_("shell: a command line for the shell"))
    parser.add_argument("--every", type=float, metavar="SECONDS", help=_("run it again and again"))
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help=_("any other field, for example max_retries=0; the value is JSON or plain text"),
    )


def _create(parser: CommandParser) -> None:
    parser.add_argument("name", metavar="NAME")
    _fields(parser)


def _update(parser: CommandParser) -> None:
    _reference(parser)
    _fields(parser)
    parser.add_argument("--name", metavar="NAME", help=_("a new name"))
    parser.add_argument("--if-version", type=int, metavar="N", help=_("only if this is its version"))


def _list(parser: CommandParser) -> None:
    parser.add_argument("--prefix", default="", help=_("names that begin with this"))
    parser.add_argument("--limit", type=face.positive, default=100, metavar="N", help=_("so many at most"))


def _pause(parser: CommandParser) -> None:
    _reference(parser)
    parser.add_argument("--reason", default="", help=_("why, for others to read"))


def _trigger(parser: CommandParser) -> None:
    _reference(parser)
    face.add_parameters(parser)
    face.add_watch(parser)


class Command(face.FaceCommand):
    """Tasks."""

    help: Any = _lazy("List, show, create, change, delete, pause, resume and trigger tasks.")
    columns = ("id", "name", "state", "executor", "task_type", "every_seconds", "next_fire_at", "version")
    actions: ClassVar = {
        "list": (_lazy("tasks by name"), _list),
        "show": (_lazy("one task"), _reference),
        "create": (_lazy("make a task"), _create),
        "update": (_lazy("change some fields of a task"), _update),
        "delete": (_lazy("take a task out of use; its history stays"), _reference),
        "pause": (_lazy("no run starts from now on"), _pause),
        "resume": (_lazy("runs start again"), _reference),
        "trigger": (_lazy("submit a run now"), _trigger),
    }

    def do_list(self, options: dict[str, Any]) -> None:
        """Tasks by name."""
        rows = Task.objects.live().with_schedule().filter(name__startswith=options["prefix"])
        self.show([_shown(task) for task in rows.order_by("name")[: options["limit"]]], options)

    def do_show(self, options: dict[str, Any]) -> None:
        """One task."""
        self.show(_shown(face.find_task(options["task"])), options)

    def do_create(self, options: dict[str, Any]) -> None:
        """Make a task."""
        definition = definition_from({"name": options["name"]} | _given(options))
        self.show(_shown(services.create_task(definition, by=face.whoami())), options)

    def do_update(self, options: dict[str, Any]) -> None:
        """Change the given fields."""
        given = _given(options) | ({"name": options["name"]} if options["name"] else {})
        task = services.change_task(
            face.find_task(options["task"]).pk, given, expected_version=options["if_version"], by=face.whoami()
        )
        self.show(_shown(face.find_task(task.name)), options)

    def do_delete(self, options: dict[str, Any]) -> None:
        """Take it out of use."""
        services.delete_task(face.find_task(options["task"]).pk, by=face.whoami())

    def do_pause(self, options: dict[str, Any]) -> None:
        """Keep runs from starting."""
        task = services.pause_task(face.find_task(options["task"]).pk, by=face.whoami(), reason=options["reason"])
        self.show(_shown(task), options)

    def do_resume(self, options: dict[str, Any]) -> None:
        """Let runs start."""
        self.show(_shown(services.resume_task(face.find_task(options["task"]).pk)), options)

    def do_trigger(self, options: dict[str, Any]) -> None:
        """Submit a run."""
        submitted(self, options)


def _shown(task: Task) -> dict[str, Any]:
    shown = dict(TaskShape(task).data)
    return {"id": shown.pop("id"), "name": shown.pop("name"), "state": "PAUSED" if task.paused_at else "ACTIVE"} | shown


def _given(options: dict[str, Any]) -> dict[str, Any]:
    given: dict[str, Any] = {}
    if options["function"] is not None:
        given |= {"executor": "python", "parameters": {"function": options["function"]}}
    if options["command"] is not None:
        given |= {"executor": "shell", "parameters": {"command": options["command"], "shell": True}}
    if options["executor"] is not None:
        given["executor"] = options["executor"]
    if options["parameters"] is not None:
        more = options["parameters"]
        given["parameters"] = given["parameters"] | more if "parameters" in given and isinstance(more, dict) else more
    if options["every"] is not None:
        given["every_seconds"] = options["every"]
    for word in options["set"]:
        field, separator, text = word.partition("=")
        if not separator:
            raise CommandError(_('--set needs FIELD=VALUE, not "%(given)s"') % {"given": word}, returncode=face.USAGE)
        try:
            given[field] = json.loads(text)
        except ValueError:
            given[field] = text
    return given
