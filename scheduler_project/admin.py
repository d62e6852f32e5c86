"""Where Django looks for admin classes; they are in `console`."""

from django.contrib import admin
from django.utils.translation import gettext_lazy as _

from scheduler_project.console import access, runs, schedules, tasks, workers

__all__ = ["access", "runs", "schedules", "tasks", "workers"]

admin.site.site_header = admin.site.site_title = "Signalbox"
admin.site.index_title = _("Tasks, runs and workers")
