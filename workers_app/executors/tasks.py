"""The built-in executors as registered Celery tasks, so that Celery's tools show them by name."""

from __future__ import annotations

from typing import Any

from celery import shared_task

from tasks_app.messages.execution import HTTP_FUNCTION, SHELL_FUNCTION
from workers_app.addresses import AddressPolicy
from workers_app.conf import conf
from workers_app.executors.http import HttpLimits, run_http
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


@shared_task(name=HTTP_FUNCTION)
def http(**parameters: Any) -> dict[str, Any]:
    """Make an HTTP request; only for a run that holds a permit, as above."""
    job = current_job()
    if not job.managed:
        raise PermissionError("HTTP requests are made only with a permit")
    settings = conf()
    result = run_http(
        parameters,
        job=job,
        policy=AddressPolicy(settings.http_allow),
        limits=HttpLimits(body_bytes=settings.http_body_bytes_max, authorities_file=settings.http_authorities_file),
    )
    return result.as_json()
