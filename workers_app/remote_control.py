"""Remote control commands `task.control.*`: the quick way to a worker.

The fact is in the database already, and a renewal brings it if this message is lost.
"""

from __future__ import annotations

from typing import Any

from celery.worker.control import control_command

from workers_app.worker_process import WorkerProcess


@control_command(name="task.control.cancel", args=[("runs", list)])
def cancel(_state: Any, runs: list[dict[str, Any]], **_: Any) -> dict[str, Any]:
    """Ask the bodies of these runs to stop."""
    return {"ok": WorkerProcess.current().cancel_runs([int(run["run_id"]) for run in runs])}


@control_command(name="task.control.drain")
def drain(_state: Any, **_: Any) -> dict[str, Any]:
    """Take no more work until told to resume."""
    WorkerProcess.current().renew_soon()
    return {"ok": True}


@control_command(name="task.control.resume")
def resume(_state: Any, **_: Any) -> dict[str, Any]:
    """Take work again."""
    WorkerProcess.current().renew_soon()
    return {"ok": True}
