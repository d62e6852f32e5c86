"""A plain Kombu consumer, as a process: argv is URL, queue, file for the numbers seen, seconds until given back."""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from typing import Any

from kombu import Connection, Exchange, Queue

import dispatch.broker.redis_stream  # noqa: F401  (makes redis-stream:// known)


def main() -> None:
    """Until it is killed. A connection that is lost is made again, as Celery does."""
    url, name, path, seconds = sys.argv[1:]
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    options = {
        "consumer_lease": float(seconds), "visibility_timeout": float(seconds), "unacked_restore_throttle": 1,
    }  # fmt: skip

    def taken(body: Any, message: Any) -> None:
        os.write(file, b"%d\n" % body)
        message.ack()
        time.sleep(0.0005)

    while True:
        connection = Connection(url, transport_options=options)
        with suppress(*connection.connection_errors, *connection.channel_errors), connection:
            queue = Queue(name, Exchange("", type="direct"), routing_key=name)
            with connection.Consumer(queue, callbacks=[taken], accept=["json"]) as consumer:
                consumer.qos(prefetch_count=50)
                while True:
                    with suppress(TimeoutError):
                        connection.drain_events(timeout=1)
        time.sleep(0.1)


if __name__ == "__main__":
    main()
