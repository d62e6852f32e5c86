"""Configuration section "workers": leases, drain, reporting, limits of a body's output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from tasks_app.messages.compression import ABOVE_BYTES
from tasks_app.sections import accessor, require_positive
from workers_app import pools
from workers_app.addresses import AddressPolicy


@dataclass(frozen=True)
class WorkerSettings:
    """Everything that workers, and those who judge them, can be told."""

    #: A worker that has not renewed for this long is over for the reaper. Choose it between recovery time (short) and
    #: tolerance for a database that is away (long): a worker ends its bodies lease_margin_seconds before that.
    lease_seconds: float = 60.0
    #: By how much the worker gives up before the reaper does; bounds the overlap of an attempt and its successor.
    lease_margin_seconds: float = 5.0
    #: Renewals per lease; more find out sooner about cancels and settle finished attempts sooner.
    renewals_per_lease: int = 12
    heartbeat_seconds: float = 10.0
    #: No heartbeat for this long makes a worker SUSPECT on the screen. Nobody is declared dead by it.
    suspect_after_seconds: float = 30.0
    #: On SIGTERM, how long running bodies may go on before they are ended.
    drain_seconds: float = 60.0
    #: Between asking a body to stop and killing it.
    stop_grace_seconds: float = 1.0
    report_flush_seconds: float = 0.1
    report_batch_max: int = 500
    #: Batches of reports that are larger than this are compressed (zstd); 0: none.
    compress_above_bytes: int = ABOVE_BYTES
    log_bytes_max: int = 1024 * 1024
    #: Where HTTP requests may go beside public addresses: networks, addresses and exact host names.
    http_allow: Sequence[str] = ()
    #: How much of an HTTP answer's body a run's result keeps.
    http_body_bytes_max: int = 64 * 1024
    #: Certificates of authorities (a PEM file) that HTTP requests trust beside the public ones.
    http_authorities_file: str = ""
    #: Which of Celery's pools runs bodies: prefork, threads or solo (`workers_app.pools` says what each can end).
    pool: str = "prefork"
    #: A pool process is replaced after so many bodies, or when its memory has grown above so many KiB; 0: never.
    max_tasks_per_child: int = 0
    max_memory_per_child_kib: int = 0
    #: Who asks for permits: "batched" is the worker's main process for many deliveries at once, "each" is the pool
    #: process for its own. Both start nothing without one; batched costs less a run.
    permits: str = "batched"
    #: Send Celery's task events from the start. Flower asks for them where it runs, others may with `celery control
    #: enable_events`; nothing else here needs them, and they cost a worker's main process a tenth of its time.
    task_events: bool = False
    #: Of the queues for runs and reports on RabbitMQ: "classic", or "quorum", which survives the loss of a node of the
    #: broker's cluster. The same for workers, dispatchers and ingests; other brokers ignore it.
    queue_type: str = "classic"
    #: Dotted path of the project's Celery app, for example "shop.celery.app".
    celery_app: str = ""
    #: Modules with Celery tasks of the users, imported by workers and by whoever validates function names.
    imports: Sequence[str] = field(default_factory=tuple)
    #: Task types that a worker takes when it is not told any.
    task_types: Sequence[str] = ("default",)

    def __post_init__(self) -> None:
        """Refuse a lease that could not be held."""
        require_positive(
            self,
            "lease_seconds",
            "lease_margin_seconds",
            "renewals_per_lease",
            "heartbeat_seconds",
            "suspect_after_seconds",
            "stop_grace_seconds",
            "report_flush_seconds",
            "report_batch_max",
            "log_bytes_max",
            "http_body_bytes_max",
        )
        try:
            AddressPolicy(self.http_allow)
        except ValueError as error:
            raise ValueError(f"http_allow: {error}") from None
        if self.lease_margin_seconds >= self.lease_seconds / 2:
            raise ValueError("lease_margin_seconds must be below half of lease_seconds")
        if self.compress_above_bytes < 0:
            raise ValueError("compress_above_bytes must be 0 or more")
        if self.permits not in ("batched", "each"):
            raise ValueError('permits must be "batched" or "each"')
        for name in ("max_tasks_per_child", "max_memory_per_child_kib"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be 0 or more")
        pools.check_children(
            pools.named(self.pool), max_tasks=self.max_tasks_per_child, max_memory_kib=self.max_memory_per_child_kib,
            permits=self.permits,
        )  # fmt: skip
        if self.queue_type not in ("classic", "quorum"):
            raise ValueError('queue_type must be "classic" or "quorum"')
        if self.renewals_per_lease < 3:
            raise ValueError("renewals_per_lease must be 3 or more")

    @property
    def renew_every_seconds(self) -> float:
        """Seconds between renewals."""
        return self.lease_seconds / self.renewals_per_lease

    @property
    def hold_seconds(self) -> float:
        """How long after *sending* its last answered renewal a worker may go on."""
        return self.lease_seconds - self.lease_margin_seconds


#: The section as configured; read once a process.
conf = accessor(WorkerSettings, "workers")
