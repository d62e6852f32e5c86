"""What a project must say about its Celery app: found by `manage.py check`, and before a worker starts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.core.checks import CheckMessage, Error, Tags, register
from django.core.exceptions import ImproperlyConfigured

from tasks_app.sections import ConfigurationError
from workers_app.celery_app import celery_app, refuse_prefix


@register(Tags.compatibility)
def app_of_tasks(app_configs: Sequence[Any] | None, **_: Any) -> list[CheckMessage]:  # noqa: ARG001
    """The Celery app is named, can be imported, and reads what the dispatcher writes."""
    try:
        app = celery_app()
    except ConfigurationError as error:
        return [Error(str(error), id="signalbox.E002")]
    except ImproperlyConfigured as error:
        return [Error(str(error), id="signalbox.E007")]
    try:
        refuse_prefix(app)
    except ImproperlyConfigured as error:
        return [Error(str(error), id="signalbox.E008")]
    return []
