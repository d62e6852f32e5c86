"""`manage.py prune`: delete what is old."""

from __future__ import annotations

import re
from argparse import ArgumentTypeError
from datetime import timedelta
from typing import Any, Final

from django.core.management.base import CommandParser
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy as _lazy

from scheduler_project.management import face
from scheduler_project.management.output import FORMATS, rendered
from tasks_app.clock import clock
from tasks_app.retention import Pruned, prune_in_batches
from tasks_app.states import FINAL, RunStatus

_UNITS: Final = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}
_AGE: Final = re.compile(r"([0-9]{1,6})([mhdw])")


def age(text: str) -> timedelta:
    """`30d`, `12h`, `90m` or `4w`."""
    match = _AGE.fullmatch(text)
    if match is None:
        raise ArgumentTypeError(_('"%(given)s" is not an age such as 30d, 12h, 90m or 4w') % {"given": text})
    return int(match[1]) * _UNITS[match[2]]


class Command(face.PlainCommand):
    """Delete runs that ended long ago, or only their output."""

    help: Any = _lazy("Delete runs that ended long ago, with attempts, events and output; or only the output.")

    def add_arguments(self, parser: CommandParser) -> None:
        """Options of the command."""
        super().add_arguments(parser)
        parser.add_argument("--older-than", type=age, required=True, metavar="AGE", help=_("30d, 12h, 90m, 4w"))
        parser.add_argument(
            "--state",
            action="append",
            type=str.upper,
            choices=sorted(state.value for state in FINAL),
            metavar="STATE",
            help=_("only runs that ended so; may be repeated; default: any end"),
        )
        parser.add_argument("--logs-only", action="store_true", help=_("keep the runs, delete their output"))
        parser.add_argument("--dry-run", action="store_true", help=_("only count"))
        parser.add_argument("-o", "--output", choices=FORMATS[:3], default="table", help=_("table, json or yaml"))

    def handle(self, *_args: Any, **options: Any) -> None:
        """Delete in batches and say how much."""
        total = Pruned()
        for done in prune_in_batches(
            before=clock.now() - options["older_than"],
            states=[RunStatus(state) for state in options["state"] or sorted(FINAL)],
            logs_only=options["logs_only"],
            dry_run=options["dry_run"],
        ):
            total += done
        row = {"runs": total.runs, "attempts": total.attempts, "events": total.events, "log_chunks": total.log_chunks}
        row["dry_run"] = options["dry_run"]
        text = rendered(row, form=options["output"], columns=(), name="runs", terminal=self.stdout.isatty())
        self.stdout.write(text)
