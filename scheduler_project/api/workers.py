"""`workers`: who runs it, and draining."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, ClassVar

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ViewSet

from scheduler_project.access.permissions import Guarded
from scheduler_project.api.paging import check_parameters, page
from scheduler_project.api.parsing import body_of
from scheduler_project.api.shapes import PAGING, author, page_of
from tasks_app.clock import clock
from tasks_app.errors import NotFound
from tasks_app.models import TaskRun
from workers_app.conf import conf
from workers_app.models import Worker, WorkerIncarnation
from workers_app.pools import POOLS, Reach
from workers_app.querysets import WorkerQuerySet, WorkerState


class PoolCanEndShape(serializers.Serializer[Any]):
    """How far a worker's pool can end bodies, by executor.

    ALWAYS: at once, whatever the body does. BETWEEN_INSTRUCTIONS: by an exception between two instructions of Python
    code; what blocks in C code stays until it returns or the worker's lease is over.
    """

    python = serializers.ChoiceField(choices=[reach.value for reach in Reach])
    shell = serializers.ChoiceField(choices=[reach.value for reach in Reach])
    http = serializers.ChoiceField(choices=[reach.value for reach in Reach])


class WorkerShape(serializers.ModelSerializer[Worker]):
    """A worker and what it last said about itself."""

    id = serializers.CharField(source="name")
    pool_can_end = serializers.SerializerMethodField()
    state = serializers.ChoiceField(choices=WorkerState.choices)

    class Meta:
        model = Worker
        fields = (
            "id", "name", "state", "supported_task_types", "functions", "labels", "pool", "pool_can_end",
            "max_concurrent_tasks",
            "current_task_count", "load_percentage", "cpu_percent", "memory_percent", "memory_rss_bytes",
            "network_sent_bytes", "network_received_bytes", "host", "pid", "code_version", "last_heartbeat",
            "registered_at", "draining_since", "drain_requested_by",
        )  # fmt: skip
        read_only_fields = fields

    @extend_schema_field(PoolCanEndShape(allow_null=True))
    def get_pool_can_end(self, worker: Worker) -> dict[str, str] | None:
        """Nothing is known of a pool that a later version brought."""
        pool = POOLS.get(worker.pool)
        return pool.can_end if pool else None


class IncarnationShape(serializers.ModelSerializer[WorkerIncarnation]):
    """One start of a worker."""

    class Meta:
        model = WorkerIncarnation
        fields = (
            "id", "host", "pid", "code_version", "slots", "task_types", "lease_seconds", "draining", "started_at",
            "renewed_at", "over_at", "ended_cleanly",
        )  # fmt: skip
        read_only_fields = fields


class WorkerStatsShape(serializers.Serializer[Any]):
    """What a worker holds now, from the runs themselves, and its newest starts."""

    running = serializers.IntegerField()
    run_ids = serializers.ListField(child=serializers.IntegerField())
    slots = serializers.IntegerField()
    incarnations = IncarnationShape(many=True)


class Workers(Guarded, ViewSet):
    """Workers."""

    permissions_needed: ClassVar = {
        "list": "workers_app.view_worker",
        "retrieve": "workers_app.view_worker",
        "stats": "workers_app.view_worker",
        "drain": "workers_app.change_worker",
        "resume": "workers_app.change_worker",
    }

    @extend_schema(
        operation_id="workers_list",
        parameters=[*PAGING, OpenApiParameter("prefix", OpenApiTypes.STR, description="Names that begin with this")],
        responses=page_of("Worker", WorkerShape),
    )
    def list(self, request: Request) -> Response:
        """Workers by name."""
        check_parameters(request, {"prefix"})
        rows = _workers().filter(name__startswith=request.query_params.get("prefix", "").replace("\x00", ""))
        return page(request, rows, _shown, key="name", key_type=str, descending=False)

    @extend_schema(operation_id="workers_get", responses=WorkerShape)
    def retrieve(self, _request: Request, name: str) -> Response:
        """One worker."""
        return Response(_shown(_found(name)))

    @extend_schema(operation_id="workers_stats", responses=WorkerStatsShape)
    def stats(self, _request: Request, name: str) -> Response:
        """What it holds now, and its newest starts."""
        worker = _found(name)
        incarnations = list(worker.incarnations.order_by("-started_at", "id")[:20])
        live = [incarnation for incarnation in incarnations if incarnation.over_at is None]
        running = TaskRun.objects.held_by([one.id for one in incarnations])
        run_ids = list(running.values_list("pk", flat=True)[:1000])
        body = {
            "running": len(run_ids),
            "run_ids": run_ids,
            "slots": sum(incarnation.slots for incarnation in live),
            "incarnations": incarnations,
        }
        return Response(WorkerStatsShape(body).data)

    @extend_schema(operation_id="workers_drain", request=None, responses=WorkerShape)
    def drain(self, request: Request, name: str) -> Response:
        """It takes no more work; what it runs goes on."""
        from dispatch.services import drain_worker

        body_of(request, ())
        drain_worker(_name(name), by=author(request))
        return Response(_shown(_found(name)))

    @extend_schema(operation_id="workers_resume", request=None, responses=WorkerShape)
    def resume(self, request: Request, name: str) -> Response:
        """It takes work again."""
        from dispatch.services import resume_worker

        body_of(request, ())
        resume_worker(_name(name))
        return Response(_shown(_found(name)))


def _workers() -> WorkerQuerySet:
    return Worker.objects.with_state(clock.now(), timedelta(seconds=conf().suspect_after_seconds))


def _found(name: str) -> Worker:
    worker = _workers().filter(pk=_name(name)).first()
    if worker is None:
        raise NotFound(worker=name[:200])
    return worker


def _name(name: str) -> str:
    if "\x00" in name:
        raise NotFound(worker="")
    return name


def _shown(worker: Worker) -> Any:
    return WorkerShape(worker).data
