"""Task types that no live worker takes."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from django.utils.translation import gettext as _

from dispatch import queries
from dispatch.doctor.findings import Finding, Severity
from tasks_app.models import Task
from workers_app.models import WorkerIncarnation


class UnservedQueues:
    """An error where runs wait for such a worker, a warning where only a task would need one."""

    name = "unserved_queues"
    needs_database = True

    def find(self, now: datetime) -> Iterator[Finding]:
        """See `Check`."""
        taken = {kind for types in WorkerIncarnation.objects.taking_work().values_list("task_types", flat=True)
                 for kind in types}  # fmt: skip
        # A task's type may have been changed since: its runs keep the one that they were submitted with.
        waiting = {head.queue for head in queries.heads() if head.due_at <= now}
        wanted = set(Task.objects.live().order_by().values_list("task_type", flat=True).distinct())
        for kind in sorted((wanted | waiting) - taken):
            remedy = _('Start one: manage.py run_worker --task-types "%(task_type)s"') % {"task_type": kind}
            if kind in waiting:
                text = _('Runs of the task type "%(task_type)s" wait, and no worker takes it.')
                yield Finding("unserved_queues.waiting", Severity.ERROR, text % {"task_type": kind}, remedy)
            else:
                text = _('There are tasks of the type "%(task_type)s", and no worker takes it.')
                yield Finding("unserved_queues.idle", Severity.WARNING, text % {"task_type": kind}, remedy)
