"""Tasks in the admin: the form is a definition, saving is the service's business."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.widgets import AdminSplitDateTime
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.translation import gettext_lazy as _

from scheduler_project.api.errors import said
from scheduler_project.console.listing import BoundedAdmin, ReadOnlyAdmin, each
from tasks_app import services
from tasks_app.definitions import FIELDS, TaskDefinition
from tasks_app.errors import InvalidTask, SignalboxError
from tasks_app.models import Queue, Task, TaskVersion


class TaskForm(forms.ModelForm):  # type: ignore[type-arg]
    """A definition. What is right is said by `tasks_app.definitions`, as everywhere."""

    every_seconds = forms.FloatField(
        label=_("every (s)"), required=False, help_text=_("Seconds between runs; empty for none.")
    )
    run_at = forms.SplitDateTimeField(
        label=_("once at (UTC)"),
        required=False,
        widget=AdminSplitDateTime(),
        help_text=_("A time instead of an interval."),
    )
    seen_version = forms.IntegerField(widget=forms.HiddenInput, required=False)

    class Meta:
        model = Task
        fields = [name for name in FIELDS if name not in {"every_seconds", "run_at"}]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.instance.pk:
            definition = services.definition_of(self.instance)
            self.initial["every_seconds"], self.initial["run_at"] = definition.every_seconds, definition.run_at
            self.initial["seen_version"] = self.instance.version

    def clean(self) -> dict[str, Any]:
        """Say what is wrong where it is wrong."""
        cleaned = super().clean() or self.cleaned_data
        if self.errors:
            return cleaned
        try:
            services.check(self.definition())
        except InvalidTask as error:
            for field, texts in error.problems.items():
                for text in texts:
                    self.add_error(field if field in self.fields else None, said(text))
        return cleaned

    def definition(self) -> TaskDefinition:
        """What the form says."""
        values = {name: self.cleaned_data[name] for name in FIELDS}
        values["parameters"] = values["parameters"] or {}
        return TaskDefinition(**values)


class TaskAdmin(BoundedAdmin):
    """Tasks that are in use."""

    form = TaskForm
    list_display = ("name", "executor", "task_type", "paused", "version", "updated_at")
    list_filter = ("executor", "task_type", ("paused_at", admin.EmptyFieldListFilter))
    search_fields = ("name",)
    prefix_column = "name"
    ordering = ("name",)
    actions = ["trigger", "pause", "resume"]
    readonly_fields = ("version", "paused_at", "paused_by", "pause_reason", "created_at", "created_by", "updated_at")
    fieldsets = (
        (None, {"fields": ("name", "description", "task_type", "executor", "parameters", "seen_version")}),
        (_("Schedule"), {"fields": ("every_seconds", "run_at")}),
        (
            _("Policies"),
            {
                "fields": (
                    "priority", "timeout_seconds", "max_retries", "retry_delay_seconds", "retry_delay_cap_seconds",
                    "quarantine_after", "keep_running",
                )
            },
        ),
        (_("History"), {"fields": readonly_fields}),
    )  # fmt: skip

    @admin.display(boolean=True, description=_("paused"))
    def paused(self, task: Task) -> bool:
        """Whether runs are kept from starting."""
        return task.paused_at is not None

    def get_queryset(self, request: HttpRequest) -> QuerySet[Task]:
        """Without the deleted ones."""
        return super().get_queryset(request).filter(deleted_at__isnull=True)

    def changeform_view(
        self, request: HttpRequest, object_id: str | None = None, *args: Any, **kwargs: Any
    ) -> HttpResponse:
        """As always; what only shows at saving (an edit by somebody else) is told."""
        try:
            return super().changeform_view(request, object_id, *args, **kwargs)
        except SignalboxError as error:
            messages.error(request, said(error.detail))
            return HttpResponseRedirect(request.path)

    def save_model(self, request: HttpRequest, obj: Task, form: Any, change: bool) -> None:
        """One call into the service."""
        by = request.user.get_username()
        if change:
            seen = form.cleaned_data["seen_version"]
            saved = services.update_task(obj.pk, form.definition(), expected_version=seen, by=by)
        else:
            saved = services.create_task(form.definition(), by=by)
        obj.__dict__.update(saved.__dict__)

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:  # noqa: ARG002
        """Deleting takes a task out of use and leaves its history, so nothing else goes with it."""
        names = [str(task) for task in objs[:100]]
        return names, {Task._meta.verbose_name_plural: len(names)}, set(), []

    def delete_model(self, request: HttpRequest, obj: Task) -> None:
        """One call into the service."""
        services.delete_task(obj.pk, by=request.user.get_username())

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Task]) -> None:
        """One call for each."""
        each(request, queryset, lambda task: self.delete_model(request, task))

    def has_trigger_permission(self, request: HttpRequest) -> bool:
        """Triggering adds runs."""
        return request.user.has_perm("tasks_app.add_taskrun")

    @admin.action(description=_("Run now"), permissions=["trigger"])
    def trigger(self, request: HttpRequest, queryset: QuerySet[Task]) -> None:
        """Submit a run of each."""
        by = request.user.get_username()
        trace = getattr(request, "traceparent", "")
        each(request, queryset, lambda task: services.trigger(task, triggered_by="admin", by=by, traceparent=trace))

    @admin.action(description=_("Pause: no run starts from now on"), permissions=["change"])
    def pause(self, request: HttpRequest, queryset: QuerySet[Task]) -> None:
        """Pause each."""
        by = request.user.get_username()
        each(request, queryset, lambda task: services.pause_task(task.pk, by=by))

    @admin.action(description=_("Resume: runs start again"), permissions=["change"])
    def resume(self, request: HttpRequest, queryset: QuerySet[Task]) -> None:
        """Resume each."""
        each(request, queryset, lambda task: services.resume_task(task.pk))


class TaskVersionAdmin(ReadOnlyAdmin):
    """What tasks said before."""

    list_display = ("task", "number", "created_at", "created_by")
    list_select_related = ("task",)
    ordering = ("-pk",)
    search_fields = ("task__name",)
    prefix_column = "task__name"
    number_columns = ("task_id",)


class QueueAdmin(BoundedAdmin):
    """One row a task type; its backlog limit can be set."""

    list_display = ("name", "backlog_max", "created_at")
    search_fields = ("name",)
    prefix_column = "name"
    number_columns = ()
    ordering = ("name",)
    fields = ("name", "backlog_max", "created_at")
    readonly_fields = ("name", "created_at")

    def has_add_permission(self, request: HttpRequest) -> bool:  # noqa: ARG002
        """A queue comes with its first task."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:  # noqa: ARG002
        """Dispatchers lock this row."""
        return False


admin.site.register(Task, TaskAdmin)
admin.site.register(TaskVersion, TaskVersionAdmin)
admin.site.register(Queue, QueueAdmin)
