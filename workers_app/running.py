"""Starts a Celery worker in this process, with the options that managed runs need."""

from __future__ import annotations

from collections.abc import Sequence

from celery import Celery
from kombu import Exchange, Queue

from tasks_app.messages.execution import queue_for
from tasks_app.process_health import serve
from workers_app.worker_process import WorkerProcess


def shared_queues(task_types: Sequence[str]) -> list[Queue]:
    """The durable queue of each task type, as workers and Celery's own tools declare it."""
    return [
        Queue(queue_for(kind), Exchange("", type="direct"), routing_key=queue_for(kind), durable=True)
        for kind in task_types
    ]


def run_worker(app: Celery, *, name: str, slots: int, task_types: Sequence[str], loglevel: str) -> None:
    """Run until stopped; exits the process with Celery's code.

    The node is called signalbox@<name>; it takes the shared queue of each task type and its own queue.
    """
    app.conf.task_queues = shared_queues(task_types)
    app.conf.worker_pool = "prefork"
    # Celery's main process publishes nothing but events, on the loop that hands out work: it must not wait for
    # confirms. Children get confirms back for what bodies publish (`attach_child`), reports have their own connection.
    app.conf.broker_transport_options = {**(app.conf.broker_transport_options or {}), "confirm_publish": False}
    worker = app.Worker(
        hostname=f"signalbox@{name}",
        concurrency=slots,
        pool="prefork",
        optimization="fair",
        loglevel=loglevel,
        without_gossip=True,
        without_mingle=True,
        task_events=True,
        quiet=True,
    )
    serve({"lease": lambda: WorkerProcess.current().check_lease()}, WorkerProcess.current().node.beat)
    worker.start()
    raise SystemExit(worker.exitcode or 0)
