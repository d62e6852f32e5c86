"""A Celery worker that knows nothing of Signalbox: broker URL, queue and output file as arguments."""

from __future__ import annotations

import json
import sys
from typing import Any

from celery import Celery
from kombu import Exchange, Queue

if __name__ == "__main__":
    url, queue, output = sys.argv[1:]
    if url.startswith("redis-stream"):
        import dispatch.broker.redis_stream  # noqa: F401  (makes the scheme known)
    app = Celery("stock", broker=url)
    app.conf.update(
        task_queues=[Queue(queue, Exchange("", type="direct"), routing_key=queue)],
        accept_content=["json"],
        broker_connection_retry_on_startup=True,
    )

    @app.task(name="bench.add", bind=True)
    def add(self: Any, n: int, given: dict[str, str], b: int) -> None:
        """Write down what arrived."""
        with open(output, "a", encoding="utf-8") as file:
            file.write(json.dumps([n, given["text"], b, self.request.id]) + "\n")

    app.worker_main(["worker", "--pool=solo", "--loglevel=ERROR", "--without-heartbeat"])
