"""Django's view of this package."""

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class DispatchConfig(AppConfig):
    """Dispatcher and ingest. No tables of its own."""

    name = "dispatch"
    verbose_name = _("Dispatch")

    def ready(self) -> None:
        """Kombu must know `redis-stream://` before anything connects."""
        from dispatch.broker import redis_stream

        redis_stream.register()
