"""What Flower's buttons do, from a process of its own: `python -m tests.acceptance.celery_tools VERB WORKER …`.

    revoke WORKER active|reserved [terminate]   of the deliveries that a worker has and runs, or has and does not run
    slots WORKER                                the three ways to change their number
    purge QUEUE                                 how many messages that took

Prints the answers as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from scheduler_project.celery import app


def deliveries(node: str, state: str) -> list[str]:
    """Their Celery task ids, once there is one."""
    give_up = time.monotonic() + 20
    while time.monotonic() < give_up:
        with app.connection_for_write() as connection:
            look = getattr(app.control.inspect([node], timeout=20, connection=connection), state)
            answer: dict[str, list[dict[str, Any]]] = look() or {}
        if found := [each["id"] for each in answer.get(node, [])]:
            return found
    raise SystemExit(f"nothing is {state} on {node}")


def asked(node: str, ask: str, *arguments: Any, **more: Any) -> Any:
    """On a connection of its own: on Redis one that goes on waiting takes the answer to the next question."""
    with app.connection_for_write() as connection:
        command = getattr(app.control, ask)
        return command(*arguments, reply=True, destination=[node], timeout=20, connection=connection, **more)


def main(verb: str, name: str, *more: str) -> Any:
    node = f"signalbox@{name}"
    if verb == "revoke":
        state, *terminate = more
        ids = deliveries(node, state)
        return asked(node, "revoke", ids, terminate=bool(terminate))
    if verb == "slots":
        return [
            asked(node, ask, *arguments)
            for ask, *arguments in (("pool_grow", 1), ("pool_shrink", 1), ("autoscale", 8, 1))
        ]
    with app.connection_for_write() as connection:
        return connection.default_channel.queue_purge(name)


print(json.dumps(main(*sys.argv[1:])))
