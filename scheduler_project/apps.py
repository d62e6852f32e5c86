"""Django's view of the composition root."""

from __future__ import annotations

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class SchedulerConfig(AppConfig):
    """Outer faces."""

    name = "scheduler_project"
    verbose_name = _("Signalbox")

    def ready(self) -> None:
        """Register system checks."""
        from scheduler_project import checks  # noqa: F401
