"""An installation with a worker of each pool in it, for the tests of pools."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.acceptance.installation import Installation, installation
from tests.acceptance.test_runs import make, running
from tests.sqlite_file import writable

LEASE_SECONDS = 4
#: Bodies in threads of the worker's own process.
IN_ONE_PROCESS = ("threads", "solo")


@contextmanager
def with_pools(folder: Path, database: str, broker: str) -> Iterator[Installation]:
    """No worker yet. Short leases, drains and graces."""
    environment = {
        "SIGNALBOX_IMPORTS": "tests.acceptance.jobs_of_tests",
        "SIGNALBOX_WORKERS__LEASE_SECONDS": str(LEASE_SECONDS), "SIGNALBOX_WORKERS__DRAIN_SECONDS": "2",
        "SIGNALBOX_WORKERS__HEARTBEAT_SECONDS": "1", "SIGNALBOX_DISPATCH__DEADLINE_GRACE_SECONDS": "1",
    }  # fmt: skip
    with installation(folder, database, broker, **environment) as made:
        made.start_all(workers=0)
        yield made


def start_workers(made: Installation, workers: dict[str, str], *options: str) -> None:
    """Start a worker of each name, of the pool that it maps to; each takes the task type of its own name."""
    for name, pool in workers.items():
        slots = () if pool == "solo" else ("--slots", "3")
        made.start(name, "run_worker", "--name", name, "--pool", pool, "--task-types", name, *slots, *options)

    def online() -> bool:
        rows = {row["name"]: row for row in made.api("GET", "workers")["results"]}
        return all(name in rows and rows[name]["cpu_percent"] is not None for name in workers)

    made.wait_for(online, f"the workers {', '.join(workers)}")


def triggered(made: Installation, kind: str, function: str | None = None, **changes: Any) -> int:
    """A run that waits, or more, of this task type."""
    task = make(made, function, task_type=kind, **changes)
    return int(made.api("POST", f"tasks/{task}/trigger", {}, expect=201)["id"])


def begun(made: Installation, kind: str, function: str, **changes: Any) -> int:
    """A run whose body has said that it sleeps."""
    run_id = running(made, make(made, function, task_type=kind, **changes))
    made.wait_for(lambda: "sleeping" in made.log_text(run_id), "the body to begin")
    return run_id


@contextmanager
def standing_still(made: Installation, *processes: subprocess.Popen[bytes]) -> Iterator[None]:
    """Stopped for as long as the block lasts; on SQLite not inside a transaction, whose lock is that of the file."""
    try:
        for _ in range(20):
            for process in processes:
                process.send_signal(signal.SIGSTOP)
            if _writable(made.database_url):
                break
            for process in processes:
                process.send_signal(signal.SIGCONT)
            time.sleep(0.1)
        else:
            raise AssertionError("it holds the database whenever it is stopped")
        yield
    finally:
        for process in processes:
            process.send_signal(signal.SIGCONT)


def _writable(url: str) -> bool:
    prefix = "sqlite:///"
    return not url.startswith(prefix) or writable(url.removeprefix(prefix))


def cancelled(made: Installation, *run_ids: int) -> None:
    """Nobody takes these any more."""
    for run_id in run_ids:
        made.raw("POST", f"/api/v1/runs/{run_id}/cancel")
