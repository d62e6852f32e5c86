"""Runs and what belongs to them: shown, never edited."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html_join
from django.utils.translation import gettext as _text
from django.utils.translation import gettext_lazy as _

from scheduler_project.console.listing import ACTION_MAX, ReadOnlyAdmin, each, tell
from tasks_app import services
from tasks_app.models import PoisonReport, RunEvent, RunLogChunk, Task, TaskRun, TaskRunAttempt


class RunAdmin(ReadOnlyAdmin):
    """Runs, newest first."""

    list_display = (
        "id", "task_name", "status", "worker_id", "attempt", "created_at", "started_at", "execution_duration_ms",
        "triggered_by",
    )  # fmt: skip
    list_filter = ("status", "executor", "triggered_by")
    search_fields = ("task_name",)
    search_help_text = _("Number of the run, or the beginning of a task's name.")
    list_select_related = ("task",)
    ordering = ("-pk",)
    actions = ["cancel", "retry", "release"]
    fields = (
        "task", "task_name", "task_version", "task_type", "executor", "status", "related", "parameters", "result",
        "error_message", "progress", "priority", "lane", "attempt", "max_retries", "crash_count", "dispatch_count",
        "worker_id", "incarnation_id", "created_at", "due_at", "scheduled_at", "dispatched_at", "permitted_at",
        "started_at", "deadline_at", "completed_at", "execution_duration_ms", "timeout_seconds",
        "cancel_requested_at", "cancel_requested_by", "stop_reason", "triggered_by", "created_by", "retry_of",
        "correlation_id", "traceparent",
    )  # fmt: skip
    readonly_fields = ("related",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[TaskRun]:
        """A list reads no column that may be large."""
        rows = super().get_queryset(request)
        if request.resolver_match and request.resolver_match.url_name == "tasks_app_taskrun_changelist":
            rows = rows.defer("parameters", "result", "error_message", "progress")
        return rows

    def search_by_name(self, queryset: QuerySet[Any], term: str) -> QuerySet[Any]:
        """By way of the tasks: runs have an index by task, and none by name."""
        tasks = Task.objects.filter(name__startswith=term).order_by("-pk").values_list("pk", flat=True)[:100]
        return queryset.filter(task_id__in=list(tasks))

    @admin.display(description=_("see also"))
    def related(self, run: TaskRun) -> str:
        """Lists of what belongs to the run."""
        lists = (
            (_text("attempts"), "taskrunattempt"),
            (_text("events"), "runevent"),
            (_text("output"), "runlogchunk"),
        )
        return format_html_join(
            " · ",
            '<a href="{}?run__id__exact={}">{}</a>',
            ((reverse(f"admin:tasks_app_{model}_changelist"), run.pk, text) for text, model in lists),
        )

    def has_operate_permission(self, request: HttpRequest) -> bool:
        """Cancelling and releasing change runs."""
        return request.user.has_perm("tasks_app.change_taskrun")

    def has_submit_permission(self, request: HttpRequest) -> bool:
        """Retrying adds runs."""
        return request.user.has_perm("tasks_app.add_taskrun")

    @admin.action(description=_("Cancel"), permissions=["operate"])
    def cancel(self, request: HttpRequest, queryset: QuerySet[TaskRun]) -> None:
        """Cancel all, in one call."""
        from dispatch.services import cancel_runs

        ids = list(queryset.values_list("pk", flat=True)[:ACTION_MAX])
        answer = cancel_runs(ids, by=request.user.get_username())
        ended = {_text("it has ended"): len(answer.stale)} if answer.stale else {}
        tell(request, len(answer.cancelled) + len(answer.requested), ended)

    @admin.action(description=_("Retry as a new run"), permissions=["submit"])
    def retry(self, request: HttpRequest, queryset: QuerySet[TaskRun]) -> None:
        """A new run like each."""
        by = request.user.get_username()
        each(request, queryset, lambda run: services.retry_run(run.pk, by=by))

    @admin.action(description=_("Release from quarantine"), permissions=["operate"])
    def release(self, request: HttpRequest, queryset: QuerySet[TaskRun]) -> None:
        """Let each go on."""
        by = request.user.get_username()
        each(request, queryset, lambda run: services.release_run(run.pk, by=by))


class OfRunAdmin(ReadOnlyAdmin):
    """Rows that belong to a run, newest first; searched by the run's number."""

    ordering = ("-pk",)
    search_fields = ("run",)
    search_help_text = _("Number of the run.")
    number_columns = ("run_id",)
    raw_id_fields = ("run",)


class AttemptAdmin(OfRunAdmin):
    """Attempts that ended."""

    list_display = ("run_id", "number", "status", "worker_id", "started_at", "ended_at", "execution_duration_ms")
    list_filter = ("status",)


class EventAdmin(OfRunAdmin):
    """What happened to runs."""

    list_display = ("run_id", "at", "kind", "attempt", "detail")


class LogChunkAdmin(OfRunAdmin):
    """What runs wrote."""

    list_display = ("run_id", "attempt", "seq", "stream", "at", "beginning")

    @admin.display(description=_("text"))
    def beginning(self, chunk: RunLogChunk) -> str:
        """The first letters."""
        return chunk.text[:80]


class PoisonReportAdmin(ReadOnlyAdmin):
    """Reports that could not be applied."""

    list_display = ("id", "received_at", "worker_id", "error")
    ordering = ("-pk",)


admin.site.register(TaskRun, RunAdmin)
admin.site.register(TaskRunAttempt, AttemptAdmin)
admin.site.register(RunEvent, EventAdmin)
admin.site.register(RunLogChunk, LogChunkAdmin)
admin.site.register(PoisonReport, PoisonReportAdmin)
