"""Workers: the list, one worker with what it runs, draining and resuming it."""

from __future__ import annotations

from datetime import timedelta
from typing import Final
from urllib.parse import urlencode

from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse

from scheduler_project.console.pages.frame import show
from scheduler_project.console.pages.gate import action, author, page
from tasks_app.clock import clock
from tasks_app.errors import NotFound
from tasks_app.models import TaskRun
from tasks_app.search import pages
from tasks_app.search.grammar import quoted
from workers_app.conf import conf
from workers_app.models import Worker
from workers_app.querysets import WorkerQuerySet

VIEW: Final = "workers_app.view_worker"
VIEW_RUNS: Final = "tasks_app.view_taskrun"
CHANGE: Final = "workers_app.change_worker"
_STARTS_SHOWN: Final = 10


@page(VIEW)
def listed(request: HttpRequest) -> HttpResponse:
    """Workers by name; `?after=` is the cursor."""
    after = request.GET.get("after", "").replace("\x00", "")
    workers = list(_workers().filter(name__gt=after).order_by("name")[: pages.PAGE + 1])
    more = len(workers) > pages.PAGE
    workers = workers[: pages.PAGE]
    shown = {
        "section": "workers",
        "workers": workers,
        "poll": "?" + urlencode({"after": after}),
        "next": urlencode({"after": workers[-1].name}) if more else "",
        "first": not after,
        "active": True,
    }
    return show(request, "workers/rows.html" if request.htmx else "workers/list.html", shown)  # type: ignore[attr-defined]


@page(VIEW)
def detail(request: HttpRequest, name: str) -> HttpResponse:
    """One worker."""
    worker = _workers().filter(pk=name).first() if "\x00" not in name else None
    if worker is None:
        raise NotFound(worker=name[:200])
    starts = list(worker.incarnations.order_by("-started_at", "id")[:_STARTS_SHOWN])
    runs: list[TaskRun] = []
    if request.user.has_perm(VIEW_RUNS):
        held = TaskRun.objects.held_by([start.id for start in starts])
        runs = list(held.defer(*pages.LARGE)[: pages.PAGE])
    shown = {
        "section": "workers",
        "worker": worker,
        "starts": starts,
        "runs": runs,
        **{f"copy_{verb}": f"worker {verb} {name}" for verb in ("drain", "resume")},
        "all_runs": urlencode({"q": f"worker:{quoted(name)}"}),
        "active": True,
    }
    return show(request, "workers/live.html" if request.htmx else "workers/detail.html", shown)  # type: ignore[attr-defined]


@action(CHANGE)
def drain(request: HttpRequest, name: str) -> HttpResponse:
    """It takes no more work; what it runs goes on."""
    from dispatch.services import drain_worker

    drain_worker(name.replace("\x00", ""), by=author(request))
    return HttpResponseRedirect(reverse("console:worker", args=[name]))


@action(CHANGE)
def resume(_request: HttpRequest, name: str) -> HttpResponse:
    """It takes work again."""
    from dispatch.services import resume_worker

    resume_worker(name.replace("\x00", ""))
    return HttpResponseRedirect(reverse("console:worker", args=[name]))


def _workers() -> WorkerQuerySet:
    return Worker.objects.with_state(clock.now(), timedelta(seconds=conf().suspect_after_seconds))
