"""`tasks`: definitions, and what can be done with them."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ViewSet

from scheduler_project.access.permissions import Guarded
from scheduler_project.api import runs
from scheduler_project.api.paging import check_parameters, page
from scheduler_project.api.parsing import MalformedBody, body_of, refuse_unknown, text_of
from scheduler_project.api.shapes import PAGING, ParametersOver, author, page_of
from tasks_app import services, statistics
from tasks_app.clock import clock
from tasks_app.definitions import EXECUTORS, TaskDefinition, definition_from
from tasks_app.models import Task
from tasks_app.text import Text


class TaskShape(serializers.ModelSerializer[Task]):
    """A task as it is answered."""

    every_seconds = serializers.SerializerMethodField()
    run_at = serializers.SerializerMethodField()
    next_fire_at = serializers.SerializerMethodField()
    paused = serializers.SerializerMethodField()

    class Meta:
        model = Task
        fields = (
            "id", "name", "description", "task_type", "executor", "parameters", "timeout_seconds", "max_retries",
            "retry_delay_seconds", "retry_delay_cap_seconds", "priority", "quarantine_after", "keep_running",
            "every_seconds", "run_at", "next_fire_at", "version", "paused", "paused_at", "paused_by", "pause_reason",
            "created_at", "created_by", "updated_at",
        )  # fmt: skip
        read_only_fields = fields

    @extend_schema_field(serializers.FloatField(allow_null=True))
    def get_every_seconds(self, task: Task) -> float | None:
        """Seconds between runs."""
        return services.definition_of(task).every_seconds

    @extend_schema_field(serializers.DateTimeField(allow_null=True))
    def get_run_at(self, task: Task) -> str | None:
        """The one-off time."""
        at = services.definition_of(task).run_at
        return at.isoformat().replace("+00:00", "Z") if at else None

    @extend_schema_field(serializers.DateTimeField(allow_null=True))
    def get_next_fire_at(self, task: Task) -> str | None:
        """When the schedule fires next."""
        times = [schedule.next_fire_at for schedule in task.schedules.all() if schedule.next_fire_at]
        return min(times).isoformat().replace("+00:00", "Z") if times else None

    def get_paused(self, task: Task) -> bool:
        """Whether runs are kept from starting."""
        return task.paused_at is not None


#: Fields of the answer that are not part of a definition: a client may send back what it got.
READ_ONLY = frozenset(TaskShape.Meta.fields) - {f.name for f in dataclasses.fields(TaskDefinition)}


class TaskGiven(serializers.Serializer[Any]):
    """A task as it is given. For the description only: what is right is said by `tasks_app.definitions`."""

    name = serializers.CharField()
    executor = serializers.ChoiceField(choices=EXECUTORS)
    task_type = serializers.CharField(required=False)
    description = serializers.CharField(required=False, allow_blank=True)
    parameters = serializers.DictField(required=False)
    timeout_seconds = serializers.IntegerField(required=False)
    max_retries = serializers.IntegerField(required=False)
    retry_delay_seconds = serializers.FloatField(required=False)
    retry_delay_cap_seconds = serializers.FloatField(required=False)
    priority = serializers.IntegerField(required=False)
    quarantine_after = serializers.IntegerField(required=False)
    keep_running = serializers.BooleanField(required=False)
    every_seconds = serializers.FloatField(required=False, allow_null=True)
    run_at = serializers.DateTimeField(required=False, allow_null=True)


class StatisticsShape(serializers.Serializer[Any]):
    """What a task's runs add up to; durations in milliseconds, rates from 0 to 1."""

    days = serializers.IntegerField()
    total = serializers.IntegerField()
    successful = serializers.IntegerField()
    failed = serializers.IntegerField()
    timeout = serializers.IntegerField()
    cancelled = serializers.IntegerField()
    active = serializers.IntegerField()
    success_rate = serializers.FloatField(allow_null=True)
    average_ms = serializers.FloatField(allow_null=True)
    p50_ms = serializers.IntegerField(allow_null=True)
    p95_ms = serializers.IntegerField(allow_null=True)
    last_execution = serializers.DateTimeField(allow_null=True)
    capped = serializers.BooleanField()


class PauseGiven(serializers.Serializer[Any]):
    """Why a task is paused."""

    reason = serializers.CharField(required=False, allow_blank=True)


_IF_MATCH = OpenApiParameter(
    "If-Match", OpenApiTypes.STR, OpenApiParameter.HEADER, description="The ETag of the version that is meant"
)


class Tasks(Guarded, ViewSet):
    """Definitions of work."""

    permissions_needed: ClassVar = {
        "list": "tasks_app.view_task",
        "create": "tasks_app.add_task",
        "retrieve": "tasks_app.view_task",
        "update": "tasks_app.change_task",
        "partial_update": "tasks_app.change_task",
        "destroy": "tasks_app.delete_task",
        "trigger": "tasks_app.add_taskrun",
        "pause": "tasks_app.change_task",
        "resume": "tasks_app.change_task",
        "runs": "tasks_app.view_taskrun",
        "stats": "tasks_app.view_taskrun",
    }

    @extend_schema(
        operation_id="tasks_list",
        parameters=[
            *PAGING,
            OpenApiParameter("name", OpenApiTypes.STR, description="Exactly this name"),
            OpenApiParameter("prefix", OpenApiTypes.STR, description="Names that begin with this"),
            OpenApiParameter("task_type", OpenApiTypes.STR),
            OpenApiParameter("paused", OpenApiTypes.STR, enum=["true", "false"]),
        ],
        responses=page_of("Task", TaskShape),
    )
    def list(self, request: Request) -> Response:
        """Tasks, oldest first."""
        check_parameters(request, {"name", "prefix", "task_type", "paused"})
        rows = Task.objects.live().with_schedule()
        asked = request.query_params
        if "name" in asked:
            rows = rows.filter(name=text_of(asked, "name"))
        if "prefix" in asked:
            rows = rows.filter(name__startswith=text_of(asked, "prefix"))
        if "task_type" in asked:
            rows = rows.filter(task_type=text_of(asked, "task_type"))
        if "paused" in asked:
            if asked["paused"] not in {"true", "false"}:
                raise MalformedBody({"paused": [Text("must be true or false")]})
            rows = rows.filter(paused_at__isnull=asked["paused"] == "false")
        return page(request, rows, _shown, key="id", key_type=int, descending=False)

    @extend_schema(operation_id="tasks_create", request=TaskGiven, responses={201: TaskShape})
    def create(self, request: Request) -> Response:
        """Make a task."""
        task = services.create_task(definition_from(_given(request)), by=author(request))
        return _answer(task, 201, {"Location": f"/api/v1/tasks/{task.pk}"})

    @extend_schema(operation_id="tasks_get", responses=TaskShape)
    def retrieve(self, _request: Request, task_id: int) -> Response:
        """One task; its ETag is its version."""
        return _answer(services.find_task(task_id))

    @extend_schema(operation_id="tasks_replace", request=TaskGiven, responses=TaskShape, parameters=[_IF_MATCH])
    def update(self, request: Request, task_id: int) -> Response:
        """Replace the definition: what is not given becomes its default."""
        definition = definition_from(_given(request))
        task = services.update_task(task_id, definition, expected_version=_expected(request), by=author(request))
        return _answer(task)

    @extend_schema(
        operation_id="tasks_change", request=TaskGiven(partial=True), responses=TaskShape, parameters=[_IF_MATCH]
    )
    def partial_update(self, request: Request, task_id: int) -> Response:
        """Change the given fields, each as a whole."""
        task = services.change_task(task_id, _given(request), expected_version=_expected(request), by=author(request))
        return _answer(task)

    @extend_schema(operation_id="tasks_delete", responses={204: None}, parameters=[_IF_MATCH])
    def destroy(self, request: Request, task_id: int) -> Response:
        """Take a task out of use; what waits is cancelled, what runs is asked to stop, history stays."""
        services.delete_task(task_id, expected_version=_expected(request), by=author(request))
        return Response(status=204)

    @extend_schema(operation_id="tasks_trigger", request=ParametersOver, responses={201: runs.RunShape})
    def trigger(self, request: Request, task_id: int) -> Response:
        """Submit a run now; `parameters` are merged over the task's."""
        body = body_of(request, {"parameters"})
        run = services.trigger(
            task_id,
            parameters_over=body.get("parameters"),
            by=author(request),
            traceparent=request.traceparent,  # type: ignore[attr-defined]
        )
        return runs.created(run)

    @extend_schema(operation_id="tasks_pause", request=PauseGiven, responses=TaskShape)
    def pause(self, request: Request, task_id: int) -> Response:
        """No run starts from now on; what runs goes on."""
        reason = text_of(body_of(request, {"reason"}), "reason", length_max=500, needed=False)
        services.pause_task(task_id, by=author(request), reason=reason)
        return _answer(services.find_task(task_id))

    @extend_schema(operation_id="tasks_resume", request=None, responses=TaskShape)
    def resume(self, request: Request, task_id: int) -> Response:
        """Runs start again."""
        body_of(request, ())
        services.resume_task(task_id)
        return _answer(services.find_task(task_id))

    @extend_schema(
        operation_id="tasks_runs",
        parameters=[*PAGING, *runs.FILTERS],
        responses=page_of("Run", runs.RunSummary),
    )
    def runs(self, request: Request, task_id: int) -> Response:
        """Runs of a task, newest first."""
        return runs.listed(request, task_id=services.find_task(task_id).pk)

    @extend_schema(
        operation_id="tasks_stats",
        parameters=[OpenApiParameter("days", OpenApiTypes.INT, description="1 to 366, default 30")],
        responses=StatisticsShape,
    )
    def stats(self, request: Request, task_id: int) -> Response:
        """What the runs of the last days add up to."""
        refuse_unknown(request.query_params, {"days"})
        text = request.query_params.get("days", "30")
        if not (text.isascii() and text.isdecimal() and len(text) < 4 and 1 <= int(text) <= 366):
            raise MalformedBody(
                {
                    "days": [
                        Text("a whole number from %(low)s to %(high)s, not %(given)s", low=1, high=366, given=text[:60])
                    ]
                }
            )
        found = statistics.of_task(services.find_task(task_id).pk, days=int(text), now=clock.now())
        return Response(StatisticsShape(dataclasses.asdict(found)).data)


def _shown(task: Task) -> Any:
    return TaskShape(task).data


def _answer(task: Task, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    fresh = Task.objects.with_schedule().get(pk=task.pk)
    return Response(_shown(fresh), status=status, headers={"ETag": f'"{fresh.version}"'} | (headers or {}))


def _given(request: Request) -> dict[str, Any]:
    return {key: value for key, value in body_of(request).items() if key not in READ_ONLY}


def _expected(request: Request) -> int | None:
    """The version that If-Match names: None without one, a version that no task has for what cannot be read."""
    text = request.headers.get("If-Match", "").strip()
    if text in {"", "*"}:
        return None
    tag = text.removeprefix("W/").strip('"')
    return int(tag) if tag.isascii() and tag.isdecimal() and len(tag) < 10 else -1
