"""Django's view of this package."""

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class WorkersConfig(AppConfig):
    """Workers."""

    name = "workers_app"
    verbose_name = _("Workers")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Register system checks, say where the names of functions are known, and refuse workers without permits."""
        from tasks_app import functions as known
        from workers_app import checks, functions, stray_workers  # noqa: F401

        known.offer(functions.registered_functions)
        known.offer(functions.advertised_functions)
        stray_workers.refuse()
