"""`manage.py run_dispatcher`."""

from __future__ import annotations

from typing import Any

from django.utils.translation import gettext_lazy as _

from tasks_app.described_command import DescribedCommand


class Command(DescribedCommand):
    """Claims due runs and publishes them, fires schedules, and watches leases, until SIGTERM or Ctrl-C."""

    help: Any = _("Run a dispatcher; any number may run at once.")

    def handle(self, *_args: Any, **_options: Any) -> None:
        """Run until asked to stop."""
        from dispatch.running import run_dispatcher

        run_dispatcher()
