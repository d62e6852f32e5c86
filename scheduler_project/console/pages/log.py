"""The log of a run: a page of it at a time, and no more in one page of the browser than that can bear.

`?after=`, `?before=` and `?tail=1` are places in the log, of the run's page and of the parts that are fetched into it.
A part says how much the reader has before them already; from `SHOWN_BYTES_MAX` on the way leads to a page of its own.
"""

from __future__ import annotations

from typing import Any, Final

from django.http import HttpRequest, HttpResponse

from scheduler_project.console.pages.frame import number_in, show
from scheduler_project.console.pages.gate import VIEW_RUN, page
from tasks_app import logs, services
from tasks_app.clock import clock
from tasks_app.models import TaskRun

PAGE_BYTES: Final = 64 * 1024
SHOWN_BYTES_MAX: Final = 512 * 1024


@page(VIEW_RUN)
def part(request: HttpRequest, run_id: int) -> HttpResponse:
    """A page of the log and the element that asks for the next one, in the direction in which the reader goes."""
    run = services.find_run(run_id)
    found = log_of(request, run)
    ends = {"upper": "before" in request.GET, "lower": "before" not in request.GET}
    return show(request, "runs/log.html", {"run": run, "log": found | ends})


def log_of(request: HttpRequest, run: TaskRun) -> dict[str, Any]:
    """The page of the log that the address names, as the template shows it; both ends."""
    after, before = _offset(request, "after"), _offset(request, "before")
    now = clock.now()
    if before is not None:
        found = logs.read_before(run, before=before, bytes_max=PAGE_BYTES)
    elif "tail" in request.GET:
        found = logs.read_tail(run, now=now, bytes_max=PAGE_BYTES)
    else:
        found = logs.read_log(run, after=after or 0, now=now, bytes_max=PAGE_BYTES)
    shown = (number_in(request, "shown") or 0) + found.bytes
    return {
        "chunks": _marked(found, (after or 0) >> 32),
        "next": found.next,
        "previous": found.previous,
        "more": found.more,
        "complete": found.complete,
        "shown": shown,
        "room": shown < SHOWN_BYTES_MAX,
        "begins_later": bool(after or before or found.previous),
        "upper": True,
        "lower": True,
    }


def _offset(request: HttpRequest, name: str) -> int | None:
    number = number_in(request, name)
    return None if number is None else min(number, logs.OFFSET_MAX)


def _marked(found: logs.LogPage, attempt: int) -> list[dict[str, Any]]:
    """The chunks, with the number of an attempt where it begins. attempt: the one that the reader came from."""
    chunks: list[dict[str, Any]] = []
    for chunk in found.chunks:
        begins = chunk.attempt != attempt and (bool(chunks) or chunk.seq == 1 or not found.previous)
        chunks.append({"text": chunk.text, "stream": chunk.stream, "begins": chunk.attempt if begins else 0})
        attempt = chunk.attempt
    return chunks
