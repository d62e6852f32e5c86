"""Celery + django-celery-results as a contender: each run's start and end is a row, written by the pool child."""

from __future__ import annotations

import os

os.environ["DJANGO_SETTINGS_MODULE"] = "tests.benchmarks.results_settings"

from celery import Celery

app = Celery("results")
app.conf.update(
    broker_url=os.environ["BENCHMARK_BROKER_URL"],
    broker_connection_retry_on_startup=True,
    broker_transport_options={"confirm_publish": os.environ["BENCHMARK_CONFIRM"] == "1"},
    result_backend="django-db",
    task_track_started=True,
    accept_content=["json"],
    task_serializer="json",
    task_default_queue="bench.results",
    task_default_delivery_mode=2,
    worker_prefetch_multiplier=4,
    imports=["tests.benchmarks.jobs"],
)
app.set_default()
