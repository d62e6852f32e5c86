"""The control plane by the database itself: for workers inside the trusted zone, which is the usual Django set-up.

Each call runs on the calling thread's own Django connection, in its own short transactions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from uuid import UUID, uuid4

from django.db import Error as DatabaseFailure
from django.db import connection, transaction
from django.db.models import F

from tasks_app import lifecycle
from tasks_app.clock import Clock
from tasks_app.conf import conf as tasks_conf
from tasks_app.lifecycle import Finished, HandBack, Holder, PermitAsk, Permitted, Refused
from tasks_app.messages.parsing import BadReport, parse_finish
from tasks_app.states import Outcome
from workers_app.control_plane import quiet_forks
from workers_app.control_plane.port import Hello, Renewal, RenewalAnswer, Unreachable
from workers_app.models import Worker, WorkerIncarnation


class DatabaseControlPlane:
    """`ControlPlane` on Django's default database."""

    def __init__(self, clock: Clock, lease_seconds: float, *, in_callers_transaction: bool = False) -> None:
        """lease_seconds is written on each incarnation, so that reapers judge it by what the worker itself goes by.

        in_callers_transaction: whoever calls may be inside a transaction on purpose (a test that is rolled back), so
        the connection is never given up and a failing database is the caller's to see.
        """
        self._clock = clock
        self._lease_seconds = lease_seconds
        self._in_callers_transaction = in_callers_transaction
        self._worker_id = ""
        self._holders: dict[UUID, Holder] = {}

    def register(self, hello: Hello) -> UUID:
        """A new incarnation; earlier ones of the same name keep their own leases until these run out."""
        with self._reaching():
            now = self._clock.now()
            with transaction.atomic():
                described = {
                    "supported_task_types": list(hello.task_types),
                    "functions": list(hello.functions),
                    "labels": hello.labels,
                    "pool": hello.pool,
                    "max_concurrent_tasks": hello.slots,
                    "host": hello.host,
                    "pid": hello.pid,
                    "code_version": hello.code_version,
                    "last_heartbeat": now,
                }
                Worker.objects.update_or_create(
                    name=hello.worker_id,
                    defaults=described,
                    create_defaults=described | {"registered_at": now},
                )
                incarnation = WorkerIncarnation.objects.create(
                    id=uuid4(),
                    worker_id=hello.worker_id,
                    lease_seconds=self._lease_seconds,
                    slots=hello.slots,
                    task_types=list(hello.task_types),
                    host=hello.host,
                    pid=hello.pid,
                    code_version=hello.code_version,
                    started_at=now,
                    renewed_at=now,
                )
                lifecycle.wake_dispatchers()
            self._worker_id = hello.worker_id
            return incarnation.id

    def permit(self, incarnation_id: UUID, asks: Sequence[PermitAsk]) -> list[Permitted | Refused]:
        """Permission to begin, in the order asked."""
        with self._reaching():
            return lifecycle.permit(asks, self._holder(incarnation_id), now=self._clock.now())

    def renew(self, incarnation_id: UUID, renewal: Renewal) -> RenewalAnswer:
        """Raise the lease counter and compare lists; `alive=False` when the lease was judged over before."""
        with self._reaching():
            now = self._clock.now()
            own = WorkerIncarnation.objects.filter(pk=incarnation_id, over_at__isnull=True)
            if not own.update(counter=F("counter") + 1, renewed_at=now, draining=renewal.draining):
                return RenewalAnswer(alive=False)
            said = lifecycle.reassert(
                self._holder(incarnation_id), renewal.running, renewal.finished, renewal.registered, now=now
            )
            drain = Worker.objects.filter(pk=self._worker_id, draining_since__isnull=False).exists()
            return RenewalAnswer(
                alive=True,
                drain=drain,
                void=frozenset(said.void),
                stops=said.stops,
                recorded=frozenset(said.recorded),
                unknown=said.unknown,
            )

    def hand_back(self, returned: Sequence[HandBack]) -> None:
        """Give up deliveries whose body never began."""
        with self._reaching():
            lifecycle.hand_back(returned, now=self._clock.now())

    def hand_in(self, incarnation_id: UUID, reports: Sequence[dict[str, Any]]) -> None:
        """Apply finish reports directly. One that cannot be read ends its attempt as FAILED, so that it is not lost."""
        settings = tasks_conf()
        finished: list[Finished] = []
        for report in reports:
            try:
                finished.append(
                    parse_finish(
                        report,
                        result_bytes_max=settings.result_bytes_max,
                        error_bytes_max=settings.error_bytes_max,
                        worker_id=self._worker_id,
                        incarnation_id=incarnation_id,
                    )
                )
            except BadReport as error:
                finished.append(_unreadable(report, error))
        with self._reaching():
            lifecycle.finish(finished, now=self._clock.now())

    def goodbye(self, incarnation_id: UUID) -> None:
        """End the incarnation cleanly; what it still holds is lost at once and retried elsewhere."""
        with self._reaching():
            now = self._clock.now()
            WorkerIncarnation.objects.filter(pk=incarnation_id, over_at__isnull=True).update(
                over_at=now, ended_cleanly=True
            )
            while lifecycle.lose([incarnation_id], now=now):
                pass

    def _holder(self, incarnation_id: UUID) -> Holder:
        holder = self._holders.get(incarnation_id)
        if holder is None:
            alive = WorkerIncarnation.objects.filter(pk=incarnation_id, over_at__isnull=True).order_by().values("pk")
            sql, params = alive.query.sql_with_params()
            holder = Holder(self._worker_id, incarnation_id, f"EXISTS ({sql})", params)
            self._holders = {incarnation_id: holder}
        return holder

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        """Turn a failing database into Unreachable, and leave no broken connection behind."""
        if self._in_callers_transaction:
            yield
            return
        with quiet_forks.inside():
            if connection.connection is not None and (connection.errors_occurred or connection.in_atomic_block):
                connection.close()
            try:
                yield
            except DatabaseFailure as error:
                connection.close()
                raise Unreachable(f"{type(error).__name__}: {error}") from error

    def as_worker(self, worker_id: str) -> DatabaseControlPlane:
        """The same client speaking for a worker that another process registered (a pool child)."""
        self._worker_id = worker_id
        return self


def _unreadable(report: dict[str, Any], error: BadReport) -> Finished:
    return Finished(
        run_id=int(report["run"]),
        attempt=int(report["attempt"]),
        token=UUID(report["token"]),
        outcome=Outcome.FAILED,
        error_type="BadReport",
        error_message=str(error)[:1000],
        # There is a report because the body ran, and it may have done all of its work.
        retryable=False,
    )
