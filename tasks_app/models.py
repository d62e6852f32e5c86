"""Tables of the task domain: fields, constraints and indexes only.

Names of fields follow what users know from the field: `task_type`, `parameters`, `timeout_seconds`, `max_retries`,
`scheduled_at`, `started_at`, `completed_at`. `worker_id` and `incarnation_id` are plain columns: this package does
not know the workers' tables, and history must outlive them.
"""

from __future__ import annotations

import uuid

from django.db import models
from django.db.models import F, Q
from django.utils.translation import gettext_lazy as _

from tasks_app.querysets import RunQuerySet, ScheduleQuerySet, TaskQuerySet
from tasks_app.states import FINAL, Outcome, RunStatus

FINAL_VALUES = sorted(status.value for status in FINAL)


class Executor(models.TextChoices):
    """How a run's body is executed."""

    PYTHON = "python", _("Python function")
    SHELL = "shell", _("shell command")
    HTTP = "http", _("HTTP request")


class Queue(models.Model):
    """One row a task type: what dispatchers lock while they count credit, so that two never count at once."""

    name = models.CharField(_("task type"), max_length=50, primary_key=True)
    backlog_max = models.PositiveIntegerField(_("backlog limit"), null=True, blank=True)
    created_at = models.DateTimeField(_("created at"), auto_now_add=True)

    class Meta:
        verbose_name = _("queue")
        verbose_name_plural = _("queues")
        ordering = ("name",)

    def __str__(self) -> str:
        return self.name


class Task(models.Model):
    """A definition of work. Each edit of what is run makes a new TaskVersion; pausing does not."""

    name = models.CharField(_("name"), max_length=200)
    description = models.TextField(_("description"), blank=True, default="")
    task_type = models.CharField(_("task type"), max_length=50, default="default")
    executor = models.CharField(_("executor"), max_length=20, choices=Executor)
    parameters = models.JSONField(_("parameters"), default=dict, blank=True)
    timeout_seconds = models.PositiveIntegerField(_("timeout (s)"), default=3600)
    max_retries = models.PositiveSmallIntegerField(_("retries"), default=3)
    retry_delay_seconds = models.FloatField(_("first retry delay (s)"), default=5.0)
    retry_delay_cap_seconds = models.FloatField(_("longest retry delay (s)"), default=3600.0)
    priority = models.PositiveSmallIntegerField(_("priority"), default=5, help_text=_("0 to 9, 9 goes first"))
    quarantine_after = models.PositiveSmallIntegerField(_("quarantine after worker deaths"), default=3)
    keep_running = models.BooleanField(
        _("keep running without a lease"),
        default=False,
        help_text=_("The body is not ended when its worker loses the database; two attempts may overlap."),
    )
    version = models.PositiveIntegerField(_("version"), default=1)
    paused_at = models.DateTimeField(_("paused at"), null=True, blank=True)
    paused_by = models.CharField(_("paused by"), max_length=150, blank=True, default="")
    pause_reason = models.CharField(_("pause reason"), max_length=500, blank=True, default="")
    created_at = models.DateTimeField(_("created at"), auto_now_add=True)
    updated_at = models.DateTimeField(_("updated at"), auto_now=True)
    created_by = models.CharField(_("created by"), max_length=150, blank=True, default="")
    deleted_at = models.DateTimeField(_("deleted at"), null=True, blank=True)

    objects = TaskQuerySet.as_manager()

    class Meta:
        verbose_name = _("task")
        verbose_name_plural = _("tasks")
        ordering = ("name",)
        indexes = (
            # Each claim asks for these: few among many.
            models.Index(fields=("id",), condition=Q(paused_at__isnull=False), name="task_paused"),
            models.Index(fields=("id",), condition=Q(deleted_at__isnull=False), name="task_deleted"),
        )
        constraints = (
            models.UniqueConstraint(fields=("name",), condition=Q(deleted_at__isnull=True), name="task_name_unique"),
            models.CheckConstraint(condition=Q(timeout_seconds__gt=0), name="task_timeout_above_zero"),
            models.CheckConstraint(condition=Q(priority__lte=9), name="task_priority_0_to_9"),
            models.CheckConstraint(condition=Q(quarantine_after__gt=0), name="task_quarantine_above_zero"),
            models.CheckConstraint(
                condition=Q(retry_delay_seconds__gte=0) & Q(retry_delay_cap_seconds__gte=F("retry_delay_seconds")),
                name="task_retry_delays_ordered",
            ),
        )

    def __str__(self) -> str:
        return self.name


class TaskVersion(models.Model):
    """What a task said at one version; a run names the version that it was made from."""

    task = models.ForeignKey(Task, models.CASCADE, related_name="versions", verbose_name=_("task"))
    number = models.PositiveIntegerField(_("version"))
    definition = models.JSONField(_("definition"))
    created_at = models.DateTimeField(_("created at"), auto_now_add=True)
    created_by = models.CharField(_("created by"), max_length=150, blank=True, default="")

    class Meta:
        verbose_name = _("task version")
        verbose_name_plural = _("task versions")
        ordering = ("task_id", "-number")
        constraints = (models.UniqueConstraint(fields=("task", "number"), name="task_version_unique"),)

    def __str__(self) -> str:
        return f"{self.task_id} v{self.number}"


class TaskRun(models.Model):
    """One intended execution of a task, and the outbox entry for it. Its status is written by `lifecycle` alone.

    `attempt` is the one under way (1, 2, …); attempts that ended are TaskRunAttempt rows. `token` changes with each
    dispatch and is what a worker must show; `nonce` marks the delivery that won the permit. `lane` is the key by
    which fairness between tenants will share slots.
    """

    task = models.ForeignKey(Task, models.PROTECT, related_name="runs", verbose_name=_("task"), db_index=False)
    task_version = models.PositiveIntegerField(_("task version"))
    task_name = models.CharField(_("task name"), max_length=200)
    task_type = models.CharField(_("task type"), max_length=50)
    executor = models.CharField(_("executor"), max_length=20, choices=Executor)
    parameters = models.JSONField(_("parameters"), default=dict)
    lane = models.CharField(_("lane"), max_length=100, blank=True, default="")
    status = models.CharField(
        _("status"),
        max_length=12,
        choices=[(s.value, s.value) for s in RunStatus],
        default=RunStatus.PENDING.value,
    )
    priority = models.PositiveSmallIntegerField(_("priority"), default=5)
    due_at = models.DateTimeField(_("due at"))
    scheduled_at = models.DateTimeField(_("nominal time"))
    created_at = models.DateTimeField(_("created at"))

    timeout_seconds = models.PositiveIntegerField(_("timeout (s)"))
    max_retries = models.PositiveSmallIntegerField(_("retries"))
    retry_delay_seconds = models.FloatField(_("first retry delay (s)"))
    retry_delay_cap_seconds = models.FloatField(_("longest retry delay (s)"))
    quarantine_after = models.PositiveSmallIntegerField(_("quarantine after worker deaths"))
    keep_running = models.BooleanField(_("keep running without a lease"), default=False)

    attempt = models.PositiveSmallIntegerField(_("attempt"), default=1)
    dispatch_count = models.PositiveIntegerField(_("dispatches"), default=0)
    crash_count = models.PositiveSmallIntegerField(_("worker deaths"), default=0)
    token = models.UUIDField(_("dispatch token"), null=True, blank=True)
    dispatched_at = models.DateTimeField(_("dispatched at"), null=True, blank=True)
    permit_by = models.DateTimeField(_("permit wanted by"), null=True, blank=True)
    nonce = models.UUIDField(_("permit nonce"), null=True, blank=True)
    worker_id = models.CharField(_("worker"), max_length=200, blank=True, default="")
    incarnation_id = models.UUIDField(_("worker incarnation"), null=True, blank=True)
    permitted_at = models.DateTimeField(_("permitted at"), null=True, blank=True)
    started_at = models.DateTimeField(_("started at"), null=True, blank=True)
    deadline_at = models.DateTimeField(_("deadline"), null=True, blank=True)
    completed_at = models.DateTimeField(_("completed at"), null=True, blank=True)
    execution_duration_ms = models.BigIntegerField(_("duration (ms)"), null=True, blank=True)

    cancel_requested_at = models.DateTimeField(_("cancel requested at"), null=True, blank=True)
    cancel_requested_by = models.CharField(_("cancel requested by"), max_length=150, blank=True, default="")
    #: Why the platform wants the attempt under way stopped; a user's cancel has the fields above.
    stop_reason = models.CharField(_("stop reason"), max_length=20, blank=True, default="")

    result = models.JSONField(_("result"), null=True, blank=True)
    error_message = models.TextField(_("error"), blank=True, default="")
    progress = models.JSONField(_("progress"), null=True, blank=True)

    correlation_id = models.UUIDField(_("correlation id"), default=uuid.uuid4)
    traceparent = models.CharField(_("trace parent"), max_length=55, blank=True, default="")
    retry_of = models.ForeignKey(
        "self",
        models.SET_NULL,
        null=True,
        blank=True,
        related_name="+",
        verbose_name=_("retry of"),
        db_index=False,
    )
    triggered_by = models.CharField(_("triggered by"), max_length=20, default="api")
    created_by = models.CharField(_("created by"), max_length=150, blank=True, default="")

    objects = RunQuerySet.as_manager()

    class Meta:
        verbose_name = _("run")
        verbose_name_plural = _("runs")
        ordering = ("-id",)
        constraints = (
            models.CheckConstraint(condition=Q(status__in=[s.value for s in RunStatus]), name="run_status_known"),
            models.CheckConstraint(
                condition=(
                    Q(status__in=FINAL_VALUES, completed_at__isnull=False)
                    | (~Q(status__in=FINAL_VALUES) & Q(completed_at__isnull=True))
                ),
                name="run_completed_at_iff_final",
            ),
            models.CheckConstraint(
                condition=~Q(status__in=[RunStatus.DISPATCHED.value, RunStatus.RUNNING.value]) | Q(token__isnull=False),
                name="run_in_flight_has_token",
            ),
            models.CheckConstraint(
                condition=~Q(status=RunStatus.RUNNING.value)
                | Q(nonce__isnull=False, incarnation_id__isnull=False, deadline_at__isnull=False),
                name="run_running_has_holder",
            ),
            models.CheckConstraint(condition=Q(attempt__gt=0), name="run_attempt_above_zero"),
            models.CheckConstraint(condition=Q(priority__lte=9), name="run_priority_0_to_9"),
        )
        indexes = (
            # The claim: one queue, best priority first, oldest due first.
            models.Index(
                F("task_type"),
                F("priority").desc(),
                F("due_at"),
                F("id"),
                condition=Q(status="PENDING"),
                name="run_claim",
            ),
            # Credit: what is out for a queue, and how long its oldest message waits.
            models.Index(fields=("task_type", "dispatched_at"), condition=Q(status="DISPATCHED"), name="run_waiting"),
            # Reaper: not permitted in time; held by an incarnation; past its deadline.
            models.Index(fields=("permit_by",), condition=Q(status="DISPATCHED"), name="run_permit_by"),
            models.Index(fields=("incarnation_id",), condition=Q(status="RUNNING"), name="run_held_by"),
            models.Index(fields=("deadline_at",), condition=Q(status="RUNNING"), name="run_deadline"),
            # Keyset lists: by task, and the states that people look for among millions that completed.
            # Every run has a task. The condition is for the planner: a question for an id alone cannot prove it, so
            # that stale statistics never make it read this whole index instead of the primary key's one entry.
            models.Index(fields=("task", "-id"), condition=Q(task__isnull=False), name="run_by_task"),
            # Deleting a run asks who refers to it: without this each deleted row would read the whole table.
            models.Index(fields=("retry_of",), condition=Q(retry_of__isnull=False), name="run_retry_of"),
            models.Index(
                fields=("status", "-id"),
                condition=Q(status__in=["FAILED", "TIMEOUT", "CANCELLED", "SKIPPED", "LOST", "QUARANTINED"]),
                name="run_not_completed",
            ),
        )

    def __str__(self) -> str:
        return f"{self.pk} {self.task_name} {self.status}"

    @property
    def retry_count(self) -> int:
        """Attempts beyond the first that were used or are under way."""
        return self.attempt - 1


class TaskRunAttempt(models.Model):
    """An attempt that ended, written by the verb that ended it; never changed afterwards."""

    run = models.ForeignKey(TaskRun, models.CASCADE, related_name="attempts", verbose_name=_("run"), db_index=False)
    number = models.PositiveSmallIntegerField(_("attempt"))
    status = models.CharField(_("outcome"), max_length=12, choices=[(o.value, o.value) for o in Outcome])
    token = models.UUIDField(_("dispatch token"))
    nonce = models.UUIDField(_("permit nonce"), null=True, blank=True)
    worker_id = models.CharField(_("worker"), max_length=200, blank=True, default="")
    incarnation_id = models.UUIDField(_("worker incarnation"), null=True, blank=True)
    permitted_at = models.DateTimeField(_("permitted at"), null=True, blank=True)
    started_at = models.DateTimeField(_("started at"), null=True, blank=True)
    ended_at = models.DateTimeField(_("ended at"))
    execution_duration_ms = models.BigIntegerField(_("duration (ms)"), null=True, blank=True)
    error_type = models.CharField(_("error type"), max_length=200, blank=True, default="")
    error_message = models.TextField(_("error"), blank=True, default="")

    class Meta:
        verbose_name = _("attempt")
        verbose_name_plural = _("attempts")
        ordering = ("run_id", "number")
        constraints = (models.UniqueConstraint(fields=("run", "number"), name="attempt_unique"),)

    def __str__(self) -> str:
        return f"{self.run_id}.{self.number} {self.status}"


class RunEvent(models.Model):
    """Something that happened to a run and that its own columns do not tell any more."""

    run = models.ForeignKey(TaskRun, models.CASCADE, related_name="events", verbose_name=_("run"), db_index=False)
    at = models.DateTimeField(_("at"))
    kind = models.CharField(_("kind"), max_length=40)
    attempt = models.PositiveSmallIntegerField(_("attempt"))
    detail = models.JSONField(_("detail"), default=dict, blank=True)

    class Meta:
        verbose_name = _("run event")
        verbose_name_plural = _("run events")
        ordering = ("run_id", "id")
        indexes = (models.Index(fields=("run", "id"), name="event_by_run"),)

    def __str__(self) -> str:
        return f"{self.run_id} {self.kind}"


class RunLogChunk(models.Model):
    """A piece of an attempt's output, in the order in which its child wrote it."""

    run = models.ForeignKey(TaskRun, models.CASCADE, related_name="log_chunks", verbose_name=_("run"), db_index=False)
    attempt = models.PositiveSmallIntegerField(_("attempt"))
    #: Token of the dispatch that wrote it: a stale worker's output is refused, not mixed in.
    token = models.UUIDField(_("dispatch token"))
    seq = models.PositiveIntegerField(_("sequence"))
    stream = models.CharField(_("stream"), max_length=6)
    text = models.TextField(_("text"))
    at = models.DateTimeField(_("at"))

    class Meta:
        verbose_name = _("log chunk")
        verbose_name_plural = _("log chunks")
        ordering = ("run_id", "attempt", "seq")
        constraints = (models.UniqueConstraint(fields=("run", "attempt", "seq"), name="log_chunk_unique"),)

    def __str__(self) -> str:
        return f"{self.run_id}.{self.attempt}#{self.seq}"


class Schedule(models.Model):
    """When a task fires. What it says is django-celery-beat's PeriodicTask; when it fires next is ours."""

    periodic_task = models.OneToOneField(
        "django_celery_beat.PeriodicTask",
        models.CASCADE,
        related_name="signalbox",
        verbose_name=_("definition"),
    )
    task = models.ForeignKey(Task, models.CASCADE, related_name="schedules", verbose_name=_("task"))
    next_fire_at = models.DateTimeField(_("next fire"), null=True, blank=True)
    last_fire_at = models.DateTimeField(_("last fire"), null=True, blank=True)

    objects = ScheduleQuerySet.as_manager()

    class Meta:
        verbose_name = _("schedule")
        verbose_name_plural = _("schedules")
        ordering = ("id",)
        indexes = (
            models.Index(fields=("next_fire_at",), condition=Q(next_fire_at__isnull=False), name="schedule_due"),
        )

    def __str__(self) -> str:
        return f"{self.task_id}: {self.periodic_task_id}"


class ScheduleFire(models.Model):
    """One decision about a nominal time: fired (with its run) or skipped; a skipped range is one row."""

    schedule = models.ForeignKey(
        Schedule, models.CASCADE, related_name="fires", verbose_name=_("schedule"), db_index=False
    )
    instant = models.DateTimeField(_("nominal time"))
    backfill = models.PositiveIntegerField(_("backfill"), default=0)
    run = models.ForeignKey(TaskRun, models.SET_NULL, null=True, blank=True, related_name="+", verbose_name=_("run"))
    decision = models.CharField(
        _("decision"), max_length=10, choices=[("fired", _("fired")), ("skipped", _("skipped"))]
    )
    reason = models.CharField(_("reason"), max_length=200, blank=True, default="")
    last_instant = models.DateTimeField(_("last nominal time"), null=True, blank=True)
    count = models.PositiveIntegerField(_("count"), default=1)
    at = models.DateTimeField(_("decided at"))

    class Meta:
        verbose_name = _("schedule fire")
        verbose_name_plural = _("schedule fires")
        ordering = ("schedule_id", "-instant")
        constraints = (
            models.UniqueConstraint(fields=("schedule", "instant", "backfill"), name="fire_once_per_instant"),
        )

    def __str__(self) -> str:
        return f"{self.schedule_id} {self.instant:%Y-%m-%dT%H:%M:%SZ} {self.decision}"


class PoisonReport(models.Model):
    """A report that could not be applied, set aside so that the ones behind it go on."""

    received_at = models.DateTimeField(_("received at"))
    worker_id = models.CharField(_("worker"), max_length=200, blank=True, default="")
    body = models.TextField(_("body"))
    error = models.TextField(_("error"))

    class Meta:
        verbose_name = _("poisoned report")
        verbose_name_plural = _("poisoned reports")
        ordering = ("-id",)

    def __str__(self) -> str:
        return f"{self.received_at:%Y-%m-%dT%H:%M:%SZ} {self.worker_id}"
