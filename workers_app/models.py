"""Tables of the workers: fields, constraints and indexes only."""

from __future__ import annotations

import uuid

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from workers_app.pools import POOLS
from workers_app.querysets import IncarnationQuerySet, WorkerQuerySet


class Worker(models.Model):
    """A Celery worker node by its name. What it last said about itself is telemetry; nobody dies by it."""

    name = models.CharField(_("name"), max_length=200, primary_key=True)
    supported_task_types = models.JSONField(_("task types"), default=list)
    functions = models.JSONField(_("registered functions"), default=list, blank=True)
    labels = models.JSONField(_("labels"), default=dict, blank=True)
    pool = models.CharField(_("pool"), max_length=20, default="prefork")
    max_concurrent_tasks = models.PositiveIntegerField(_("slots"), default=0)
    current_task_count = models.PositiveIntegerField(_("running"), default=0)
    load_percentage = models.FloatField(_("slots in use (%)"), default=0)
    cpu_percent = models.FloatField(_("CPU (%)"), null=True, blank=True)
    memory_percent = models.FloatField(_("memory (%)"), null=True, blank=True)
    memory_rss_bytes = models.BigIntegerField(_("resident memory (bytes)"), null=True, blank=True)
    network_sent_bytes = models.BigIntegerField(_("network sent (bytes)"), null=True, blank=True)
    network_received_bytes = models.BigIntegerField(_("network received (bytes)"), null=True, blank=True)
    host = models.CharField(_("host"), max_length=255, blank=True, default="")
    pid = models.PositiveIntegerField(_("process id"), null=True, blank=True)
    code_version = models.CharField(_("code version"), max_length=100, blank=True, default="")
    last_heartbeat = models.DateTimeField(_("last heartbeat"), null=True, blank=True)
    registered_at = models.DateTimeField(_("registered at"))
    draining_since = models.DateTimeField(_("draining since"), null=True, blank=True)
    drain_requested_by = models.CharField(_("drain requested by"), max_length=150, blank=True, default="")

    objects = WorkerQuerySet.as_manager()

    class Meta:
        verbose_name = _("worker")
        verbose_name_plural = _("workers")
        ordering = ("name",)
        constraints = (
            models.CheckConstraint(condition=~Q(name="") & ~Q(name__contains="."), name="worker_name_without_dots"),
        )

    def __str__(self) -> str:
        return self.name

    @property
    def pool_says(self) -> str:
        """What its pool can end, for people; empty for a pool that a later version brought."""
        pool = POOLS.get(self.pool)
        return str(pool.says) if pool else ""


class WorkerIncarnation(models.Model):
    """One start of a worker, and its lease: `counter` is raised by each renewal and by nothing else.

    over_at: judged by a reaper, or the worker said goodbye (`ended_cleanly`). From then on it gets no permit.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    worker = models.ForeignKey(Worker, models.CASCADE, related_name="incarnations", verbose_name=_("worker"))
    counter = models.BigIntegerField(_("lease counter"), default=0)
    lease_seconds = models.FloatField(_("lease (s)"))
    #: Shutting down: takes no more work, still holds what it runs.
    draining = models.BooleanField(_("draining"), default=False)
    slots = models.PositiveIntegerField(_("slots"), default=0)
    task_types = models.JSONField(_("task types"), default=list)
    host = models.CharField(_("host"), max_length=255, blank=True, default="")
    pid = models.PositiveIntegerField(_("process id"), null=True, blank=True)
    code_version = models.CharField(_("code version"), max_length=100, blank=True, default="")
    started_at = models.DateTimeField(_("started at"))
    renewed_at = models.DateTimeField(_("renewed at"))
    over_at = models.DateTimeField(_("over at"), null=True, blank=True)
    ended_cleanly = models.BooleanField(_("ended cleanly"), default=False)

    objects = IncarnationQuerySet.as_manager()

    class Meta:
        verbose_name = _("worker incarnation")
        verbose_name_plural = _("worker incarnations")
        ordering = ("-started_at", "id")
        constraints = (
            models.CheckConstraint(
                condition=Q(ended_cleanly=False) | Q(over_at__isnull=False),
                name="incarnation_clean_end_is_over",
            ),
        )
        indexes = (models.Index(fields=("worker",), condition=Q(over_at__isnull=True), name="incarnation_live"),)

    def __str__(self) -> str:
        return f"{self.worker_id} {self.id}"
