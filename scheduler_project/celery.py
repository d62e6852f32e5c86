"""Celery's app: how it is set up, and the one place where signals are connected.

Only what the platform relies on is set: JSON alone, no result backend (the row is the result), confirms on everything
that is published, late acknowledgement left off because the permit decides what may start.
"""

from __future__ import annotations

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "scheduler_project.settings")


def make_app() -> Celery:
    """The Celery app of this project, configured from Django's settings."""
    import django
    from django.conf import settings

    django.setup()
    from tasks_app.messages.execution import queue_for
    from workers_app import wiring
    from workers_app.conf import conf
    from workers_app.running import MANAGED, shared_queues

    # Celery's Django fix-up closes every connection before and after each task. `workers_app` keeps them in order
    # by Django's own rule (CONN_MAX_AGE) instead, or each permit would begin with a new connection.
    made = Celery("signalbox", fixups=[])
    made.conf.update(
        broker_url=settings.BROKER_URL,
        broker_transport_options={"confirm_publish": True} if settings.BROKER_URL.startswith("amqp") else {},
        accept_content=["json"],
        **MANAGED,
        task_serializer="json",
        result_serializer="json",
        event_serializer="json",
        result_backend=None,
        task_ignore_result=True,
        task_default_queue=queue_for("default"),
        task_queues=shared_queues(conf().task_types, conf().queue_type),
        task_create_missing_queues=True,
        timezone="UTC",
        enable_utc=True,
    )
    wiring.connect(made)
    if settings.CONFIG.tracing:
        from scheduler_project.observability import instrument

        instrument()
    made.set_default()
    return made


app = make_app()
