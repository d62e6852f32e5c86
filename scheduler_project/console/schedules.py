"""Schedules: shown. They are edited with their task, so that what they say and when they fire next stay together."""

from __future__ import annotations

from django.contrib import admin
from django_celery_beat import models as beat

from scheduler_project.console.listing import ReadOnlyAdmin
from tasks_app.models import Schedule, ScheduleFire


class ScheduleAdmin(ReadOnlyAdmin):
    """When tasks fire."""

    list_display = ("task", "periodic_task", "next_fire_at", "last_fire_at")
    list_select_related = (
        "task", "periodic_task__interval", "periodic_task__clocked", "periodic_task__crontab", "periodic_task__solar",
    )  # fmt: skip
    search_fields = ("task__name",)
    prefix_column = "task__name"
    number_columns = ("task_id",)
    ordering = ("pk",)


class FireAdmin(ReadOnlyAdmin):
    """Decisions about nominal times."""

    list_display = ("schedule_id", "instant", "decision", "run_id", "count", "reason", "at")
    list_filter = ("decision",)
    search_fields = ("schedule",)
    number_columns = ("schedule_id",)
    ordering = ("-pk",)


class BeatAdmin(ReadOnlyAdmin):
    """A table of django-celery-beat."""

    ordering = ("pk",)


admin.site.register(Schedule, ScheduleAdmin)
admin.site.register(ScheduleFire, FireAdmin)
for model in (
    beat.PeriodicTask,
    beat.IntervalSchedule,
    beat.ClockedSchedule,
    beat.CrontabSchedule,
    beat.SolarSchedule,
):
    # Editing these behind the back of `Schedule` would change what a schedule says and not when it fires.
    if admin.site.is_registered(model):
        admin.site.unregister(model)
    admin.site.register(model, BeatAdmin)
