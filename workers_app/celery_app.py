"""Which Celery app runs managed tasks: the project's own, by its dotted path in `SIGNALBOX["workers"]["celery_app"]`.

The platform brings none of its own into a project. What the app says about its broker counts for the dispatcher and the
ingest as well, so that there are never two brokers by mistake.
"""

from __future__ import annotations

from celery import Celery
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from workers_app.conf import conf


def celery_app() -> Celery:
    """The app. Raises ImproperlyConfigured with what to write where."""
    path = conf().celery_app
    if not path:
        raise ImproperlyConfigured(
            'SIGNALBOX["workers"]["celery_app"] is not set; name your Celery app by its path, such as "shop.celery.app"'
        )
    try:
        found = import_string(path)
    except ImportError as error:
        raise ImproperlyConfigured(f'SIGNALBOX["workers"]["celery_app"] is "{path}": {error}') from error
    if not isinstance(found, Celery):
        raise ImproperlyConfigured(f'SIGNALBOX["workers"]["celery_app"] is "{path}", which is no Celery app')
    return found


def refuse_prefix(app: Celery) -> None:
    """Raise ImproperlyConfigured where workers would read other keys of Redis than those that the dispatcher writes."""
    if (app.conf.broker_transport_options or {}).get("global_keyprefix"):
        raise ImproperlyConfigured(
            "broker_transport_options: global_keyprefix is not supported; give the platform a Redis database of its own"
        )


def broker_url() -> str:
    """Where messages go: `settings.BROKER_URL` where there is one, else what the Celery app says.

    Raises ImproperlyConfigured where workers would not find them there.
    """
    app = celery_app()
    refuse_prefix(app)
    configured = getattr(settings, "BROKER_URL", "")
    if configured:
        return str(configured)
    conf_of_app = app.conf
    url = conf_of_app.broker_write_url or conf_of_app.broker_url
    first = url if isinstance(url, str) else next(iter(url or ()), "")
    if not first:
        raise ImproperlyConfigured("the Celery app has no broker_url")
    # Celery takes several for failover; messages must go where the workers listen first.
    return str(first).partition(";")[0]
