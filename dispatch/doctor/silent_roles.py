"""Roles that do not do what they are there for, told by what is left undone."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from django.utils.translation import gettext as _

from dispatch import broker_probe, queries
from dispatch.claiming import candidates
from dispatch.conf import conf
from dispatch.doctor.findings import Finding, Severity
from tasks_app.models import TaskRun
from workers_app.conf import conf as workers_conf
from workers_app.models import WorkerIncarnation


class SilentRoles:
    """Dispatcher, reaper, ingest and workers."""

    name = "silent_roles"
    needs_database = True

    def find(self, now: datetime) -> Iterator[Finding]:
        """See `Check`."""
        if not WorkerIncarnation.objects.taking_work().exists():
            yield Finding(
                "silent_roles.no_worker", Severity.WARNING, _("No worker takes runs."),
                _("Start one: manage.py run_worker"),
            )  # fmt: skip
        if waiting := _due_and_left(now):
            yield Finding(
                "silent_roles.dispatcher", Severity.ERROR,
                _('Runs of "%(task_type)s" are due, slots are free, and no dispatcher takes them.')
                % {"task_type": waiting},
                _("Start a dispatcher: manage.py run_dispatcher. If one runs, see its log."),
            )  # fmt: skip
        if _not_reaped(now):
            yield Finding(
                "silent_roles.reaper", Severity.ERROR,
                _("Nobody takes back what was not permitted in time or judges leases that are over."),
                _("Start a dispatcher, which has a reaper: manage.py run_dispatcher. If one runs, see its log."),
            )  # fmt: skip
        yield from _unheard(now)


def _due_and_left(now: datetime) -> str | None:
    """A task type whose due runs a dispatcher would have taken by now."""
    if broker_probe.unreachable() is not None:
        return None  # then dispatchers hold everything back, as they should
    late = now - timedelta(seconds=5 + 5 * conf().tick_seconds)
    heads = [head for head in queries.heads() if head.due_at < late]
    loads = queries.loads({head.queue: queries.Look(now) for head in heads}, now) if heads else {}
    for head in heads:
        load = loads[head.queue]
        if load.free * 2 > load.dispatched and candidates(head.queue, head.priority, late).exists():
            return head.queue
    return None


def _not_reaped(now: datetime) -> bool:
    """Something is left that a reaper would have taken in hand."""
    ticks = timedelta(seconds=5 + 5 * conf().reaper_tick_seconds)
    if TaskRun.objects.dispatched().filter(permit_by__lt=now - ticks).exists():
        return True
    live = WorkerIncarnation.objects.live().values_list("renewed_at", "lease_seconds")
    # Twice: a reaper that was just started gives everybody a full lease.
    return any(renewed_at + timedelta(seconds=2 * lease) + ticks < now for renewed_at, lease in live)


def _unheard(now: datetime) -> Iterator[Finding]:
    """Workers that renew their leases, in the database, and whose heartbeats, over the broker, do not arrive."""
    section = workers_conf()
    renewing = dict(
        WorkerIncarnation.objects.live()
        .filter(renewed_at__gt=now - timedelta(seconds=section.lease_seconds))
        .values_list("worker_id", "worker__last_heartbeat")
    )
    suspect_before = now - timedelta(seconds=section.suspect_after_seconds)
    unheard = sorted(name for name, at in renewing.items() if at is None or at < suspect_before)
    if not unheard:
        return
    if len(unheard) == len(renewing):
        yield Finding(
            "silent_roles.ingest", Severity.ERROR,
            _("Workers renew their leases, and none of their heartbeats is written down."),
            _("Start an ingest: manage.py run_ingest. If one runs, see its log, and that the broker is the same."),
        )  # fmt: skip
    else:
        yield Finding(
            "silent_roles.worker", Severity.WARNING,
            _("No heartbeats arrive from: %(workers)s.") % {"workers": ", ".join(unheard[:10])},
            _("See the worker's log, and whether its host reaches the broker."),
        )  # fmt: skip
