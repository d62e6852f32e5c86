"""Dispatchers, workers, reapers, what is between them, and two clocks; each method is one step of the machine."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from django.db import connection

from dispatch import control
from dispatch import reaper as reaper_module
from dispatch.claiming import candidates
from dispatch.conf import DispatchSettings
from dispatch.ingest.applying import apply_finishes, apply_hand_backs
from dispatch.reaper import Reaper
from tasks_app import lifecycle
from tasks_app.lifecycle import Claimed, NewRun, reap
from tasks_app.messages.parsing import parse_finish, parse_hand_back
from tasks_app.models import Task, TaskRun
from tasks_app.states import FINAL, Outcome, RunStatus
from tests.integration.domain import FixedClock, a_task
from tests.properties.promises import Body, Promises, hold
from tests.properties.worker import WorkerProcess

TICK_SECONDS: Final = 1.0
SETTINGS: Final = DispatchSettings(
    reaper_tick_seconds=TICK_SECONDS, permit_within_seconds=9.0, deadline_grace_seconds=1.0
)
_ROUNDS_TO_REST: Final = 60


@dataclass(frozen=True, eq=False)
class Report:
    """A report on its way to the ingest."""

    payload: bytes
    worker_id: str
    incarnation: UUID


class World:
    """Everything outside the database."""

    def __init__(self, *, each: bool, busy: bool) -> None:
        """Two workers, a reaper, and nothing to do.

        each: children ask for their permits themselves. busy: others act in the middle of reapers' rounds.
        """
        self.busy = busy
        #: Faults that happen at the next chance.
        self.armed: set[str] = set()
        self.at = 1000.0
        self.clock = FixedClock()
        self.promises = Promises()
        self.tasks: dict[tuple[int, int], Task] = {}
        self.messages: list[Claimed] = []
        self.reports: list[Report] = []
        #: What happens later than it should: messages, reports, and calls that nobody waits for any more.
        self.late: list[Callable[[], object]] = []
        self.workers = [WorkerProcess(self, name, each=each) for name in ("one", "two")]
        self.reaper = self._reaper()
        self.reaper_stopped = False

    def _reaper(self) -> Reaper:
        return Reaper(self.clock, SETTINGS, monotonic=lambda: self.at)

    # -- people ----------------------------------------------------------------------------------------------------

    def submit(self, count: int, max_retries: int, timeout_seconds: int) -> None:
        """Some runs of one task."""
        key = (max_retries, timeout_seconds)
        if key not in self.tasks:
            self.tasks[key] = a_task(
                max_retries=max_retries, timeout_seconds=timeout_seconds, retry_delay_seconds=1.0,
                retry_delay_cap_seconds=2.0, quarantine_after=2,
            )  # fmt: skip
        task, now = self.tasks[key], self.clock.now()
        for run_id in lifecycle.submit([NewRun(task, {"n": n}, now) for n in range(count)], now=now):
            self.promises.submitted(run_id, max_retries, 2)

    def cancel(self, run_id: int) -> None:
        """A person cancels a run in whatever state."""
        held_by = TaskRun.objects.values_list("nonce", flat=True).get(pk=run_id)
        answer = lifecycle.cancel([run_id], by="ada", now=self.clock.now())
        if answer.cancelled or answer.requested:
            self.promises.cancel_answered(run_id, held_by if answer.requested else None)

    def release(self) -> None:
        """A person releases what is quarantined."""
        held = TaskRun.objects.filter(status=RunStatus.QUARANTINED.value).order_by("id").values_list("pk", flat=True)
        lifecycle.release(list(held), by="ada", now=self.clock.now())

    def pause(self, paused: bool) -> None:
        """Every task is paused, or goes on."""
        Task.objects.update(paused_at=self.clock.now() if paused else None)

    # -- dispatchers -----------------------------------------------------------------------------------------------

    def dispatch(self, count: int) -> None:
        """A dispatcher claims and publishes."""
        now = self.clock.now()
        claimed = lifecycle.claim(
            candidates("default", 5, now)[:count], now=now,
            permit_within=timedelta(seconds=SETTINGS.permit_within_seconds),
        )  # fmt: skip
        if claimed and self.happens("dispatcher killed"):
            return
        for message in claimed:
            self._send(self.messages, message, "message")
        if claimed and self.happens("messages not confirmed"):
            # It takes back what the broker may have all the same.
            lifecycle.unpublish([(run.id, run.token) for run in claimed], now=now, reason="not confirmed")

    def _send(self, queue: list[Any], what: Any, kind: str) -> None:
        if self.happens(f"{kind} lost"):
            return
        late = self.happens(f"{kind} late")
        if late or self.happens(f"{kind} twice"):
            self.late.append(lambda: queue.append(what))
        if not late:
            queue.append(what)

    def happens(self, fault: str) -> bool:
        """Whether this fault is due, which it is once."""
        if fault not in self.armed:
            return False
        self.armed.discard(fault)
        return True

    # -- workers ---------------------------------------------------------------------------------------------------

    def bodies(self) -> list[tuple[WorkerProcess, Body]]:
        """Everything that runs."""
        return [(worker, body) for worker in self.workers for body in worker.under_way()]

    def deliver_all(self) -> None:
        """Each message to a worker that can take it; none when there is no such worker."""
        able = [worker for worker in self.workers if worker.reaches]
        if able:
            messages, self.messages = self.messages, []
            for number, message in enumerate(messages):
                able[number % len(able)].take(message)

    def ask_and_start_all(self) -> None:
        """What can be asked for is, and what was granted begins."""
        for worker in self.workers:
            for nonce in worker.can_ask():
                worker.ask(nonce)
            for nonce in list(worker.granted) if worker.acts else []:
                worker.start(nonce)

    # -- ingests ---------------------------------------------------------------------------------------------------

    def flush(self, worker: WorkerProcess) -> None:
        """What the worker publishes lies at the broker."""
        for payload in worker.flush() if worker.acts else []:
            self._send(self.reports, Report(payload, worker.name, worker.incarnation), "report")

    def ingest(self, reports: Sequence[Report]) -> None:
        """One batch, in this order."""
        for report in reports:
            self.reports.remove(report)
        finished, returned = [], []
        for report in reports:
            said = json.loads(report.payload)
            if said["kind"] == "hand_back":
                returned.append(parse_hand_back(said))
                continue
            finished.append(
                parse_finish(
                    said, result_bytes_max=1000, error_bytes_max=1000, worker_id=report.worker_id,
                    incarnation_id=report.incarnation,
                )
            )  # fmt: skip
        if finished:
            apply_finishes(finished, self.clock.now())
        if returned:
            apply_hand_backs(returned, self.clock.now())

    def all_late_happens(self) -> None:
        """In the order in which it should have."""
        late, self.late = self.late, []
        for what in late:
            what()

    # -- time ------------------------------------------------------------------------------------------------------

    def go_on(self, ticks: int, outcome: Outcome | None) -> None:
        """Whatever is healthy does all that it can for some time. outcome: how bodies end, if they do."""
        for _ in range(ticks):
            self.dispatch(100)
            self.deliver_all()
            self.ask_and_start_all()
            for worker, body in self.bodies() if outcome else []:
                worker.end(body, outcome)
            for worker in self.workers:
                self.flush(worker)
            self.ingest(list(self.reports))
            self.pass_time(1)

    def pass_time(self, ticks: int, *, database_away: bool = False) -> None:
        """Guardians look first, then leases are renewed, then reapers look: the order that leaves least room."""
        for _ in range(ticks):
            self.at += TICK_SECONDS
            self.clock.instant += timedelta(seconds=TICK_SECONDS)
            for worker in self.workers:
                worker.guard()
            if database_away:
                continue
            for worker in self.workers:
                if worker.reaches and self.at >= worker.renew_at:
                    worker.renew()
            if not self.reaper_stopped:
                self.reaper.tick(self.clock.now())
            self.promises.look()

    def jump(self, seconds: int) -> None:
        """The database's clock jumps; monotonic clocks do not."""
        self.clock.instant += timedelta(seconds=seconds)

    # -- faults ----------------------------------------------------------------------------------------------------

    def restart_reaper(self) -> None:
        """A new one, which knows nothing."""
        self.reaper, self.reaper_stopped = self._reaper(), False

    def forget_permit(self, run_id: int) -> None:
        """The database comes back from a crash without its last commit, which was a permit."""
        rows = TaskRun.objects.filter(
            pk=run_id, status=RunStatus.RUNNING.value, cancel_requested_at=None, stop_reason=""
        )
        if rows.update(
            status=RunStatus.DISPATCHED.value, nonce=None, worker_id="", incarnation_id=None, permitted_at=None,
            started_at=None, deadline_at=None,
        ):  # fmt: skip
            self.promises.forgotten.add(run_id)

    @contextmanager
    def interludes(self) -> Iterator[None]:
        """Others act between what a reaper reads and what it writes, where the database lets them."""
        lock, reach = reap.lock_runs, reaper_module.reach

        def lock_runs(ids: Collection[int], **options: Any) -> Any:
            # On SQLite the choice and the lock are one IMMEDIATE transaction.
            if self.busy and ids and connection.vendor == "postgresql":
                self.busy = False
                self._others_act()
                self.busy = True
            return lock(ids, **options)

        def reached(point: str) -> None:
            if self.busy:
                self.all_late_happens()
            reach(point)

        reap.lock_runs, reaper_module.reach = lock_runs, reached  # type: ignore[assignment]
        try:
            with control.diverted(lambda _messages: None):
                yield
        finally:
            reap.lock_runs, reaper_module.reach = lock, reach

    def _others_act(self) -> None:
        self._reaper()._end_lost(self.clock.now())
        self.ingest(list(self.reports))
        self.all_late_happens()
        self.dispatch(100)
        self.deliver_all()
        self.ask_and_start_all()

    # -- the end ---------------------------------------------------------------------------------------------------

    def come_to_rest(self) -> None:
        """Faults end; then every run must end, or wait for a person in quarantine."""
        self.armed.clear()
        self.all_late_happens()
        self.pause(False)
        self.reaper_stopped = False
        for worker in self.workers:
            worker.cut = False
            if worker.stopped:
                worker.resume()
            if not worker.up:
                worker.begin()
        rests = FINAL | {RunStatus.QUARANTINED}
        for _ in range(_ROUNDS_TO_REST):
            if all(status in rests for status in self.promises.look().values()):
                return
            self.go_on(1, Outcome.COMPLETED)
        left = {run_id: status for run_id, status in self.promises.look().items() if status not in rests}
        hold(not left, f"G1: these stand still: {left}")
