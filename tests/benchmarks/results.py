"""Celery + django-celery-results as a contender: each run's start and end is a row, written by the pool child.

CELERY_DB_REUSE_MAX is what keeps the fix-up for Django from closing the connection before and after every task.
"""

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
    CELERY_DB_REUSE_MAX=int(os.environ["BENCHMARK_REUSE_MAX"]) or None,
    accept_content=["json"],
    task_serializer="json",
    task_default_queue="bench.results",
    task_default_delivery_mode=2,
    worker_prefetch_multiplier=4,
    imports=["tests.benchmarks.jobs"],
)
app.set_default()
