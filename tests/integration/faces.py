"""What the tests of the outer faces share: a signed-in client, and runs in any state."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from functools import cache
from typing import Any
from uuid import uuid4

from django.contrib.auth.hashers import make_password
from django.contrib.auth.models import Permission, User
from django.core.management import ManagementUtility
from django.test import Client

from scheduler_project.access import tokens
from tasks_app import lifecycle, services
from tasks_app.clock import clock
from tasks_app.definitions import TaskDefinition
from tasks_app.models import Task, TaskRun
from tasks_app.states import Outcome
from workers_app.models import Worker, WorkerIncarnation


@cache
def _hashed(password: str) -> str:
    return make_password(password)


class Api:
    """A client of /api/v1 that sends and reads JSON."""

    def __init__(self, user: User | None = None) -> None:
        self.client = Client(raise_request_exception=False)
        self.headers: dict[str, str] = {}
        if user is not None:
            self.headers["Authorization"] = f"Bearer {tokens.issue(user, now=clock.now()).access_token}"

    def __call__(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        """The response; `.body` is its decoded JSON."""
        extra: dict[str, Any] = {} if body is None else {"data": json.dumps(body), "content_type": "application/json"}
        sent = self.headers | {name.replace("_", "-"): value for name, value in headers.items()}
        response: Any = self.client.generic(method, f"/api/v1/{path}", **extra, headers=sent)
        response.body = json.loads(response.content) if response.content else None
        return response


def as_from_a_shell(capsys: Any, monkeypatch: Any) -> Callable[..., tuple[Any, str, str]]:
    """`call("task", "list")` runs a command in this process: (exit code, stdout, stderr)."""
    monkeypatch.setattr("django.db.connections.close_all", lambda: None)  # the test's transaction lives in one

    def call(*words: str, stdin: str = "") -> tuple[Any, str, str]:
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        code: Any = 0
        try:
            ManagementUtility(["manage.py", *words]).execute()
        except SystemExit as end:
            code = end.code or 0
        out = capsys.readouterr()
        return code, out.out, out.err

    return call


def user(name: str = "ada", *, superuser: bool = False, may: tuple[str, ...] = ()) -> User:
    """A user with these permissions ("app.codename")."""
    made = User.objects.create(username=name, password=_hashed("correct horse battery"), is_superuser=superuser)
    for permission in may:
        app, codename = permission.split(".")
        made.user_permissions.add(Permission.objects.get(content_type__app_label=app, codename=codename))
    return made


def a_task(name: str = "backup", **changes: Any) -> Task:
    """A shell task."""
    values: dict[str, Any] = {"name": name, "executor": "shell", "parameters": {"argv": ["true"]}} | changes
    return services.create_task(TaskDefinition(**values))


def a_worker(name: str = "w1", **changes: Any) -> WorkerIncarnation:
    """A worker with one live incarnation."""
    now = clock.now()
    worker, _ = Worker.objects.get_or_create(
        name=name, defaults={"registered_at": now, "last_heartbeat": now, "supported_task_types": ["default"]}
    )
    values: dict[str, Any] = {"lease_seconds": 60, "slots": 2, "task_types": ["default"], "started_at": now,
                              "renewed_at": now} | changes  # fmt: skip
    return WorkerIncarnation.objects.create(worker=worker, **values)


def dispatched(run: TaskRun) -> TaskRun:
    """Claimed."""
    from datetime import timedelta

    now = clock.now()
    lifecycle.claim(TaskRun.objects.filter(pk=run.pk), now=now, permit_within=timedelta(minutes=1))
    run.refresh_from_db()
    return run


def running(run: TaskRun, incarnation: WorkerIncarnation | None = None) -> TaskRun:
    """Claimed and permitted."""
    held = incarnation or a_worker()
    run = dispatched(run)
    assert run.token is not None
    holder = lifecycle.Holder(worker_id=held.worker_id, incarnation_id=held.id, alive_sql="1=1")
    lifecycle.permit(
        [lifecycle.PermitAsk(run_id=run.pk, token=run.token, nonce=uuid4())], holder=holder, now=clock.now()
    )
    run.refresh_from_db()
    assert run.status == "RUNNING"
    return run


def ended(run: TaskRun, outcome: Outcome = Outcome.COMPLETED, **facts: Any) -> TaskRun:
    """Run to its end; a failed one has used up its retries."""
    run = running(run)
    assert run.token is not None
    now = clock.now()
    values: dict[str, Any] = {"retryable": False, "started_at": now, "ended_at": now, "duration_ms": 5} | facts
    lifecycle.finish(
        [lifecycle.Finished(run_id=run.pk, attempt=run.attempt, token=run.token, outcome=outcome, **values)], now=now
    )
    run.refresh_from_db()
    return run
