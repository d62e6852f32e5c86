"""`manage.py run_ingest`."""

from __future__ import annotations

from typing import Any

from django.utils.translation import gettext_lazy as _

from tasks_app.described_command import DescribedCommand


class Command(DescribedCommand):
    """Takes reports and heartbeats from the broker into the database until SIGTERM or Ctrl-C."""

    help: Any = _("Run an ingest; any number may run at once.")

    def handle(self, *_args: Any, **_options: Any) -> None:
        """Run until asked to stop."""
        from dispatch.running import run_ingest

        run_ingest()
