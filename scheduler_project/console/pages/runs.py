"""Runs: the list with its search, one run, and what can be done about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode

from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, StreamingHttpResponse
from django.urls import reverse
from django.utils.translation import gettext_lazy as _

from scheduler_project.api.errors import said
from scheduler_project.api.runs import result_file
from scheduler_project.console.pages.attempts import tried
from scheduler_project.console.pages.frame import number_in, show
from scheduler_project.console.pages.gate import VIEW_RUN, action, author, page
from scheduler_project.console.pages.log import log_of
from tasks_app import context as ids
from tasks_app import results, services
from tasks_app.clock import clock
from tasks_app.errors import InvalidSearch
from tasks_app.models import TaskRun
from tasks_app.search import pages
from tasks_app.search.grammar import RunSearch, parse
from tasks_app.states import ACTIVE, RunStatus, is_final

VIEW: Final = VIEW_RUN
CHANGE: Final = "tasks_app.change_taskrun"
ADD: Final = "tasks_app.add_taskrun"
_EVENTS_MAX: Final = 100
#: Searches that are one click away: (label, text).
SHORTCUTS: Final = (
    (_("All"), ""),
    (_("Running"), "is:running"),
    (_("Waiting"), "is:waiting"),
    (_("Failed"), "is:failed,timeout,lost"),
    (_("Retried"), "attempt:>1"),
    (_("Quarantined"), "is:quarantined"),
)


@dataclass(frozen=True)
class Chip:
    """One term of a search, and the search without it."""

    text: str
    without: str


@page(VIEW)
def listed(request: HttpRequest) -> HttpResponse:
    """Runs that `?q=` finds, newest first; `?before=` is the cursor."""
    text = request.GET.get("q", "").strip()
    frame: dict[str, Any] = {"q": text, "shortcuts": SHORTCUTS, "section": "runs"}
    try:
        search = parse(text, now=clock.now())
    except InvalidSearch as error:
        refused = {
            "term": error.term, "detail": said(error.detail), "trace_id": ids.current().get("trace_id", ""),
            "suggestion": text.replace(error.term, error.suggestion, 1) if error.suggestion else "",
        }  # fmt: skip
        return show(request, "runs/list.html", frame | {"refused": refused}, status=400)
    before = number_in(request, "before")
    if request.htmx:  # type: ignore[attr-defined]
        return show(request, "runs/rows.html", _refreshed(request, search, text, before))
    found = pages.page(search, before=before)
    older = {"q": text, "before": found.next_before}
    return show(
        request,
        "runs/list.html",
        frame
        | _rows(found.rows, text, before)
        | {
            "page": found,
            "count": pages.count(search),
            "look_max": pages.LOOK_MAX,
            "older": urlencode({key: value for key, value in older.items() if value}) if found.next_before else "",
            "chips": [Chip(term.source, search.without(term)) for term in search.terms],
        },
    )


def _refreshed(request: HttpRequest, search: RunSearch, text: str, before: int | None) -> dict[str, Any]:
    """The rows that the reader has before them, as they are now, and how many new ones there are."""
    given = [part for part in request.GET.get("rows", "").split(",") if part.isascii() and part.isdecimal()]
    shown = [int(part) for part in given[: pages.PAGE] if len(part) < 19]
    unseen = pages.unseen(search, shown) if before is None else 0
    return _rows(pages.again(shown), text, before) | {"unseen": unseen, "page_size": pages.PAGE}


def _rows(rows: Sequence[TaskRun], text: str, before: int | None) -> dict[str, Any]:
    shown = {"q": text, "before": before or "", "rows": ",".join(str(run.pk) for run in rows)}
    return {
        "rows": rows,
        "q": text,
        "before": before,
        "poll": "?" + urlencode(shown),
        "active": before is None or any(not is_final(run.status) for run in rows),
    }


@page(VIEW)
def detail(request: HttpRequest, run_id: int) -> HttpResponse:
    """One run. `?after=`, `?before=` and `?tail=1` name the page of its log that is shown."""
    from dispatch.why import standing_of

    now = clock.now()
    run = services.find_run(run_id)
    shown: dict[str, Any] = {
        "run": run,
        "result": results.glance(run),
        "section": "runs",
        "standing": standing_of(run, now),
        "attempts": tried(run, now),
        "active": RunStatus(run.status) in ACTIVE,
        "final": is_final(run.status),
        "timeout_ms": run.timeout_seconds * 1000,
        "trace_id": run.traceparent.split("-")[1] if run.traceparent else "",
        "run_key": str(run.pk),
        "retried_by": list(TaskRun.objects.filter(retry_of=run).order_by("-pk").values_list("pk", flat=True)[:5]),
        **{f"copy_{verb}": f"run {verb} {run.pk}" for verb in ("retry", "cancel", "release")},
        "can": {
            "cancel": not is_final(run.status) and run.cancel_requested_at is None,
            "retry": is_final(run.status) and run.task.deleted_at is None,
            "release": run.status == RunStatus.QUARANTINED.value,
        },
    }
    if request.htmx:  # type: ignore[attr-defined]
        return show(request, "runs/live.html", shown | {"part": True})
    shown |= {"log": log_of(request, run), "events": list(run.events.order_by("-id")[:_EVENTS_MAX])}
    return show(request, "runs/detail.html", shown)


@page(VIEW)
def result(_request: HttpRequest, run_id: int) -> StreamingHttpResponse:
    """The whole result, as a file."""
    return result_file(run_id)


@action(ADD)
def retry(request: HttpRequest, run_id: int) -> HttpResponse:
    """A new run like a final one."""
    run = services.retry_run(run_id, by=author(request))
    return HttpResponseRedirect(reverse("console:run", args=[run.pk]))


@action(CHANGE)
def cancel(request: HttpRequest, run_id: int) -> HttpResponse:
    """Cancel: at once while it waits, by request while it runs."""
    from dispatch.services import cancel_run

    cancel_run(run_id, by=author(request))
    return HttpResponseRedirect(reverse("console:run", args=[run_id]))


@action(CHANGE)
def release(request: HttpRequest, run_id: int) -> HttpResponse:
    """Let a quarantined run go on."""
    services.release_run(run_id, by=author(request))
    return HttpResponseRedirect(reverse("console:run", args=[run_id]))
