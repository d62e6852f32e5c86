"""`manage.py doctor`: what is wrong, and what to do about it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from django.core.management.base import CommandParser
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy as _lazy
from django.utils.translation import ngettext

from dispatch.doctor import Examination, Severity, examine
from scheduler_project.management import face
from scheduler_project.management.output import rendered
from tasks_app.clock import clock


class Command(face.PlainCommand):
    """Examine this installation."""

    help: Any = _lazy(
        "Look for what is wrong with this installation, and say what to do; exit 1 when there are errors."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Options of the command."""
        super().add_arguments(parser)
        parser.add_argument("--json", action="store_true", help=_("write one JSON object"))

    def handle(self, *_args: Any, **options: Any) -> None:
        """Write what was found."""
        result = examine(clock)
        if options["json"]:
            found = [{"check": check, **asdict(finding)} for check, finding in result.found]
            data = {"well": result.well, "looked": result.looked, "found": found}
            self.stdout.write(rendered(data, form="json", columns=(), name="", terminal=False))
        else:
            self._tell(result)
        if not result.well:
            raise face.Exit(face.FAILED)

    def _tell(self, result: Examination) -> None:
        words = {Severity.ERROR: _("error"), Severity.WARNING: _("warning")}
        paint = {Severity.ERROR: self.style.ERROR, Severity.WARNING: self.style.WARNING}
        for _check, finding in result.found:
            head = f"{words[finding.severity]} {finding.code}"
            self.stdout.write(f"{paint[finding.severity](head)}\n  {finding.text}\n  → {finding.remedy}")
        if not result.found:
            text = ngettext("All is well: %(count)d check.", "All is well: %(count)d checks.", len(result.looked))
            self.stdout.write(text % {"count": len(result.looked)})
