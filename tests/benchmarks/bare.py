"""Bare Celery as a contender: nothing kept, JSON; on RabbitMQ persistent messages on a durable classic queue."""

from __future__ import annotations

import os

from celery import Celery

if os.environ["BENCHMARK_BROKER_URL"].startswith("redis-stream:"):
    import dispatch.broker.redis_stream  # noqa: F401  (makes the scheme known)

app = Celery("bare")
app.conf.update(
    broker_url=os.environ["BENCHMARK_BROKER_URL"],
    broker_connection_retry_on_startup=True,
    broker_transport_options={"confirm_publish": os.environ["BENCHMARK_CONFIRM"] == "1"},
    result_backend=None,
    task_ignore_result=True,
    accept_content=["json"],
    task_serializer="json",
    task_default_queue="bench.bare",
    task_default_delivery_mode=2,
    worker_prefetch_multiplier=4,
    imports=["tests.benchmarks.jobs"],
)
app.set_default()
