"""Schedules become runs: each nominal time once, every skip a visible row."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django_celery_beat.models import ClockedSchedule, CrontabSchedule, IntervalSchedule, PeriodicTask

from dispatch.firing import fire_due
from tasks_app.models import Schedule, ScheduleFire, Task, TaskRun
from tests.integration.domain import NOW, a_task

pytestmark = pytest.mark.django_db


def every(seconds: int, *, first: Any = NOW, task: Task | None = None) -> Schedule:
    target = task or a_task()
    interval, _ = IntervalSchedule.objects.get_or_create(every=seconds, period=IntervalSchedule.SECONDS)
    periodic = PeriodicTask.objects.create(name=f"s{target.pk}-{seconds}", task=target.name, interval=interval)
    return Schedule.objects.create(periodic_task=periodic, task=target, next_fire_at=first)


def once(at: Any) -> Schedule:
    task = a_task()
    clocked = ClockedSchedule.objects.create(clocked_time=at)
    periodic = PeriodicTask.objects.create(name=f"c{task.pk}", task=task.name, clocked=clocked, one_off=True)
    return Schedule.objects.create(periodic_task=periodic, task=task, next_fire_at=at)


def fires(schedule: Schedule) -> list[tuple[str, Any, Any, int]]:
    return list(
        ScheduleFire.objects.filter(schedule=schedule).order_by("instant")
        .values_list("decision", "instant", "last_instant", "count")
    )  # fmt: skip


def test_a_due_schedule_makes_one_run_for_its_nominal_time():
    schedule = every(60, first=NOW - timedelta(seconds=1))
    assert fire_due(NOW).runs == 1
    run = TaskRun.objects.get()
    schedule.refresh_from_db()
    assert (run.scheduled_at, run.due_at, run.triggered_by) == (NOW - timedelta(seconds=1),) * 2 + ("schedule",)
    assert schedule.next_fire_at == NOW + timedelta(seconds=59)
    assert fires(schedule) == [("fired", NOW - timedelta(seconds=1), None, 1)]
    assert PeriodicTask.objects.get().last_run_at == NOW
    assert fire_due(NOW).runs == 0


def test_missed_times_are_one_skipped_row_and_the_newest_fires():
    schedule = every(60, first=NOW - timedelta(seconds=150))
    assert fire_due(NOW).skipped == 2
    assert fires(schedule) == [
        ("skipped", NOW - timedelta(seconds=150), NOW - timedelta(seconds=90), 2),
        ("fired", NOW - timedelta(seconds=30), None, 1),
    ]


def test_a_one_off_fires_once_however_late_and_ends():
    schedule = once(NOW - timedelta(days=3))
    fire_due(NOW)
    fire_due(NOW)
    schedule.refresh_from_db()
    assert schedule.next_fire_at is None
    assert not schedule.periodic_task.enabled
    assert TaskRun.objects.count() == 1


def test_a_nominal_time_that_is_recorded_already_is_not_fired_again():
    schedule = every(60)
    fire_due(NOW)
    Schedule.objects.filter(pk=schedule.pk).update(next_fire_at=NOW)
    assert fire_due(NOW).runs == 0
    schedule.refresh_from_db()
    assert schedule.next_fire_at == NOW + timedelta(seconds=60)
    assert TaskRun.objects.count() == 1


@pytest.mark.parametrize("why", ["paused", "deleted", "disabled", "later"])
def test_a_schedule_that_may_not_fire_does_not(why: str):
    schedule = every(60, first=NOW + timedelta(seconds=1) if why == "later" else NOW)
    if why == "disabled":
        PeriodicTask.objects.update(enabled=False)
    elif why != "later":
        Task.objects.update(**{f"{why}_at": NOW})
    assert fire_due(NOW).runs == 0
    assert fires(schedule) == []


def test_a_schedule_of_a_kind_that_is_not_known_yet_is_taken_out_and_holds_up_nobody():
    task = a_task()
    crontab = CrontabSchedule.objects.create(minute="5")
    periodic = PeriodicTask.objects.create(name="cron", task=task.name, crontab=crontab)
    odd = Schedule.objects.create(periodic_task=periodic, task=task, next_fire_at=NOW)
    every(60)
    assert fire_due(NOW).runs == 1
    odd.refresh_from_db()
    assert odd.next_fire_at is None


def test_many_schedules_are_fired_in_batches_with_few_statements(django_assert_max_num_queries: Any):
    task = a_task()
    for seconds in range(60, 100):
        every(seconds, task=task)
    with django_assert_max_num_queries(60 if connection.vendor == "sqlite" else 14):
        fired = fire_due(NOW, batch=30)
    assert (fired.runs, fired.more) == (30, True)
    assert fire_due(NOW, batch=30).runs == 10


@pytest.mark.django_db(transaction=True)
@pytest.mark.postgresql_only
def test_several_dispatchers_fire_each_time_once():
    task = a_task()
    for seconds in range(60, 160):
        every(seconds, task=task)
    start = threading.Barrier(3)
    errors: list[BaseException] = []

    def dispatch() -> None:
        try:
            start.wait()
            for _ in range(20):
                fire_due(NOW, batch=7)
        except BaseException as error:
            errors.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=dispatch) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert TaskRun.objects.count() == ScheduleFire.objects.filter(decision="fired").count() == 100
