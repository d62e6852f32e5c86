"""Django's view of this package."""

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class WorkersConfig(AppConfig):
    """Workers."""

    name = "workers_app"
    verbose_name = _("Workers")
    default_auto_field = "django.db.models.BigAutoField"
