"""What the commands for people have in common.

Exit codes: 0 it went well · 1 the run failed, or the request was refused · 2 wrong usage · 3 the database or broker
cannot be reached · 124 watching took longer than `--timeout`. An error is one line on stderr.
"""

from __future__ import annotations

import difflib
import getpass
import json
import os
import re
import sys
from argparse import ArgumentTypeError
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, NoReturn, TextIO

from django.core.management.base import CommandError, CommandParser, OutputWrapper
from django.core.management.base import handle_default_options as apply_default_options
from django.db import InterfaceError, OperationalError, ProgrammingError, connections
from django.utils import translation
from django.utils.translation import gettext as _

from scheduler_project.api.errors import said
from scheduler_project.management.output import FORMATS, rendered
from tasks_app.described_command import DescribedCommand
from tasks_app.errors import InvalidTask, SignalboxError, TaskNotFound
from tasks_app.models import Task
from tasks_app.text import Text

FAILED, USAGE, UNREACHABLE, WATCH_TIMEOUT = 1, 2, 3, 124

_CHOICES = re.compile(r"invalid choice: '(.*)' \(choose from (.*)\)", re.DOTALL)


class Exit(CommandError):
    """End with this code; what there is to say has been said."""

    def __init__(self, code: int) -> None:
        """No message."""
        super().__init__("", returncode=code)


class PlainCommand(DescribedCommand):
    """A command with errors on one line and exit codes of our own."""

    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        """Errors of usage are one line."""
        _one_line_errors(parser)

    def run_from_argv(self, argv: list[str]) -> None:
        """As Django's, with errors on one line and exit codes of our own."""
        self._called_from_command_line = True
        _speak_as_the_terminal_does()
        try:
            parsed = self.create_parser(argv[0], argv[1]).parse_args(argv[2:])
            apply_default_options(parsed)
            options = vars(parsed)
            self.execute(*options.pop("args", ()), **options)
        except CommandError as error:
            if str(error):
                self.stderr.write(_("error: %(text)s") % {"text": " ".join(str(error).split())}, lambda text: text)
            sys.exit(error.returncode)
        except KeyboardInterrupt:
            sys.exit(130)
        except BrokenPipeError:  # the reader of a pipe has gone
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(FAILED)
        finally:
            connections.close_all()

    def execute(self, *args: Any, **options: Any) -> str | None:
        """Run the action; errors of the domain and of the database become one line each."""
        try:
            return super().execute(*args, **options)
        except SignalboxError as error:
            raise CommandError(_text_of(error), returncode=FAILED) from error
        except (OperationalError, InterfaceError, ProgrammingError) as error:
            if isinstance(error, ProgrammingError) or "no such table" in str(error):
                text = _("the database is not set up; run: manage.py migrate (%(reason)s)")
                raise CommandError(text % {"reason": error}, returncode=UNREACHABLE) from error
            raise CommandError(
                _("the database cannot be reached: %(reason)s") % {"reason": error}, returncode=UNREACHABLE
            ) from error


class FaceCommand(PlainCommand):
    """A command with subcommands: `actions` maps each one's name to its help and to what adds its arguments."""

    #: name -> (help, function that adds arguments)
    actions: ClassVar[dict[str, tuple[Any, Callable[[CommandParser], None]]]] = {}
    #: Columns of a list's table, and the key of `-o name`.
    columns: ClassVar[Sequence[str]] = ()
    name_key: ClassVar[str] = "name"

    def add_arguments(self, parser: CommandParser) -> None:
        """One subparser an action."""
        super().add_arguments(parser)
        chosen = parser.add_subparsers(dest="action", metavar="ACTION", required=True, title=_("actions"))
        for name, (text, add) in self.actions.items():
            sub = chosen.add_parser(name, help=str(text), description=str(text))
            _one_line_errors(sub)
            sub.add_argument(
                "-o", "--output", choices=FORMATS, default="table", help=_("how to write it: table, json, yaml, name")
            )
            add(sub)

    def handle(self, *_args: Any, **options: Any) -> None:
        """Call the method that is named like the action."""
        getattr(self, "do_" + options["action"].replace("-", "_"))(options)

    def show(self, data: Any, options: dict[str, Any]) -> None:
        """Write one object or a list in the wanted form."""
        text = rendered(
            data,
            form=options["output"],
            columns=self.columns,
            name=self.name_key,
            terminal=self.stdout.isatty(),
        )
        if text:
            self.stdout.write(text)


def raw(wrapper: OutputWrapper) -> TextIO:
    """The stream below Django's wrapper, which ends every piece of text with a line break."""
    stream: TextIO = wrapper._out  # type: ignore[assignment]
    return stream


def whoami() -> str:
    """Who is at the command line, for the record."""
    try:
        return f"{getpass.getuser()} (command)"
    except (KeyError, OSError):
        return "command"


def positive(text: str) -> int:
    """A whole number above 0, for an argument."""
    if not text.isascii() or not text.isdecimal() or not 0 < int(text[:10]) < 10**9:
        raise ArgumentTypeError(_("must be a whole number above 0"))
    return int(text)


def json_value(text: str) -> Any:
    """An argument that is JSON, or `@file`, or `-` for standard input."""
    try:
        if text == "-":
            text = sys.stdin.read()
        elif text.startswith("@"):
            text = Path(text[1:]).read_text(encoding="utf-8")
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ArgumentTypeError(_("not JSON: %(reason)s") % {"reason": error}) from error
    except OSError as error:
        raise ArgumentTypeError(str(error)) from error


def find_task(reference: str) -> Task:
    """A task by name or id. Raises TaskNotFound with the nearest name."""
    live = Task.objects.live().with_schedule()
    task = live.filter(name=reference).first() if "\x00" not in reference else None
    if task is None and reference.isascii() and reference.isdecimal():
        task = live.filter(pk=int(reference)).first()
    if task is None:
        names = list(Task.objects.live().order_by("-pk").values_list("name", flat=True)[:1000])
        raise TaskNotFound(suggested(reference, names, Text('there is no task "%(given)s"', given=reference)))
    return task


def suggested(given: str, known: Sequence[str], text: str) -> str:
    """A text with the nearest known name behind it."""
    near = difflib.get_close_matches(given, known, n=1)
    return said(text) + (_('; did you mean "%(near)s"?') % {"near": near[0]} if near else "")


def add_parameters(parser: CommandParser) -> None:
    """`--parameters`."""
    parser.add_argument(
        "--parameters",
        type=json_value,
        metavar="JSON",
        help=_("merged over the task's parameters; @file reads a file, - standard input"),
    )


def add_watch(parser: CommandParser) -> None:
    """`--watch` and `--timeout`."""
    parser.add_argument(
        "-w", "--watch", action="store_true", help=_("wait for the end and show the log; exit 1 when the run fails")
    )
    parser.add_argument("--timeout", type=float, metavar="SECONDS", help=_("watch for so long at most, then exit 124"))


def _text_of(error: SignalboxError) -> str:
    if isinstance(error, InvalidTask):
        return "; ".join(f"{field}: {said(text)}" for field, texts in error.problems.items() for text in texts)
    return said(error.detail) + "".join(f" {key}={value}" for key, value in error.details.items() if value != "")


def _one_line_errors(parser: CommandParser) -> None:
    def error(message: str) -> NoReturn:
        found = _CHOICES.search(message)
        if found:
            known = [word.strip().strip("'") for word in found[2].split(",")]
            near = difflib.get_close_matches(found[1], known, n=1)
            message = _('unknown: "%(given)s"') % {"given": found[1]}
            message += (
                _('; did you mean "%(near)s"?') % {"near": near[0]}
                if near
                else _("; known: %(known)s") % {"known": ", ".join(known)}
            )
        raise _Usage(message)

    parser.error = error  # type: ignore[method-assign]


def _speak_as_the_terminal_does() -> None:
    for variable in ("LC_ALL", "LC_MESSAGES", "LANG"):
        locale = os.environ.get(variable, "").partition(".")[0].replace("_", "-").lower()
        if locale:
            with suppress(LookupError):
                translation.activate(translation.get_supported_language_variant(locale))
            return


class _Usage(CommandError):
    def __init__(self, message: str) -> None:
        super().__init__(message, returncode=USAGE)
