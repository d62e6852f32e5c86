"""Runs that do not come to an end by themselves."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from django.db.models import QuerySet
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from dispatch.conf import conf
from dispatch.doctor.findings import Finding, Severity
from tasks_app.models import TaskRun
from tasks_app.states import RunStatus
from workers_app.conf import conf as workers_conf

_SHOWN = 5


class StuckRuns:
    """Past their deadline, told to stop and not stopping, or waiting for a person."""

    name = "stuck_runs"
    needs_database = True

    def find(self, now: datetime) -> Iterator[Finding]:
        """See `Check`."""
        section = conf()
        patience = timedelta(
            seconds=section.deadline_grace_seconds + 3 * section.reaper_tick_seconds + workers_conf().lease_seconds
        )
        running = TaskRun.objects.running()
        overdue = running.filter(deadline_at__lt=now - patience)
        if count := overdue.count():
            text = ngettext(
                "%(count)d run is long past its deadline and still RUNNING: %(ids)s.",
                "%(count)d runs are long past their deadline and still RUNNING: %(ids)s.",
                count,
            )
            yield Finding(
                "stuck_runs.past_deadline", Severity.ERROR, text % {"count": count, "ids": _ids(overdue)},
                _("See that a dispatcher runs, whose reaper ends them; or cancel them: manage.py run cancel ID"),
            )  # fmt: skip
        unheard = running.filter(cancel_requested_at__lt=now - patience, deadline_at__gte=now - patience)
        if count := unheard.count():
            text = ngettext(
                "%(count)d run was cancelled and has not stopped: %(ids)s.",
                "%(count)d runs were cancelled and have not stopped: %(ids)s.",
                count,
            )
            yield Finding(
                "stuck_runs.not_stopping", Severity.WARNING, text % {"count": count, "ids": _ids(unheard)},
                _("Look at the worker that holds it; what it cannot kill ends with its body or with the worker."),
            )  # fmt: skip
        quarantined = TaskRun.objects.filter(status=RunStatus.QUARANTINED.value)
        if count := quarantined.count():
            text = ngettext(
                "%(count)d run killed its worker too often and waits for a person: %(ids)s.",
                "%(count)d runs killed their workers too often and wait for a person: %(ids)s.",
                count,
            )
            yield Finding(
                "stuck_runs.quarantined", Severity.WARNING, text % {"count": count, "ids": _ids(quarantined)},
                _("Find out why, then let it go on or cancel it: manage.py run release ID, manage.py run cancel ID"),
            )  # fmt: skip


def _ids(runs: QuerySet[TaskRun]) -> str:
    ids = [str(pk) for pk in runs.order_by("pk").values_list("pk", flat=True)[: _SHOWN + 1]]
    return ", ".join(ids[:_SHOWN]) + (" …" if len(ids) > _SHOWN else "")
