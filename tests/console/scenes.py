"""Something to see in every page: `python -m tests.console.scenes` fills the database that the environment names.

States are reached by the lifecycle's own verbs; only then are times moved back, so that pages show a day's work.
"""

from __future__ import annotations

import json
import os
import random
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import django

if TYPE_CHECKING:
    from tasks_app.models import Task, TaskRun
    from workers_app.models import WorkerIncarnation

ERROR = {
    "error_type": "ConnectionError",
    "error_message": """Traceback (most recent call last):
  File "/srv/jobs/orders.py", line 48, in load
    rows = connection.fetch(QUERY, day)
  File "/srv/jobs/lib/warehouse.py", line 112, in fetch
    raise ConnectionError(f"warehouse {host} refused the connection")
ConnectionError: warehouse dw-2.example.net refused the connection""",
}
LOG = """connecting to dw-2.example.net
day 2026-11-24, 3 partitions
partition 1/3: 48,211 rows in 1.9 s
partition 2/3: 51,004 rows in 2.2 s
"""
#: name, task type, seconds between runs, retries
TASKS = (
    ("etl.orders", "default", 300, 3), ("etl.customers", "default", 900, 3), ("etl.stock", "default", 60, 1),
    ("backup.database", "backup", 86400, 2), ("backup.files", "backup", None, 2), ("mail.digest", "mail", 3600, 5),
    ("image.resize", "image", None, 0), ("webhook.deliver", "default", None, 8),
    ("report.monthly sales", "default", None, 1), ("search.reindex", "default", 7200, 2),
)  # fmt: skip
WORKERS = (("w-01", ["default", "mail"]), ("w-02", ["default", "image"]), ("w-03", ["backup"]), ("w-04", ["default"]))


class Scenes:
    """A day of a small installation."""

    def __init__(self) -> None:
        from tasks_app.clock import clock

        self.now: datetime = clock.now()
        self.chance = random.Random(7)
        self.holders: list[WorkerIncarnation] = []
        self.tasks: dict[str, Task] = {}

    def fill(self) -> dict[str, int]:
        """Everything; the numbers of what pages are shown for, by what they are."""
        self.people()
        self.workers()
        self.definitions()
        for number in range(140):
            self.past(number)
        found = {"failed": self.failed(), "quarantined": self.quarantined(), "task": self.tasks["etl.orders"].pk}
        return found | self.present()

    def people(self) -> None:
        """Ada may do everything, Eve may look."""
        from django.contrib.auth.models import User

        from tests.integration.faces import user

        user("ada", superuser=True)
        User.objects.update(is_staff=True)
        user("eve", may=("tasks_app.view_taskrun", "tasks_app.view_task", "workers_app.view_worker"))

    def workers(self) -> None:
        """Four: one drains, one was lost."""
        from tests.integration.faces import a_worker
        from workers_app.models import Worker, WorkerIncarnation

        for number, (name, types) in enumerate(WORKERS):
            host = {"host": f"{name}.example.net", "pid": 4000 + number, "code_version": "0.1.0"}
            self.holders.append(a_worker(name, slots=4, task_types=types, **host))
            Worker.objects.filter(pk=name).update(
                max_concurrent_tasks=4, current_task_count=number % 4, load_percentage=25.0 * (number % 4),
                cpu_percent=12 + 19 * number, memory_percent=31 + 7 * number, memory_rss_bytes=180 * 2**20,
                supported_task_types=types, functions=["demo.count_words", "demo.disk_report"],
                registered_at=self.now - timedelta(days=40), **host,
            )  # fmt: skip
        silent = self.now - timedelta(minutes=8)
        WorkerIncarnation.objects.filter(worker="w-04").update(over_at=silent + timedelta(minutes=1), renewed_at=silent)
        Worker.objects.filter(pk="w-04").update(last_heartbeat=silent)
        Worker.objects.filter(pk="w-02").update(
            draining_since=self.now - timedelta(minutes=20), drain_requested_by="ada"
        )

    def definitions(self) -> None:
        """The tasks, one of them paused, and when they are due next."""
        from tasks_app import services
        from tasks_app.models import Schedule
        from tests.integration.faces import a_task

        for name, task_type, every, retries in TASKS:
            self.tasks[name] = a_task(
                name, task_type=task_type, max_retries=retries, timeout_seconds=120, retry_delay_seconds=0.0,
                retry_delay_cap_seconds=0.0, every_seconds=float(every) if every else None,
                description="Loads the day's rows into the warehouse." if name.startswith("etl") else "",
                parameters={"command": "python -m jobs.load --day today", "shell": True, "env": {"DAY": "2026-11-24"}},
            )  # fmt: skip
        services.pause_task(self.tasks["search.reindex"].pk, by="ada", reason="index moves to the new cluster")
        for number, schedule in enumerate(Schedule.objects.order_by("pk"), start=1):
            Schedule.objects.filter(pk=schedule.pk).update(next_fire_at=self.now + timedelta(seconds=47 * number**2))

    def past(self, number: int) -> None:
        """One of the runs that ended."""
        from tasks_app import services
        from tasks_app.states import Outcome

        task = self.tasks[TASKS[self.chance.randrange(8)][0]]
        run = services.trigger(
            task, triggered_by=self.chance.choice(["schedule", "api"]), by=self.chance.choice(["", "ada"])
        )
        holder = self.holders[2] if task.task_type == "backup" else self.holders[number % 2]
        draw, ms = self.chance.random(), int(self.chance.lognormvariate(7.5, 1.1))
        if draw < 0.06:
            self.attempt(run, Outcome.FAILED, holder, ms, retryable=False, **ERROR)
        elif draw < 0.08:
            self.attempt(run, Outcome.TIMEOUT, holder, 120_000, retryable=False, error_message="ran longer than 120 s")
        elif draw < 0.1:
            services.cancel_run(run.pk, by="ada")
            run.refresh_from_db()
        else:
            if draw < 0.16 and task.max_retries:
                self.attempt(run, Outcome.FAILED, holder, ms, error_message="OSError: connection reset by peer")
            self.attempt(run, Outcome.COMPLETED, holder, ms, after=2, result_json='{"rows": 99215, "partitions": 3}')
        self.move(run, timedelta(minutes=(140 - number) * 4 + 6))

    def failed(self) -> int:
        """One that used up its attempts, with its log."""
        from tasks_app import services
        from tasks_app.states import Outcome

        run = services.trigger(self.tasks["etl.orders"], triggered_by="schedule")
        for outcome, holder, ms, after, facts in (
            (Outcome.FAILED, 0, 9100, 2.0, ERROR), (Outcome.FAILED, 0, 14_800, 8.0, ERROR),
            (Outcome.LOST, 3, 61_000, 21.0, {"error_message": "worker w-04 was lost"}),
            (Outcome.FAILED, 0, 12_200, 3.0, ERROR),
        ):  # fmt: skip
            self.attempt(run, outcome, self.holders[holder], ms, after=after, **facts)
        for attempt in (1, 4):
            self.write(run, attempt, LOG, "warning: partition 3 is late\n", ERROR["error_message"] + "\n")
        self.move(run, timedelta(minutes=9))
        return run.pk

    def quarantined(self) -> int:
        """One that killed its worker's process."""
        from tasks_app import services
        from tasks_app.states import Outcome
        from tests.integration.faces import a_task

        run = services.trigger(a_task("image.convert", task_type="image", quarantine_after=1))
        self.attempt(run, Outcome.LOST, self.holders[1], 900, error_message="the pool process died: signal 9")
        return run.pk

    def present(self) -> dict[str, int]:
        """What runs and what waits."""
        from tasks_app import services
        from tasks_app.models import TaskRun

        running = []
        for name, progress in (("etl.customers", 62.0), ("etl.stock", None), ("mail.digest", 8.0)):
            run = services.trigger(self.tasks[name], triggered_by="schedule")
            self.permit(run, self.holders[0], self.now)
            self.write(run, 1, LOG)
            if progress:
                TaskRun.objects.filter(pk=run.pk).update(progress={"percent": progress, "message": "page 31 of 50"})
            running.append(run.pk)
        services.trigger(self.tasks["etl.orders"], triggered_by="schedule")
        return {"running": running[0], "paused": services.trigger(self.tasks["search.reindex"], by="ada").pk}

    def permit(self, run: TaskRun, holder: WorkerIncarnation, at: datetime) -> None:
        """Claimed and begun."""
        from tasks_app import lifecycle
        from tasks_app.models import TaskRun

        lifecycle.claim(TaskRun.objects.filter(pk=run.pk), now=at, permit_within=timedelta(minutes=1))
        run.refresh_from_db()
        assert run.token
        held = lifecycle.Holder(worker_id=holder.worker_id, incarnation_id=holder.id, alive_sql="1=1")
        lifecycle.permit([lifecycle.PermitAsk(run_id=run.pk, token=run.token, nonce=uuid4())], holder=held, now=at)

    def attempt(
        self, run: TaskRun, outcome: Any, holder: WorkerIncarnation, ms: int, *, after: float = 0, **facts: Any
    ) -> None:
        """An attempt that begins so many seconds after the one before ended."""
        from tasks_app import lifecycle
        from tasks_app.clock import clock

        at = max([clock.now(), *(row.ended_at for row in run.attempts.all())]) + timedelta(seconds=after)
        self.permit(run, holder, at)
        end = at + timedelta(milliseconds=ms)
        assert run.token
        finished = lifecycle.Finished(
            run_id=run.pk, attempt=run.attempt, token=run.token, outcome=outcome, started_at=at, ended_at=end,
            duration_ms=ms, **facts,
        )  # fmt: skip
        lifecycle.finish([finished], now=end)
        run.refresh_from_db()

    def write(self, run: TaskRun, attempt: int, *texts: str) -> None:
        """Output: the first text to stdout, the others to stderr."""
        from tasks_app.models import RunLogChunk

        for seq, text in enumerate(texts, start=1):
            stream = "stdout" if seq == 1 else "stderr"
            RunLogChunk.objects.create(
                run=run, attempt=attempt, seq=seq, stream=stream, text=text, token=uuid4(), at=self.now
            )

    def move(self, run: TaskRun, back: timedelta) -> None:
        """As if it had been earlier."""
        for row in (run, *run.attempts.all(), *run.events.all()):
            for field in row._meta.concrete_fields:
                value = getattr(row, field.attname)
                if isinstance(value, datetime):
                    setattr(row, field.attname, value - back)
            row.save()


if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "scheduler_project.settings")
    django.setup()
    print(json.dumps(Scenes().fill()))
