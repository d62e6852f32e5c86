"""The first page: what fails, what waits, which worker is sick, what comes next. Each number leads to its list."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from urllib.parse import urlencode

from django.db.models import Q
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.translation import gettext as _

from scheduler_project.console.pages.frame import show
from scheduler_project.console.pages.gate import page
from scheduler_project.console.pages.runs import VIEW as VIEW_RUNS
from tasks_app.clock import clock
from tasks_app.models import Schedule, Task
from tasks_app.search import pages
from tasks_app.search.grammar import parse
from workers_app.conf import conf
from workers_app.models import Worker
from workers_app.querysets import WorkerState

VIEW_TASKS: Final = "tasks_app.view_task"
VIEW_WORKERS: Final = "workers_app.view_worker"
_SHOWN: Final = 10
_FAILURES: Final = "is:failed,timeout,lost created:>-24h"
#: States of a worker that somebody should look at.
SICK: Final = (WorkerState.LOST.value, WorkerState.SUSPECT.value)


@dataclass(frozen=True)
class Figure:
    """A number that leads to its list. tone: ok, busy, bad or quiet."""

    label: str
    value: str
    address: str
    tone: str
    note: str = ""
    since: datetime | None = None


@page()
def overview(request: HttpRequest) -> HttpResponse:
    """What the reader may see of it."""
    now = clock.now()
    may = {
        "runs": request.user.has_perm(VIEW_RUNS),
        "tasks": request.user.has_perm(VIEW_TASKS),
        "workers": request.user.has_perm(VIEW_WORKERS),
    }
    shown: dict[str, Any] = {"section": "overview", "may": may, "active": True, "figures": []}
    if may["runs"]:
        shown["figures"] += _of_runs(now)
        shown["failures"] = pages.page(parse(_FAILURES, now=now)).rows[:_SHOWN]
        shown["failures_address"] = _runs(_FAILURES)
    if may["workers"]:
        workers = Worker.objects.with_state(now, timedelta(seconds=conf().suspect_after_seconds))
        sick = workers.filter(Q(state__in=SICK))
        shown["sick"] = list(sick.order_by("name")[:_SHOWN])
        shown["figures"].append(_of_workers(workers, sick.count()))
        shown["any_worker"] = workers.exists()
    if may["tasks"]:
        shown["upcoming"] = list(_upcoming())
        shown["paused"] = list(
            Task.objects.live().filter(paused_at__isnull=False).order_by("-paused_at", "pk")[:_SHOWN]
        )
        shown["any_task"] = Task.objects.live().exists()
    shown["missing"] = [
        name for name, has in zip((VIEW_RUNS, VIEW_TASKS, VIEW_WORKERS), may.values(), strict=True) if not has
    ]
    part = "overview_live.html" if request.htmx else "overview.html"  # type: ignore[attr-defined]
    return show(request, part, shown)


def _of_runs(now: datetime) -> list[Figure]:
    from dispatch.queries import heads

    oldest = min((head.due_at for head in heads()), default=None)
    waiting_since = oldest if oldest is not None and oldest <= now else None
    found = {
        text: pages.count(parse(text, now=now)) for text in ("is:running", "is:waiting", _FAILURES, "is:quarantined")
    }
    running, waiting, failed, held = found.values()
    return [
        Figure(_("Running"), str(running), _runs("is:running"), "busy" if running.number else "quiet"),
        Figure(
            _("Waiting"), str(waiting), _runs("is:waiting"), "busy" if waiting.number else "quiet",
            note=_("oldest is due") if waiting_since else "", since=waiting_since,
        ),
        Figure(_("Failed in 24 h"), str(failed), _runs(_FAILURES), "bad" if failed.number else "ok"),
        Figure(_("Quarantined"), str(held), _runs("is:quarantined"), "bad" if held.number else "ok"),
    ]  # fmt: skip


def _of_workers(workers: Any, sick: int) -> Figure:
    online = workers.filter(state=WorkerState.ONLINE.value).count()
    note = _("%(count)d online") % {"count": online}
    return Figure(
        _("Sick workers"), str(sick), reverse("console:workers"), "bad" if sick or not online else "ok", note=note
    )


def _upcoming() -> Any:
    return (
        Schedule.objects.filter(
            next_fire_at__isnull=False, periodic_task__enabled=True, task__paused_at__isnull=True,
            task__deleted_at__isnull=True,
        )
        .select_related("task")
        .order_by("next_fire_at", "pk")[:_SHOWN]
    )  # fmt: skip


def _runs(text: str) -> str:
    return f"{reverse('console:runs')}?{urlencode({'q': text})}"
