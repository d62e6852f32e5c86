"""Something to see in every page: `python -m tests.console.scenes` fills the database that the environment names.

States are reached by the lifecycle's own verbs; only then are times moved back, so that pages show a day's work.
"""

from __future__ import annotations

import os
import random
from datetime import timedelta
from typing import Any
from uuid import uuid4

TRACEBACK = """Traceback (most recent call last):
  File "/srv/jobs/orders.py", line 48, in load
    rows = connection.fetch(QUERY, day)
  File "/srv/jobs/lib/warehouse.py", line 112, in fetch
    raise ConnectionError(f"warehouse {host} refused the connection")
ConnectionError: warehouse dw-2.example.net refused the connection"""
LOG = """2026-11-25 02:14:01 connecting to dw-2.example.net
2026-11-25 02:14:01 day 2026-11-24, 3 partitions
partition 1/3: 48,211 rows in 1.9 s
partition 2/3: 51,004 rows in 2.2 s
"""
TASKS = (
    ("etl.orders", "default", 300, 3), ("etl.customers", "default", 900, 3), ("etl.stock", "default", 60, 1),
    ("backup.database", "backup", 86400, 2), ("backup.files", "backup", None, 2), ("mail.digest", "mail", 3600, 5),
    ("image.resize", "image", None, 0), ("report.monthly sales", "default", None, 1), ("search.reindex", "default", 7200, 2),
    ("webhook.deliver", "default", None, 8),
)  # fmt: skip


def fill() -> dict[str, int]:
    """Fill the database; the numbers of runs that pages are shown for, by what they are."""
    from django.contrib.auth.models import User

    from tasks_app import lifecycle, services
    from tasks_app.clock import clock
    from tasks_app.models import RunLogChunk, Schedule, TaskRun
    from tasks_app.states import Outcome
    from tests.integration.faces import a_task, a_worker, dispatched, ended, user
    from workers_app.models import Worker, WorkerIncarnation

    chance = random.Random(7)
    now = clock.now()
    root = user("ada", superuser=True)
    User.objects.filter(pk=root.pk).update(is_staff=True)
    user("eve", may=("tasks_app.view_taskrun", "tasks_app.view_task", "workers_app.view_worker"))
    holders = [
        a_worker(name, host=f"{name}.example.net", pid=4000 + n, slots=4, code_version="0.1.0", task_types=types)
        for n, (name, types) in enumerate(
            (("w-01", ["default", "mail"]), ("w-02", ["default", "image"]), ("w-03", ["backup"]), ("w-04", ["default"]))
        )
    ]
    for number, holder in enumerate(holders):
        Worker.objects.filter(pk=holder.worker_id).update(
            host=holder.host, pid=holder.pid, code_version="0.1.0", max_concurrent_tasks=4, supported_task_types=holder.task_types,
            current_task_count=number % 4, load_percentage=25.0 * (number % 4), cpu_percent=12 + 19 * number, memory_percent=31 + 7 * number,
            memory_rss_bytes=180 * 2**20, functions=["demo.count_words", "demo.disk_report"], registered_at=now - timedelta(days=40),
        )  # fmt: skip
    WorkerIncarnation.objects.filter(pk=holders[3].pk).update(over_at=now - timedelta(minutes=7), renewed_at=now - timedelta(minutes=8))
    Worker.objects.filter(pk="w-04").update(last_heartbeat=now - timedelta(minutes=8))
    Worker.objects.filter(pk="w-02").update(draining_since=now - timedelta(minutes=20), drain_requested_by="ada")
    tasks = {}
    for name, task_type, every, retries in TASKS:
        tasks[name] = a_task(
            name, task_type=task_type, max_retries=retries, timeout_seconds=120, retry_delay_seconds=0.0,
            retry_delay_cap_seconds=0.0, every_seconds=float(every) if every else None,
            parameters={"command": "python -m jobs.load --day today", "shell": True, "env": {"DAY": "2026-11-24", "TARGET": "dw-2.example.net"}},
            description="Loads the day's rows into the warehouse." if name.startswith("etl") else "",
        )  # fmt: skip
    services.pause_task(tasks["search.reindex"].pk, by="ada", reason="index is being moved to the new cluster")

    def attempt(run: TaskRun, outcome: Outcome, holder: WorkerIncarnation, ms: int, **facts: Any) -> TaskRun:
        run = dispatched(run)
        assert run.token
        held = lifecycle.Holder(worker_id=holder.worker_id, incarnation_id=holder.id, alive_sql="1=1")
        at = clock.now()
        lifecycle.permit([lifecycle.PermitAsk(run_id=run.pk, token=run.token, nonce=uuid4())], holder=held, now=at)
        finished = lifecycle.Finished(
            run_id=run.pk, attempt=run.attempt, token=run.token, outcome=outcome, started_at=at, ended_at=at + timedelta(milliseconds=ms),
            duration_ms=ms, **facts,
        )  # fmt: skip
        lifecycle.finish([finished], now=at + timedelta(milliseconds=ms))
        run.refresh_from_db()
        return run

    def moved(run: TaskRun, back: timedelta) -> None:
        for row in (run, *run.attempts.all(), *run.events.all()):
            for field in row._meta.concrete_fields:
                value = getattr(row, field.attname)
                if field.get_internal_type() == "DateTimeField" and value is not None:
                    setattr(row, field.attname, value - back)
            row.save()

    found: dict[str, int] = {}
    names = list(tasks)
    for number in range(140):
        task = tasks[chance.choice(names[:6] + ["image.resize", "webhook.deliver"])]
        run = services.trigger(task, triggered_by=chance.choice(["schedule", "schedule", "api"]), by=chance.choice(["", "", "ada"]))
        holder = holders[2] if task.task_type == "backup" else holders[number % 2]
        draw = chance.random()
        ms = int(chance.lognormvariate(7.5, 1.1))
        if draw < 0.06:
            run = attempt(run, Outcome.FAILED, holder, ms, retryable=False, error_type="ConnectionError", error_message=TRACEBACK)
        elif draw < 0.08:
            run = attempt(run, Outcome.TIMEOUT, holder, 120_000, retryable=False, error_message="ran longer than 120 s")
        elif draw < 0.1:
            services.cancel_run(run.pk, by="ada")
            run.refresh_from_db()
        elif draw < 0.16 and task.max_retries:
            run = attempt(run, Outcome.FAILED, holder, ms, error_type="OSError", error_message="OSError: connection reset by peer")
            run = attempt(run, Outcome.COMPLETED, holder, ms, result_json='{"rows": 99215}')
        else:
            run = attempt(run, Outcome.COMPLETED, holder, ms, result_json='{"rows": 99215, "partitions": 3}')
            found["completed"] = run.pk
        moved(run, timedelta(minutes=(140 - number) * 4 + 6))

    run = services.trigger(tasks["etl.orders"], triggered_by="schedule")
    for ms in (2100, 4800):
        run = attempt(run, Outcome.FAILED, holders[0], ms, error_type="ConnectionError", error_message=TRACEBACK)
    run = attempt(run, Outcome.LOST, holders[3], 61_000, error_message="worker w-04 was lost")
    run = attempt(run, Outcome.FAILED, holders[0], 6200, error_type="ConnectionError", error_message=TRACEBACK)
    for seq, (stream, text) in enumerate((("stdout", LOG), ("stderr", "warning: partition 3 is late\n"), ("stderr", TRACEBACK + "\n")), start=1):
        RunLogChunk.objects.create(run=run, attempt=1, seq=seq, stream=stream, text=text, token=uuid4(), at=now - timedelta(minutes=8))
    RunLogChunk.objects.create(run=run, attempt=4, seq=1, stream="stdout", text=LOG, token=uuid4(), at=now - timedelta(minutes=6))
    moved(run, timedelta(minutes=9))
    found["failed"] = run.pk
    run = services.trigger(tasks["image.resize"], by="ada")
    quarantined = services.trigger(a_task("image.convert", task_type="image", quarantine_after=1))
    found["quarantined"] = attempt(quarantined, Outcome.LOST, holders[1], 900, error_message="the pool process died: signal 9").pk

    for name, progress in (("etl.customers", 62.0), ("etl.stock", None), ("mail.digest", 8.0)):
        active = dispatched(services.trigger(tasks[name], triggered_by="schedule"))
        assert active.token
        held = lifecycle.Holder(worker_id="w-01", incarnation_id=holders[0].id, alive_sql="1=1")
        lifecycle.permit([lifecycle.PermitAsk(run_id=active.pk, token=active.token, nonce=uuid4())], holder=held, now=clock.now())
        said = {"percent": progress, "message": "page 31 of 50"} if progress else None
        TaskRun.objects.filter(pk=active.pk).update(progress=said)
        RunLogChunk.objects.create(run=active, attempt=1, seq=1, stream="stdout", text=LOG, token=uuid4(), at=clock.now())
        found["running"] = found.get("running", active.pk)
    found["paused"] = services.trigger(tasks["search.reindex"], by="ada").pk
    services.trigger(tasks["etl.orders"], triggered_by="schedule")
    ended(services.trigger(tasks["etl.stock"]))
    for number, schedule in enumerate(Schedule.objects.order_by("pk"), start=1):
        Schedule.objects.filter(pk=schedule.pk).update(next_fire_at=now + timedelta(seconds=47 * number * number))
    found["task"] = tasks["etl.orders"].pk
    return found


if __name__ == "__main__":
    import json

    import django

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "scheduler_project.settings")
    django.setup()
    print(json.dumps(fill()))
