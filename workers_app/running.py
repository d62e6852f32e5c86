"""Starts a Celery worker in this process, with the options that managed runs need."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from celery import Celery
from kombu import Exchange, Queue

from tasks_app.messages.execution import queue_for
from tasks_app.process_health import serve
from workers_app.conf import WorkerSettings
from workers_app.execution.publisher import report_queue
from workers_app.queue_types import arguments_of, require
from workers_app.worker_process import WorkerProcess

#: What managed runs rely on, whichever app carries them out.
MANAGED: Final[dict[str, Any]] = {
    "broker_connection_retry_on_startup": True,
    "worker_prefetch_multiplier": 4,
    # After a lost connection Celery would set the prefetch to values of its own, past what the permit desk added.
    "worker_enable_prefetch_count_reduction": False,
    "worker_hijack_root_logger": False,
    "worker_redirect_stdouts": False,
    "worker_pool_start_method": "fork",
    # More connection losses than this in a row would end the worker; it waits for its broker instead.
    "broker_connection_max_retries": None,
    "worker_cancel_long_running_tasks_on_connection_loss": False,
    "worker_enable_remote_control": True,
    # By default this queue belongs to one connection: a worker of the same name cannot start beside a predecessor
    # that stands still. Durable, because newer RabbitMQ refuses queues that are neither; it expires by itself.
    "control_queue_exclusive": False,
    "control_queue_durable": True,
    "worker_state_db": None,
    # Slots are fixed, and a pool that starts anew forgets what it was given.
    "worker_pool_restarts": False,
}


def shared_queues(task_types: Sequence[str], queue_type: str) -> list[Queue]:
    """The durable queue of each task type, as workers and Celery's own tools declare it."""
    return [
        Queue(
            queue_for(kind), Exchange("", type="direct"), routing_key=queue_for(kind), durable=True,
            queue_arguments=arguments_of(queue_type),
        )
        for kind in task_types
    ]  # fmt: skip


def run_worker(
    app: Celery, *, name: str, slots: int, task_types: Sequence[str], loglevel: str, settings: WorkerSettings
) -> None:
    """Run until stopped; exits the process with Celery's code. Raises QueueTypeDiffers before anything starts.

    settings: pool, when its processes are replaced, and the type of queues.

    The node is called signalbox@<name>; it takes the shared queue of each task type and its own queue.
    """
    app.conf.update(MANAGED)
    app.conf.accept_content = sorted({*app.conf.accept_content, "json"})
    app.conf.task_queues = shared_queues(task_types, settings.queue_type)
    with app.connection_for_write() as connection:
        require(connection, [*app.conf.task_queues, report_queue(settings.queue_type)], settings.queue_type)
    app.conf.worker_pool = settings.pool
    if settings.pool == "solo":
        # The loop stands still while a body runs, and a broker that waits for heartbeats would cut the connection.
        app.conf.broker_heartbeat = 0
    # Celery's main process publishes nothing but events, on the loop that hands out work: it must not wait for
    # confirms. Children get confirms back for what bodies publish (`attach_child`), reports have their own connection.
    app.conf.broker_transport_options = {**(app.conf.broker_transport_options or {}), "confirm_publish": False}
    worker = app.Worker(
        hostname=f"signalbox@{name}",
        concurrency=slots,
        pool=settings.pool,
        max_tasks_per_child=settings.max_tasks_per_child or None,
        max_memory_per_child=settings.max_memory_per_child_kib or None,
        optimization="fair",
        loglevel=loglevel,
        without_gossip=True,
        without_mingle=True,
        task_events=settings.task_events,
        quiet=True,
    )
    process = WorkerProcess.current()
    serve({"lease": process.check_lease, "outcomes": process.node.check_outcomes}, process.node.beat)
    worker.start()
    if WorkerProcess.current().pool.one_process:
        # After a cold shutdown Celery does not say that it ends; bodies in threads may still be there.
        WorkerProcess.current().stop()
    raise SystemExit(worker.exitcode or 0)
