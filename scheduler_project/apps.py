"""Django's view of the composition root: what it hands down when everything is loaded."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _

logger = logging.getLogger(__name__)


class SchedulerConfig(AppConfig):
    """Outer faces."""

    name = "scheduler_project"
    verbose_name = _("Signalbox")

    def ready(self) -> None:
        """Register system checks, and say where the names of functions are known."""
        from scheduler_project import checks  # noqa: F401
        from tasks_app import functions

        functions.offer(registered_functions)
        functions.offer(advertised_functions)


def registered_functions() -> Iterable[str]:
    """Celery tasks of the modules that this installation imports, without Celery's own."""
    from scheduler_project.celery import app

    try:
        app.loader.import_default_modules()
    except Exception:
        logger.exception("a module of tasks cannot be imported")
    app.finalize()
    return [name for name in app.tasks if not name.startswith(("celery.", "signalbox."))]


def advertised_functions() -> Iterable[str]:
    """Celery tasks that workers have said they know; their code may be elsewhere."""
    from workers_app.models import Worker

    return {name for functions in Worker.objects.values_list("functions", flat=True) for name in functions}
