"""Remote control commands `task.control.*`: the quick way to a worker.

The fact is in the database already, and a renewal brings it if this message is lost.

Celery's own commands to change the number of slots (Flower has buttons for them) are refused with the reason.
"""

from __future__ import annotations

from typing import Any

from celery.worker.control import control_command

from workers_app.pools import FIXED_SLOTS
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


@control_command(name="pool_grow", args=[("n", int)], signature="[N=1]")
def pool_grow(_state: Any, **_: Any) -> dict[str, Any]:
    """Refused."""
    return {"error": FIXED_SLOTS}


@control_command(name="pool_shrink", args=[("n", int)], signature="[N=1]")
def pool_shrink(_state: Any, **_: Any) -> dict[str, Any]:
    """Refused."""
    return {"error": FIXED_SLOTS}


@control_command(name="autoscale", args=[("max", int), ("min", int)], signature="[max [min]]")
def autoscale(_state: Any, **_: Any) -> dict[str, Any]:
    """Refused."""
    return {"error": FIXED_SLOTS}
