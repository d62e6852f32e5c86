"""Workers and their incarnations: shown; drained and resumed by the service."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from scheduler_project.console.listing import ReadOnlyAdmin, each
from tasks_app.clock import clock
from workers_app.conf import conf
from workers_app.models import Worker, WorkerIncarnation


class WorkerAdmin(ReadOnlyAdmin):
    """Workers by name."""

    list_display = (
        "name", "state", "current_task_count", "max_concurrent_tasks", "cpu_percent", "memory_percent", "host",
        "code_version", "last_heartbeat",
    )  # fmt: skip
    search_fields = ("name",)
    prefix_column = "name"
    number_columns = ()
    ordering = ("name",)
    actions = ["drain", "resume"]
    readonly_fields = ("pool_ends",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Worker]:
        """With the state that their rows add up to now."""
        suspect_after = timedelta(seconds=conf().suspect_after_seconds)
        return super().get_queryset(request).with_state(clock.now(), suspect_after)  # type: ignore[attr-defined,no-any-return]

    @admin.display(description=_("state"))
    def state(self, worker: Any) -> str:
        """Computed, never stored."""
        return str(worker.state)

    @admin.display(description=_("what its pool can end"))
    def pool_ends(self, worker: Worker) -> str:
        """Whether bodies can be killed there."""
        return worker.pool_says

    def has_operate_permission(self, request: HttpRequest) -> bool:
        """Draining changes workers."""
        return request.user.has_perm("workers_app.change_worker")

    @admin.action(description=_("Drain: take no more work"), permissions=["operate"])
    def drain(self, request: HttpRequest, queryset: QuerySet[Worker]) -> None:
        """Drain each."""
        from dispatch.services import drain_worker

        by = request.user.get_username()
        each(request, queryset, lambda worker: drain_worker(worker.name, by=by))

    @admin.action(description=_("Resume: take work again"), permissions=["operate"])
    def resume(self, request: HttpRequest, queryset: QuerySet[Worker]) -> None:
        """Resume each."""
        from dispatch.services import resume_worker

        each(request, queryset, lambda worker: resume_worker(worker.name))


class IncarnationAdmin(ReadOnlyAdmin):
    """Starts of workers and their leases."""

    list_display = ("worker_id", "started_at", "renewed_at", "over_at", "ended_cleanly", "slots", "host", "pid")
    list_filter = ("ended_cleanly",)
    search_fields = ("worker_id",)
    prefix_column = "worker__name"
    number_columns = ()
    ordering = ("-started_at",)


admin.site.register(Worker, WorkerAdmin)
admin.site.register(WorkerIncarnation, IncarnationAdmin)
