"""The built-in executors as registered Celery tasks, so that Celery's tools show them by name."""

from __future__ import annotations

from typing import Any

from celery import shared_task

from tasks_app.messages.execution import SHELL_FUNCTION
from workers_app.conf import conf
from workers_app.executors.limits import ShellLimits
from workers_app.executors.shell import run_shell
from workers_app.job import current_job


@shared_task(name=SHELL_FUNCTION)
def shell(**parameters: Any) -> dict[str, Any]:
    """Run a command under its supervisor; only for a run that holds a permit.

    A message without one would be a way to run commands on every worker, so it is refused.
    """
    job = current_job()
    if not job.managed:
        raise PermissionError("shell commands run only with a permit")
    settings = conf()
    result = run_shell(
        parameters,
        job=job,
        limits=ShellLimits(log_bytes=settings.log_bytes_max, stop_grace_seconds=settings.stop_grace_seconds),
    )
    return result.as_json()
