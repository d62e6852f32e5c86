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
    from workers_app.running import shared_queues

    # Celery's Django fix-up closes every connection before and after each task. `workers_app` keeps them in order
    # by Django's own rule (CONN_MAX_AGE) instead, or each permit would begin with a new connection.
    made = Celery("signalbox", fixups=[])
    made.conf.update(
        broker_url=settings.BROKER_URL,
        broker_connection_retry_on_startup=True,
        broker_transport_options={"confirm_publish": True} if settings.BROKER_URL.startswith("amqp") else {},
        accept_content=["json"],
        task_serializer="json",
        result_serializer="json",
        event_serializer="json",
        result_backend=None,
        task_ignore_result=True,
        task_default_queue=queue_for("default"),
        task_queues=shared_queues(conf().task_types),
        task_create_missing_queues=True,
        worker_prefetch_multiplier=4,
        # After a lost connection Celery would set the prefetch to values of its own, past what the permit desk added.
        worker_enable_prefetch_count_reduction=False,
        worker_send_task_events=True,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_pool_start_method="fork",
        # More connection losses than this in a row would end the worker; it waits for its broker instead.
        broker_connection_max_retries=None,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_enable_remote_control=True,
        # By default this queue belongs to one connection: a worker of the same name cannot start beside a predecessor
        # that stands still. Durable, because newer RabbitMQ refuses queues that are neither; it expires by itself.
        control_queue_exclusive=False,
        control_queue_durable=True,
        worker_state_db=None,
        imports=list(conf().imports),
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
