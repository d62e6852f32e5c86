"""Plain Celery for `drain`: the broker's URL comes from the environment, the task does nothing."""

from __future__ import annotations

import os

from celery import Celery

import dispatch.broker.redis_stream  # noqa: F401  (makes redis-stream:// known)

app = Celery("drain", broker=os.environ["DRAIN_BROKER_URL"])
app.conf.update(
    accept_content=["json"],
    task_serializer="json",
    task_ignore_result=True,
    broker_connection_retry_on_startup=True,
    worker_prefetch_multiplier=4,
    task_default_queue="drain",
)


@app.task(name="drain.noop")
def noop(_number: int) -> None:
    """Nothing: what is measured is the way to here."""
