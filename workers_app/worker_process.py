"""One Celery worker as the platform sees it: what each of its signals sets in motion.

There is one of these a process; it is made in the main process by `worker_init` and inherited by pool children. Where
bodies run in threads of the main process (`execution.one_process`) there are no children.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from typing import Any, ClassVar, Final

from django.db import connection, connections

from tasks_app import planner
from tasks_app.clock import DatabaseClock, clock
from tasks_app.conf import conf as tasks_conf
from tasks_app.messages.execution import HEADER, QUEUE_PREFIX, Refusal
from tasks_app.messages.signing import KeyRing
from workers_app import pools
from workers_app.conf import conf
from workers_app.control_plane import quiet_forks
from workers_app.control_plane.database import DatabaseControlPlane
from workers_app.control_plane.port import Hello, Unreachable
from workers_app.heartbeat import Heartbeat

logger = logging.getLogger(__name__)


#: What is published here was accepted by the broker, or an error is raised. Ignored where a transport has no confirms.
CONFIRMED: Final = {"confirm_publish": True}


class WorkerProcess:
    """The present worker; `current` in any of its processes."""

    _current: ClassVar[WorkerProcess | None] = None

    def __init__(self, controller: Any) -> None:
        """controller: Celery's WorkController, before its pool exists."""
        from workers_app.execution.node import Node
        from workers_app.execution.reception import open_desk

        self.app = controller.app
        self.pool = pools.of_celery(controller.pool_cls)
        self.worker_id = str(controller.hostname).partition("@")[2] or str(controller.hostname)
        settings = conf()
        for alias in connections.settings:
            # A pool's threads and locks do not survive a fork; each process holds one connection a thread instead.
            if connections.settings[alias].setdefault("OPTIONS", {}).pop("pool", None):
                connections.settings[alias]["CONN_MAX_AGE"] = None
        hello = Hello(
            worker_id=self.worker_id,
            task_types=[
                name.removeprefix(QUEUE_PREFIX)
                for name in self.app.amqp.queues.consume_from
                if name.startswith(QUEUE_PREFIX)
            ],
            functions=sorted(name for name in self.app.tasks if not name.startswith(("celery.", "signalbox."))),
            labels={},
            slots=1 if self.pool.name == "solo" else int(controller.concurrency or 1),
            pool=self.pool.name,
            host=socket.gethostname(),
            pid=os.getpid(),
            code_version=os.environ.get("CODE_VERSION", ""),
        )
        self._consumer: Any = None
        self.node = Node(
            app=self.app,
            hello=hello,
            settings=settings,
            control_plane=DatabaseControlPlane(clock, settings.lease_seconds),
            on_drain=self._consume_or_not,
            on_watch=self._send_heartbeat if self.pool.one_process else lambda: None,
        )
        self.heartbeat = Heartbeat(
            worker_id=self.worker_id,
            slots=hello.slots,
            task_types=hello.task_types,
            functions=hello.functions,
            code_version=hello.code_version,
            every_seconds=settings.heartbeat_seconds,
            in_flight=self.node.running_count,
            incarnation_id=lambda: str(self.node.identity.incarnation_id),
        )
        for task in self.app.tasks.values():
            task.Request = "workers_app.execution.request:Request"
        if self.node.desk is not None:
            open_desk(self.node.desk, self.node.ring, self.pool.name)
            for task in self.app.tasks.values():
                task.Strategy = "workers_app.execution.reception:strategy"

    @classmethod
    def prepare(cls, controller: Any) -> None:
        """`worker_init`: register and make what children inherit. Waits for a database that is away.

        Ends the process where this kind of worker cannot run managed bodies.
        """
        cls._refuse(controller)
        process = cls._current = cls(controller)
        planner.read_by_index(only_own_threads=process.pool.one_process)
        stop = threading.Event()
        pause = 0.5
        while True:
            try:
                process.node.register()
                break
            except Unreachable as error:
                logger.warning("the database does not answer yet", extra={"error": str(error)})
                stop.wait(pause)
                pause = min(5.0, pause * 2)
        connections.close_all()
        if process.pool.one_process:
            from workers_app.execution import one_process

            one_process.prepare(process.app, process.node)
        else:
            quiet_forks.keep()
        process._say_goodbye_on_sigterm()

    @staticmethod
    def _refuse(controller: Any) -> None:
        try:
            pools.check_children(pools.of_celery(controller.pool_cls), permits=conf().permits)
        except ValueError as error:
            raise SystemExit(f"this worker cannot run managed bodies: {error}") from None
        if controller.options.get("autoscale"):
            raise SystemExit(f"this worker cannot run managed bodies: {pools.FIXED_SLOTS}")

    @classmethod
    def current(cls) -> WorkerProcess:
        """This process's worker. Raises RuntimeError outside of one."""
        if cls._current is None:
            raise RuntimeError("this process is not a worker")
        return cls._current

    def _say_goodbye_on_sigterm(self) -> None:
        """Until Celery installs its own handler, at the end of its start: leave no live lease behind."""
        main_pid = os.getpid()

        def leave(*_: object) -> None:
            if os.getpid() == main_pid:
                self.node.stop()
            raise SystemExit(0)

        signal.signal(signal.SIGTERM, leave)

    def attach_child(self) -> None:
        """`worker_process_init`: take a seat, connect to the main process, put the permit before every body."""
        from workers_app.execution.channel import ChildEnd
        from workers_app.execution.child import Child, attach, forget_inherited_connections, leave_soon_when_draining
        from workers_app.job import LogToJob, loggers_of_bodies

        forget_inherited_connections()
        planner.read_as_planned()
        self.app.conf.broker_transport_options = {**(self.app.conf.broker_transport_options or {}), **CONFIRMED}
        settings = tasks_conf()
        # What a body was permitted it may begin while the database is away, also as the first one of its process.
        child_clock = DatabaseClock(host_until_read=True)
        if connection.vendor == "sqlite":
            # A connection that never opens (`quiet_forks`) does so here, where Celery kills a process that does not
            # come up, and not in a run.
            child_clock.now()
        attach(
            self.app.tasks.values(),
            Child(
                registry=self.node.registry,
                seat=self.node.registry.take_seat(os.getpid()),
                channel=ChildEnd(self.node.channel.path),
                identity=self.node.identity,
                control_plane=DatabaseControlPlane(child_clock, conf().lease_seconds).as_worker(self.worker_id),
                clock=child_clock,
                ring=KeyRing(settings.signing_keys, settings.signing_key_id),
            ),
        )
        leave_soon_when_draining(self.node.registry)
        for logger_of_bodies in loggers_of_bodies():
            logger_of_bodies.addHandler(LogToJob())

    def start(self, consumer: Any) -> None:
        """`worker_ready`."""
        self._consumer = consumer
        if self.pool.one_process:
            from workers_app.execution import one_process

            one_process.share_streams()
            one_process.keep_pool(consumer.pool, lambda at_once: self.drain(at_once=at_once))
        self.node.start()

    def drain(self, *, at_once: bool = False) -> None:
        """`worker_shutting_down`. at_once: bodies have no time left; on a pool of processes Celery sees to it."""
        self.node.begin_drain(at_once=at_once and self.pool.one_process)

    def stop(self) -> None:
        """`worker_shutdown`."""
        self.node.stop()

    def send_heartbeat(self) -> None:
        """`heartbeat_sent`. A loop that runs a body sends none: then a thread of ours does."""
        if not self.pool.one_process:
            self._send_heartbeat()

    def _send_heartbeat(self) -> None:
        body = self.heartbeat.due_body()
        if body is not None:
            self.node.publisher.heartbeat(body)

    def cancel_runs(self, run_ids: list[int]) -> int:
        """Ask these runs' bodies to stop; returns how many run here."""
        from workers_app.execution.registry import StopReason

        return sum(self.node.stop_attempt(run_id, StopReason.CANCEL) for run_id in run_ids)

    def renew_soon(self) -> None:
        """Renew the lease now: its answer brings drains, resumes and cancels."""
        self.node.renew_soon()

    def check_lease(self) -> None:
        """Raise RuntimeError when no body may begin here."""
        if not self.node.registry.lease_valid():
            raise RuntimeError("the lease is not renewed: the control plane does not answer")

    def report_unknown(self, message: Any, name: str) -> None:
        """A managed message for a function that is not registered here: its attempt ends FAILED, with the reason."""
        from workers_app.execution.arrival import ticket_of

        headers = message.headers or {}
        if HEADER not in headers:
            return
        try:
            args, kwargs, _ = message.payload
        except (ValueError, TypeError) as error:
            logger.warning("message refused", extra={"detail": str(error)})
            return
        ticket = ticket_of(headers, name, args, kwargs, message.delivery_info, self.node.ring)
        if isinstance(ticket, Refusal):
            return
        self.node.report_unknown(ticket, name)

    def _consume_or_not(self, draining: bool) -> None:
        """Stop or start taking messages, on the event loop's own thread."""
        consumer = self._consumer
        if consumer is None:
            return
        queues = list(self.app.amqp.queues)

        def change() -> None:
            for queue in queues:
                if draining:
                    consumer.cancel_task_queue(queue)
                else:
                    consumer.add_task_queue(queue)
            logger.info("worker drains" if draining else "worker resumes", extra={"worker_id": self.worker_id})

        if consumer.hub is not None:
            consumer.hub.call_soon(change)
        else:
            change()
