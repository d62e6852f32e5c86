"""Tasks: the list, one task with its last runs, and running, pausing and resuming it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from urllib.parse import urlencode

from django.db.models import OuterRef, Subquery
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse

from scheduler_project.api.parsing import MalformedBody, text_of
from scheduler_project.console.pages.frame import show
from scheduler_project.console.pages.gate import action, author, page
from tasks_app import services
from tasks_app.models import Task, TaskRun
from tasks_app.search import pages
from tasks_app.search.grammar import quoted
from tasks_app.states import RunStatus, is_final
from tasks_app.text import Text

VIEW: Final = "tasks_app.view_task"
VIEW_RUNS: Final = "tasks_app.view_taskrun"
CHANGE: Final = "tasks_app.change_task"
ADD_RUN: Final = "tasks_app.add_taskrun"
_STRIP_HEIGHT: Final = 40


@dataclass(frozen=True)
class Line:
    """A task of the list, what it says about time, and its last run."""

    task: Task
    every_seconds: float | None
    run_at: datetime | None
    next_fire_at: datetime | None
    last: TaskRun | None


@page(VIEW)
def listed(request: HttpRequest) -> HttpResponse:
    """Tasks by name; `?q=` is the beginning of the name, `?after=` the cursor."""
    prefix, after = (request.GET.get(name, "").replace("\x00", "") for name in ("q", "after"))
    rows = Task.objects.live().with_schedule().filter(name__startswith=prefix, name__gt=after).order_by("name", "pk")
    newest = TaskRun.objects.filter(task=OuterRef("pk")).order_by("-pk").values("pk")[:1]
    tasks = list(rows.annotate(last_run=Subquery(newest))[: pages.PAGE + 1])
    more = len(tasks) > pages.PAGE
    tasks = tasks[: pages.PAGE]
    shown = {
        "section": "tasks",
        "q": prefix,
        "lines": _lines(tasks, with_runs=request.user.has_perm(VIEW_RUNS)),
        "poll": "?" + urlencode({"q": prefix, "after": after}),
        "next": urlencode({"q": prefix, "after": tasks[-1].name}) if more else "",
        "first": not after,
        "active": True,
    }
    return show(request, "tasks/rows.html" if request.htmx else "tasks/list.html", shown)  # type: ignore[attr-defined]


def _lines(tasks: Sequence[Any], *, with_runs: bool) -> list[Line]:
    wanted = [task.last_run for task in tasks if task.last_run] if with_runs else []
    last = {run.task_id: run for run in TaskRun.objects.filter(pk__in=wanted).defer(*pages.LARGE)}
    return [_line(task, last.get(task.pk)) for task in tasks]


def _line(task: Task, last: TaskRun | None) -> Line:
    definition = services.definition_of(task)
    times = [schedule.next_fire_at for schedule in task.schedules.all() if schedule.next_fire_at]
    return Line(task, definition.every_seconds, definition.run_at, min(times, default=None), last)


@page(VIEW)
def detail(request: HttpRequest, task_id: int) -> HttpResponse:
    """One task with its last runs."""
    services.find_task(task_id)
    task = Task.objects.with_schedule().get(pk=task_id)
    runs: list[TaskRun] = []
    if request.user.has_perm(VIEW_RUNS):
        runs = list(TaskRun.objects.filter(task=task).defer(*pages.LARGE).order_by("-pk")[: pages.PAGE])
    shown = {
        "section": "tasks",
        "line": _line(task, runs[0] if runs else None),
        "task": task,
        "runs": runs,
        "strip": _strip(runs),
        "middle_ms": _rank(runs, 50),
        "slow_ms": _rank(runs, 95),
        "timeout_ms": task.timeout_seconds * 1000,
        "task_key": str(task.pk),
        **{f"copy_{verb}": f"task {verb} {task.pk}" for verb in ("trigger", "pause", "resume")},
        "all_runs": urlencode({"q": f"task:{quoted(task.name)}"}),
        "active": any(not is_final(run.status) for run in runs) or task.paused_at is None,
    }
    return show(request, "tasks/live.html" if request.htmx else "tasks/detail.html", shown)  # type: ignore[attr-defined]


def _strip(runs: Sequence[TaskRun]) -> list[dict[str, Any]]:
    """Bars of the last runs, oldest first: height by duration, colour by state."""
    longest = max((run.execution_duration_ms or 0 for run in runs), default=0) or 1
    bars = []
    for position, run in enumerate(reversed(runs)):
        height = max(4, round(_STRIP_HEIGHT * (run.execution_duration_ms or 0) / longest))
        bars.append({"run": run, "x": position * 12, "y": _STRIP_HEIGHT - height, "height": height})
    return bars


def _rank(runs: Sequence[TaskRun], percent: int) -> int | None:
    """The nearest rank of the durations of those that completed."""
    done = RunStatus.COMPLETED.value
    taken = sorted(
        run.execution_duration_ms for run in runs if run.status == done and run.execution_duration_ms is not None
    )
    return taken[max(0, -(-len(taken) * percent // 100) - 1)] if taken else None


@action(ADD_RUN)
def trigger(request: HttpRequest, task_id: int) -> HttpResponse:
    """Submit a run; `parameters` is a JSON object that is merged over the task's."""
    run = services.trigger(
        task_id,
        parameters_over=_parameters(request.POST.get("parameters", "")),
        triggered_by="console",
        by=author(request),
        traceparent=request.traceparent,  # type: ignore[attr-defined]
    )
    return HttpResponseRedirect(reverse("console:run", args=[run.pk]))


@action(CHANGE)
def pause(request: HttpRequest, task_id: int) -> HttpResponse:
    """No run starts from now on."""
    reason = text_of(request.POST, "reason", length_max=500, needed=False)
    services.pause_task(task_id, by=author(request), reason=reason)
    return HttpResponseRedirect(reverse("console:task", args=[task_id]))


@action(CHANGE)
def resume(_request: HttpRequest, task_id: int) -> HttpResponse:
    """Runs start again."""
    services.resume_task(task_id)
    return HttpResponseRedirect(reverse("console:task", args=[task_id]))


def _parameters(text: str) -> dict[str, Any] | None:
    if not text.strip():
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise MalformedBody({"parameters": [Text("must be a JSON object")]}) from error
    if not isinstance(value, dict):
        raise MalformedBody({"parameters": [Text("must be a JSON object")]})
    return value
