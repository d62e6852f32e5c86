"""The submitting process of one contender: `python -m tests.benchmarks.client bare|results|signalbox`.

It reads commands from stdin, one JSON object a line, and answers each with one:

    {"do": "submit", "first": 0, "count": 5000, "form": "many" | "single"}   → {"began_ns", "ended_ns"}
    {"do": "pace", "first": 0, "count": 200, "per_second": 20}               → {"calls": [[seq, call_ns], …]}

Times are CLOCK_MONOTONIC. The first answer, {"ready": true}, comes when everything is imported and connected.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any, Protocol

#: Runs in one call of the service.
CHUNK = 100
TASK = "bench-noop"


class Submitting(Protocol):
    """How a contender takes runs."""

    def one(self, seq: int) -> None:
        """Submit one run."""

    def many(self, first: int, count: int) -> None:
        """Submit runs first … first + count − 1 in the contender's way for many."""


class CelerySubmitting:
    """`apply_async`, one call a run: Celery has no other way."""

    def __init__(self, module: str) -> None:
        """module: `bare` or `results`."""
        import importlib

        self._app = importlib.import_module(f"tests.benchmarks.{module}").app
        from tests.benchmarks.jobs import noop

        self._app.loader.import_default_modules()
        self._noop = noop
        self._app.amqp.queues  # noqa: B018 - made at the first use
        with self._app.connection_for_write() as connection:
            connection.ensure_connection(max_retries=10)

    def one(self, seq: int) -> None:
        """One `apply_async`."""
        self._noop.apply_async(kwargs={"seq": seq})

    def many(self, first: int, count: int) -> None:
        """The same in a loop."""
        for seq in range(first, first + count):
            self._noop.apply_async(kwargs={"seq": seq})


class SignalboxSubmitting:
    """The service that all faces call: `tasks_app.services`."""

    def __init__(self) -> None:
        """Set Django up and make the task where it is missing."""
        import django

        django.setup()
        from tasks_app import services
        from tasks_app.definitions import TaskDefinition
        from tasks_app.errors import TaskNotFound

        self._services = services
        try:
            self._task = services.find_task(TASK)
        except TaskNotFound:
            self._task = services.create_task(
                TaskDefinition(name=TASK, executor="python", parameters={"function": "bench.noop"})
            )

    def one(self, seq: int) -> None:
        """One `trigger`."""
        self._services.trigger(self._task, parameters_over={"kwargs": {"seq": seq}})

    def many(self, first: int, count: int) -> None:
        """`trigger_many` in chunks."""
        for start in range(first, first + count, CHUNK):
            seqs = range(start, min(start + CHUNK, first + count))
            self._services.trigger_many(self._task, [{"kwargs": {"seq": seq}} for seq in seqs])


def submit(to: Submitting, *, first: int, count: int, form: str) -> dict[str, Any]:
    """As fast as it goes."""
    began = time.monotonic_ns()
    if form == "many":
        to.many(first, count)
    else:
        for seq in range(first, first + count):
            to.one(seq)
    return {"began_ns": began, "ended_ns": time.monotonic_ns()}


def pace(to: Submitting, *, first: int, count: int, per_second: float) -> dict[str, Any]:
    """At a steady rate; a call that is late does not hurry the next."""
    calls = []
    due = time.monotonic()
    for seq in range(first, first + count):
        due += 1 / per_second
        time.sleep(max(0.0, due - time.monotonic()))
        calls.append([seq, time.monotonic_ns()])
        to.one(seq)
    return {"calls": calls}


_COMMANDS: dict[str, Callable[..., dict[str, Any]]] = {"submit": submit, "pace": pace}


def main() -> None:
    """Serve commands until stdin ends."""
    contender = sys.argv[1]
    to: Submitting = SignalboxSubmitting() if contender == "signalbox" else CelerySubmitting(contender)
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        answer = _COMMANDS[command.pop("do")](to, **command)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
