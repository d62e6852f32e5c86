"""A client: asks the product's services for what it is told on stdin, and records what it was answered.

One JSON line in, one out. Before each call it appends a line that it is about to ask, after it a line with the answer,
each fsynced to the file FAULTS_CLIENT_RECORD; a call without an answer, because the client was killed in it, is one of
unknown outcome. So is a database error: the commit may have happened.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

from tests.faults.history import raw_clock

_turn = itertools.count()


class Record:
    """The client's own file."""

    def __init__(self, path: str) -> None:
        """Append to it."""
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def write(self, **line: Any) -> None:
        """Append one line, durably."""
        os.write(self._fd, json.dumps({**line, "t": raw_clock()}).encode() + b"\n")
        os.fsync(self._fd)


def _task(order: dict[str, Any]) -> dict[str, Any]:
    from tasks_app.definitions import TaskDefinition
    from tasks_app.services import create_task

    return {"task": create_task(TaskDefinition(**order["definition"])).pk}


def _submit(order: dict[str, Any]) -> dict[str, Any]:
    """By turns as a face does it, and inside a transaction of the caller's own."""
    from django.db import transaction

    from tasks_app.services import trigger

    with transaction.atomic() if next(_turn) % 2 else nullcontext():
        run = trigger(order["task"], by=order["call"])
    return {"run": str(run.pk)}


def _submit_many(order: dict[str, Any]) -> dict[str, Any]:
    from tasks_app.services import trigger_many

    return {"runs": [str(run) for run in trigger_many(order["task"], [{}] * order["count"], by=order["call"])]}


def _cancel(order: dict[str, Any]) -> dict[str, Any]:
    from dispatch.services import cancel_run

    answer = cancel_run(int(order["run"]), by="faults")
    return {"said": "cancelled" if answer.cancelled else "requested"}


def _unschedule(order: dict[str, Any]) -> dict[str, Any]:
    from tasks_app.services import change_task

    return {"task": change_task(order["task"], {"every_seconds": None}).pk}


ORDERS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "task": _task,
    "submit": _submit,
    "submit_many": _submit_many,
    "cancel": _cancel,
    "unschedule": _unschedule,
}


def main() -> None:
    """Serve stdin to its end."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "scheduler_project.settings")
    import django

    django.setup()
    from django.db import Error as DatabaseFailure
    from django.db import connection

    from tasks_app.errors import StaleTransition

    record = Record(os.environ["FAULTS_CLIENT_RECORD"])
    print(json.dumps({"ready": os.getpid()}), flush=True)
    for text in sys.stdin:
        order = json.loads(text)
        record.write(kind="asked", order=order)
        try:
            answer = {"said": "ok"} | ORDERS[order["do"]](order)
        except StaleTransition:
            answer = {"said": "stale"}
        except DatabaseFailure as error:
            connection.close()
            answer = {"said": "unknown", "error": f"{type(error).__name__}: {error}"}
        except Exception as error:
            answer = {"said": "failed", "error": f"{type(error).__name__}: {error}"}
        record.write(kind="answered", order=order, answer=answer)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
