"""`runs`: what was submitted, what became of it, and what can still be done about it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, ClassVar

from django.http import StreamingHttpResponse
from django.utils.dateparse import parse_datetime
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_field, inline_serializer
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ViewSet

from scheduler_project.access.permissions import Guarded
from scheduler_project.api.paging import check_parameters, page
from scheduler_project.api.parsing import MalformedBody, body_of, refuse_unknown, text_of
from scheduler_project.api.shapes import PAGING, ParametersOver, author, page_of
from tasks_app import logs, results, services
from tasks_app.clock import clock
from tasks_app.models import RunEvent, TaskRun, TaskRunAttempt
from tasks_app.states import RunStatus
from tasks_app.text import Text

#: Columns that may be large and that lists leave out.
_LARGE = ("parameters", "result", "error_message", "progress")
LOG_BYTES_MAX = 1024 * 1024


class RunSummary(serializers.ModelSerializer[TaskRun]):
    """A run in a list."""

    retry_count = serializers.IntegerField()

    class Meta:
        model = TaskRun
        fields: ClassVar[tuple[str, ...]] = (
            "id", "task_id", "task_name", "task_version", "task_type", "executor", "status", "worker_id", "attempt",
            "retry_count", "max_retries", "priority", "lane", "due_at", "scheduled_at", "created_at", "dispatched_at",
            "started_at", "deadline_at", "completed_at", "execution_duration_ms", "cancel_requested_at",
            "cancel_requested_by", "timeout_seconds", "retry_of_id", "triggered_by", "created_by", "correlation_id",
        )  # fmt: skip
        read_only_fields = fields


class OmittedShape(serializers.Serializer[Any]):
    """A result that is too large to be carried along: how its JSON text begins, its size, and where the whole is."""

    bytes = serializers.IntegerField()
    head = serializers.CharField()
    url = serializers.CharField()


class RunShape(RunSummary):
    """A run. A large result is null here, and `result_omitted` says where it is."""

    trace_id = serializers.SerializerMethodField()
    parameters = serializers.DictField()
    result = serializers.SerializerMethodField()
    result_omitted = serializers.SerializerMethodField()
    progress = serializers.DictField(allow_null=True)

    class Meta(RunSummary.Meta):
        fields = (
            *RunSummary.Meta.fields, "parameters", "result", "result_omitted", "error_message", "progress",
            "dispatch_count", "crash_count", "stop_reason", "trace_id",
        )  # fmt: skip
        read_only_fields = fields

    @extend_schema_field(OpenApiTypes.STR)
    def get_trace_id(self, run: TaskRun) -> str:
        """The W3C trace that the run belongs to."""
        parts = run.traceparent.split("-")
        return parts[1] if len(parts) == 4 else ""

    @extend_schema_field(serializers.JSONField(allow_null=True))
    def get_result(self, run: TaskRun) -> Any:
        """What the body returned."""
        found = results.glance(run)
        return found.value if found else None

    @extend_schema_field(OmittedShape(allow_null=True))
    def get_result_omitted(self, run: TaskRun) -> dict[str, Any] | None:
        """Only for a large result."""
        found = results.glance(run)
        if found is None or not found.large:
            return None
        return {"bytes": found.bytes, "head": found.head, "url": f"/api/v1/runs/{run.pk}/result"}


class AttemptShape(serializers.ModelSerializer[TaskRunAttempt]):
    """An attempt that ended."""

    class Meta:
        model = TaskRunAttempt
        fields = (
            "number", "status", "worker_id", "incarnation_id", "permitted_at", "started_at", "ended_at",
            "execution_duration_ms", "error_type", "error_message",
        )  # fmt: skip
        read_only_fields = fields


class EventShape(serializers.ModelSerializer[RunEvent]):
    """Something that happened to a run."""

    class Meta:
        model = RunEvent
        fields = ("id", "at", "kind", "attempt", "detail")
        read_only_fields = fields


class ChunkShape(serializers.Serializer[Any]):
    """A piece of output."""

    offset = serializers.IntegerField()
    attempt = serializers.IntegerField()
    stream = serializers.ChoiceField(choices=("stdout", "stderr", "system"))
    text = serializers.CharField()
    at = serializers.DateTimeField()


class LogShape(serializers.Serializer[Any]):
    """A page of output; ask again with `after` and its `next` until `complete`.

    more: there is more already. previous: what `before` takes to get what stands before this page.
    """

    chunks = ChunkShape(many=True)
    next = serializers.IntegerField()
    complete = serializers.BooleanField()
    more = serializers.BooleanField()
    previous = serializers.IntegerField(allow_null=True)


class BlockerShape(serializers.Serializer[Any]):
    """One reason why a run has not started."""

    code = serializers.CharField()
    text = serializers.CharField()
    holder = serializers.CharField()
    since = serializers.DateTimeField(allow_null=True)
    expected_release = serializers.DateTimeField(allow_null=True)
    remedy = serializers.CharField()


FILTERS = [
    OpenApiParameter("status", OpenApiTypes.STR, description="One or more, with commas between"),
    OpenApiParameter("task_type", OpenApiTypes.STR),
    OpenApiParameter("worker", OpenApiTypes.STR, description="Id of the worker"),
    OpenApiParameter("created_after", OpenApiTypes.DATETIME),
    OpenApiParameter("created_before", OpenApiTypes.DATETIME),
]
_FILTER_NAMES = frozenset({"status", "task", "task_type", "worker", "created_after", "created_before"})


def listed(request: Request, *, task_id: int | None = None) -> Response:
    """A page of runs, newest first, filtered by the query."""
    check_parameters(request, _FILTER_NAMES - ({"task"} if task_id is not None else set()))
    asked = request.query_params
    rows = TaskRun.objects.defer(*_LARGE)
    if task_id is None and "task" in asked:
        text = text_of(asked, "task")
        task_id = int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else services.find_task(text).pk
    if task_id is not None:
        rows = rows.filter(task_id=task_id)
    if "status" in asked:
        rows = rows.filter(status__in=_statuses(asked["status"]))
    if "task_type" in asked:
        rows = rows.filter(task_type=text_of(asked, "task_type"))
    if "worker" in asked:
        rows = rows.filter(worker_id=text_of(asked, "worker"))
    if "created_after" in asked:
        rows = rows.filter(created_at__gte=_time(asked, "created_after"))
    if "created_before" in asked:
        rows = rows.filter(created_at__lt=_time(asked, "created_before"))
    return page(request, rows, lambda run: RunSummary(run).data, key="id", key_type=int, descending=True)


def created(run: TaskRun) -> Response:
    """The answer to a submission."""
    return Response(RunShape(run).data, status=201, headers={"Location": f"/api/v1/runs/{run.pk}"})


class Runs(Guarded, ViewSet):
    """Runs."""

    permissions_needed: ClassVar = {
        "list": "tasks_app.view_taskrun",
        "retrieve": "tasks_app.view_taskrun",
        "cancel": "tasks_app.change_taskrun",
        "retry": "tasks_app.add_taskrun",
        "release": "tasks_app.change_taskrun",
        "log": "tasks_app.view_taskrun",
        "result": "tasks_app.view_taskrun",
        "attempts": "tasks_app.view_taskrun",
        "events": "tasks_app.view_taskrun",
        "why": "tasks_app.view_taskrun",
    }

    @extend_schema(
        operation_id="runs_list",
        parameters=[*PAGING, OpenApiParameter("task", OpenApiTypes.STR, description="Id or name"), *FILTERS],
        responses=page_of("Run", RunSummary),
    )
    def list(self, request: Request) -> Response:
        """Runs, newest first."""
        return listed(request)

    @extend_schema(operation_id="runs_get", responses=RunShape)
    def retrieve(self, _request: Request, run_id: int) -> Response:
        """One run."""
        return Response(RunShape(services.find_run(run_id)).data)

    @extend_schema(
        operation_id="runs_cancel",
        request=None,
        responses={
            code: inline_serializer(f"Cancel{name.title()}", {"status": serializers.ChoiceField(choices=(name,))})
            for code, name in ((200, "cancelled"), (202, "requested"))
        },
    )
    def cancel(self, request: Request, run_id: int) -> Response:
        """Cancel: 200 when that was final at once, 202 when the run is being stopped, 409 when it had ended."""
        from dispatch.services import cancel_run

        body_of(request, ())
        answer = cancel_run(run_id, by=author(request))
        if answer.requested:
            return Response({"status": "requested"}, status=202)
        return Response({"status": "cancelled"})

    @extend_schema(operation_id="runs_retry", request=ParametersOver, responses={201: RunShape})
    def retry(self, request: Request, run_id: int) -> Response:
        """A new run like this one, which must have ended; `parameters` are merged over its own."""
        body = body_of(request, {"parameters"})
        run = services.retry_run(
            run_id,
            parameters_over=body.get("parameters"),
            by=author(request),
            traceparent=request.traceparent if "traceparent" in request.headers else "",  # type: ignore[attr-defined]
        )
        return created(run)

    @extend_schema(operation_id="runs_release", request=None, responses=RunShape)
    def release(self, request: Request, run_id: int) -> Response:
        """Let a quarantined run go on."""
        body_of(request, ())
        return Response(RunShape(services.release_run(run_id, by=author(request))).data)

    @extend_schema(
        operation_id="runs_log",
        parameters=[
            OpenApiParameter("after", OpenApiTypes.INT64, description="`next` of the last answer; 0: the beginning"),
            OpenApiParameter("before", OpenApiTypes.INT64, description="`previous` of an answer: what is before it"),
            OpenApiParameter("tail", OpenApiTypes.BOOL, description="The last page so far"),
            OpenApiParameter(
                "bytes", OpenApiTypes.INT,
                description=f"Of text in a page, to {LOG_BYTES_MAX}, default {logs.PAGE_BYTES}; one chunk may be more",
            ),
        ],
        responses=LogShape,
    )  # fmt: skip
    def log(self, request: Request, run_id: int) -> Response:
        """A page of the output, while it is written and afterwards."""
        read = _reader_of_log(request.query_params)
        return Response(log_page(read(services.find_run(run_id))))

    @extend_schema(operation_id="runs_result", responses={(200, "application/json"): OpenApiTypes.ANY})
    def result(self, _request: Request, run_id: int) -> StreamingHttpResponse:
        """The whole result, whatever its size; `null` where there is none."""
        return result_file(run_id)

    @extend_schema(operation_id="runs_attempts", responses=AttemptShape(many=True))
    def attempts(self, _request: Request, run_id: int) -> Response:
        """Attempts that ended, in order."""
        rows = services.find_run(run_id).attempts.order_by("number")
        return Response(AttemptShape(rows, many=True).data)

    @extend_schema(operation_id="runs_events", responses=EventShape(many=True))
    def events(self, _request: Request, run_id: int) -> Response:
        """What happened, in order; the newest thousand."""
        rows = list(services.find_run(run_id).events.order_by("-id")[:1000])
        return Response(EventShape(rows[::-1], many=True).data)

    @extend_schema(operation_id="runs_why", responses=BlockerShape(many=True))
    def why(self, _request: Request, run_id: int) -> Response:
        """Why it has not started: every reason, with its holder and what to do. Empty when nothing is in its way."""
        from dispatch.why import blockers_of

        run = services.find_run(run_id)
        return Response([dataclasses.asdict(reason) for reason in blockers_of(run, clock.now())])


def log_page(page: logs.LogPage) -> dict[str, Any]:
    """As LogShape says."""
    chunks = [
        {
            "offset": logs.offset_of(chunk.attempt, chunk.seq),
            "attempt": chunk.attempt,
            "stream": chunk.stream,
            "text": chunk.text,
            "at": chunk.at,
        }
        for chunk in page.chunks
    ]
    return {
        "chunks": chunks, "next": page.next, "complete": page.complete, "more": page.more, "previous": page.previous,
    }  # fmt: skip


def result_file(run_id: int) -> StreamingHttpResponse:
    """The whole result of a run, to be kept as a file. Raises RunNotFound."""
    text = results.whole(run_id)
    size = len(text) if text.isascii() else len(text.encode())
    return StreamingHttpResponse(
        results.pieces(text),
        content_type="application/json",
        headers={
            "Content-Length": str(size),
            "Content-Disposition": f'attachment; filename="run-{run_id}-result.json"',
            "X-Content-Type-Options": "nosniff",
        },
    )


def _reader_of_log(asked: Mapping[str, str]) -> Callable[[TaskRun], logs.LogPage]:
    refuse_unknown(asked, {"after", "before", "tail", "bytes"})
    places = {"after", "before", "tail"} & set(asked)
    if len(places) > 1:
        raise MalformedBody({max(places): [Text("after, before and tail exclude each other")]})
    size = _whole(asked, "bytes", logs.PAGE_BYTES, Text("must be a whole number from 1 to %(max)s", max=LOG_BYTES_MAX))
    if not 1 <= size <= LOG_BYTES_MAX:
        raise MalformedBody({"bytes": [Text("must be a whole number from 1 to %(max)s", max=LOG_BYTES_MAX)]})
    if "tail" in asked:
        if asked["tail"] not in {"true", "1"}:
            raise MalformedBody({"tail": [Text("must be true")]})
        return lambda run: logs.read_tail(run, now=clock.now(), bytes_max=size)
    no_offset = Text("is not an offset of this log")
    if "before" in asked:
        before = _whole(asked, "before", 0, no_offset)
        return lambda run: logs.read_before(run, before=before, bytes_max=size)
    after = _whole(asked, "after", 0, no_offset)
    return lambda run: logs.read_log(run, after=after, now=clock.now(), bytes_max=size)


def _whole(asked: Mapping[str, str], name: str, default: int, problem: str) -> int:
    text = asked.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) < 17):
        raise MalformedBody({name: [problem]})
    return int(text)


def _statuses(text: str) -> list[str]:
    words = [word.strip().upper() for word in text.split(",") if word.strip()]
    unknown = [word for word in words if word not in RunStatus.__members__]
    if unknown or not words:
        known = ", ".join(RunStatus.__members__)
        raise MalformedBody(
            {
                "status": [
                    Text("unknown status %(given)s; known: %(known)s", given=repr(", ".join(unknown))[:60], known=known)
                ]
            }
        )
    return words


def _time(asked: Any, name: str) -> datetime:
    try:
        at = parse_datetime(asked[name].replace(" ", "+"))
        # Within a day of the calendar's ends it has no place in another time zone, and databases keep UTC.
        if at is not None and at.tzinfo is not None:
            at = at.astimezone(UTC)
    except (ValueError, OverflowError):
        at = None
    if at is None or at.tzinfo is None:
        raise MalformedBody({name: [Text("must be a time in ISO 8601 with its offset, as 2030-01-31T08:00:00+00:00")]})
    return at
