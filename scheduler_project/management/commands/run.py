"""`manage.py run`: runs, from the command line."""

from __future__ import annotations

import dataclasses
import sys
from argparse import ArgumentTypeError
from typing import Any, ClassVar

from django.core.management.base import CommandError, CommandParser
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy as _lazy

from scheduler_project.api.runs import LOG_BYTES_MAX, RunShape, RunSummary, log_page
from scheduler_project.management import face, watch
from scheduler_project.management.output import rendered
from tasks_app import logs, results, services
from tasks_app.clock import clock
from tasks_app.models import TaskRun
from tasks_app.states import RunStatus


def _id(parser: CommandParser) -> None:
    parser.add_argument("run", type=int, metavar="RUN", help=_("id of the run"))


def _trigger(parser: CommandParser) -> None:
    parser.add_argument("task", metavar="TASK", help=_("name or id"))
    face.add_parameters(parser)
    face.add_watch(parser)


def _retry(parser: CommandParser) -> None:
    _id(parser)
    face.add_parameters(parser)
    face.add_watch(parser)


def _show(parser: CommandParser) -> None:
    _id(parser)
    face.add_watch(parser)


def _cancel(parser: CommandParser) -> None:
    parser.add_argument("runs", type=int, nargs="+", metavar="RUN", help=_("ids of runs"))


def _log(parser: CommandParser) -> None:
    _id(parser)
    parser.add_argument("-f", "--follow", action="store_true", help=_("go on until the run has ended"))
    place = parser.add_mutually_exclusive_group()
    place.add_argument(
        "--tail", type=_size, metavar="BYTES", help=_("begin at the end: the last so many bytes, in whole chunks")
    )
    place.add_argument("--after", type=_offset, default=0, metavar="OFFSET", help=_("only what is new since `next`"))
    place.add_argument("--before", type=_offset, metavar="OFFSET", help=_("the page that stands before `previous`"))
    parser.add_argument("--timeout", type=float, metavar="SECONDS", help=_("follow for so long at most, then exit 124"))


def _offset(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 17):
        raise ArgumentTypeError(_("is not an offset of this log"))
    return int(text)


def _size(text: str) -> int:
    return min(face.positive(text), LOG_BYTES_MAX)


def _list(parser: CommandParser) -> None:
    parser.add_argument("--task", metavar="TASK", help=_("name or id"))
    parser.add_argument(
        "--status", action="append", type=str.upper, choices=list(RunStatus.__members__), metavar="STATUS"
    )
    parser.add_argument("--task-type", metavar="TYPE")
    parser.add_argument("--worker", metavar="WORKER")
    parser.add_argument("--limit", type=face.positive, default=20, metavar="N", help=_("so many at most"))


class Command(face.FaceCommand):
    """Runs."""

    help: Any = _lazy(
        "Trigger, list, show, cancel, retry and release runs; read their logs; ask why one does not start."
    )
    columns = ("id", "status", "task_name", "worker_id", "retry_count", "created_at", "execution_duration_ms")
    name_key = "id"
    actions: ClassVar = {
        "trigger": (_lazy("submit a run now"), _trigger),
        "list": (_lazy("runs, newest first"), _list),
        "show": (_lazy("one run"), _show),
        "log": (_lazy("what the run wrote; as JSON or YAML page by page"), _log),
        "result": (_lazy("the whole result of a run, as JSON"), _id),
        "cancel": (_lazy("cancel runs"), _cancel),
        "retry": (_lazy("a new run like one that has ended"), _retry),
        "release": (_lazy("let a quarantined run go on"), _id),
        "why": (_lazy("why a run does not start"), _id),
    }

    def do_trigger(self, options: dict[str, Any]) -> None:
        """Submit a run."""
        submitted(self, options)

    def do_list(self, options: dict[str, Any]) -> None:
        """Newest first."""
        rows = TaskRun.objects.defer("parameters", "result", "error_message", "progress").order_by("-id")
        if options["task"]:
            rows = rows.filter(task=face.find_task(options["task"]))
        wanted = {"status__in": "status", "task_type": "task_type", "worker_id": "worker"}
        rows = rows.filter(**{column: options[key] for column, key in wanted.items() if options[key]})
        self.show([RunSummary(run).data for run in rows[: options["limit"]]], options)

    def do_show(self, options: dict[str, Any]) -> None:
        """One run."""
        watched_or_shown(self, services.find_run(options["run"]), options)

    def do_log(self, options: dict[str, Any]) -> None:
        """What it wrote."""
        run = services.find_run(options["run"])
        paged = options["output"] in ("json", "yaml")
        if options["follow"] and (paged or options["before"] is not None):
            raise CommandError(_("--follow goes with text, from a place on"), returncode=face.USAGE)
        page = _page_of_log(run, options)
        if paged:
            self.show(log_page(page), options)
            return
        out = face.raw(self.stdout)
        while page.chunks:
            for chunk in page.chunks:
                watch.write_chunk(chunk, stdout=out)
            if options["before"] is not None:
                return
            page = logs.read_log(run, after=page.next, now=clock.now())
        if options["follow"]:
            _follow(run, options, lambda chunk: watch.write_chunk(chunk, stdout=out), after=page.next)

    def do_result(self, options: dict[str, Any]) -> None:
        """The whole of it."""
        out = face.raw(self.stdout)
        for piece in results.pieces(results.whole(options["run"])):
            out.write(piece)
        out.write("\n")

    def do_cancel(self, options: dict[str, Any]) -> None:
        """Cancel runs."""
        from dispatch.services import cancel_runs

        answer = cancel_runs(options["runs"], by=face.whoami())
        rows = [{"id": run_id, "answer": "cancelled"} for run_id in answer.cancelled]
        rows += [{"id": run_id, "answer": "requested"} for run_id, _worker in answer.requested]
        rows += [{"id": run_id, "answer": "not possible"} for run_id in answer.stale]
        text = rendered(
            rows, form=options["output"], columns=("id", "answer"), name="id", terminal=self.stdout.isatty()
        )
        self.stdout.write(text)
        if answer.stale:
            raise face.Exit(face.FAILED)

    def do_retry(self, options: dict[str, Any]) -> None:
        """A new run."""
        run = services.retry_run(options["run"], parameters_over=options["parameters"], by=face.whoami())
        watched_or_shown(self, run, options)

    def do_release(self, options: dict[str, Any]) -> None:
        """Let it go on."""
        self.show(RunShape(services.release_run(options["run"], by=face.whoami())).data, options)

    def do_why(self, options: dict[str, Any]) -> None:
        """Every reason."""
        from dispatch.why import blockers_of

        run = services.find_run(options["run"])
        reasons = [dataclasses.asdict(reason) for reason in blockers_of(run, clock.now())]
        if not reasons and options["output"] == "table":
            self.stdout.write(_("Nothing is in its way (%(status)s).") % {"status": run.status})
            return
        columns = ("code", "text", "holder", "since", "remedy")
        terminal = self.stdout.isatty()
        self.stdout.write(rendered(reasons, form=options["output"], columns=columns, name="code", terminal=terminal))


def submitted(command: face.FaceCommand, options: dict[str, Any]) -> None:
    """Trigger a task, then show or watch the run."""
    run = services.trigger(
        face.find_task(options["task"]),
        parameters_over=options["parameters"],
        triggered_by="command",
        by=face.whoami(),
    )
    watched_or_shown(command, run, options)


def watched_or_shown(command: face.FaceCommand, run: TaskRun, options: dict[str, Any]) -> None:
    """Show a run, or follow it: its output goes to stdout, or to stderr where stdout is for JSON, YAML or a name."""
    if not options["watch"]:
        data = RunShape(run).data if options["output"] != "table" else RunSummary(run).data
        command.show(data, options)
        return
    out = face.raw(command.stdout) if options["output"] == "table" else sys.stderr
    run = _follow(run, options, lambda chunk: watch.write_chunk(chunk, stdout=out), end=False)
    if options["output"] != "table":
        command.show(RunShape(run).data, options)
    _judge(run)


def _page_of_log(run: TaskRun, options: dict[str, Any]) -> logs.LogPage:
    if options["tail"] is not None:
        return logs.read_tail(run, now=clock.now(), bytes_max=options["tail"])
    if options["before"] is not None:
        return logs.read_before(run, before=options["before"])
    return logs.read_log(run, after=options["after"], now=clock.now())


def _follow(run: TaskRun, options: dict[str, Any], write: Any, *, after: int = 0, end: bool = True) -> TaskRun:
    try:
        run = watch.follow(run.pk, write=write, changed=_tell, timeout_seconds=options["timeout"], after=after)
    except watch.WatchTimeout:
        text = _("run %(run)s had not ended after %(seconds)s seconds; it goes on")
        raise CommandError(
            text % {"run": run.pk, "seconds": options["timeout"]}, returncode=face.WATCH_TIMEOUT
        ) from None
    if end:
        _judge(run)
    return run


def _tell(run: TaskRun) -> None:
    sys.stderr.write(f"run {run.pk} {run.status}{' on ' + run.worker_id if run.worker_id else ''}\n")


def _judge(run: TaskRun) -> None:
    if run.status == RunStatus.COMPLETED.value:
        return
    first = (run.error_message.strip().splitlines() or [""])[-1]
    text = _("run %(run)s ended as %(status)s") % {"run": run.pk, "status": run.status}
    raise CommandError(f"{text}: {first}" if first else text, returncode=face.FAILED)
