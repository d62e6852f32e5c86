"""Which processes `make run` consists of, and how it knows that each is well."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Role:
    """One process that is kept running."""

    name: str
    command: Sequence[str]
    #: What the checklist says when it is up.
    says: str
    #: Where `ready_path` and `live_path` are asked for, on 127.0.0.1; 0 means that a living process is all
    #: there is to know.
    health_port: int
    ready_path: str = "/readyz"
    #: None: silence is nothing to worry about.
    live_path: str | None = "/livez"
    #: Roles of a lower stage drain first.
    stage: int = 0
    env: Mapping[str, str] = field(default_factory=dict)
    #: The file that it logs to, when that is not the terminal.
    log: str = ""


def manage(*arguments: str) -> list[str]:
    """A management command, in this very Python."""
    return [sys.executable, "manage.py", *arguments]


def roles(*, web_port: int, flower_port: int, health_ports: Sequence[int]) -> list[Role]:
    """All roles, in the order in which they start. `health_ports` are three free ones."""
    dispatcher, ingest, worker = health_ports
    return [
        Role(
            name="web",
            command=manage("run_web", "--host", "127.0.0.1", "--port", str(web_port)),
            says=f"http://127.0.0.1:{web_port}",
            health_port=web_port,
        ),
        Role(
            name="ingest",
            command=manage("run_ingest"),
            says="takes reports",
            health_port=ingest,
            stage=1,
            env={"SIGNALBOX_HEALTH_PORT": str(ingest)},
        ),
        Role(
            name="dispatcher",
            command=manage("run_dispatcher"),
            says="starts what is due",
            health_port=dispatcher,
            env={"SIGNALBOX_HEALTH_PORT": str(dispatcher)},
        ),
        Role(
            name="worker",
            command=manage("run_worker", "--name", "local"),
            says="runs tasks",
            health_port=worker,
            env={"SIGNALBOX_HEALTH_PORT": str(worker)},
        ),
        Role(
            name="flower",
            command=manage("run_flower", "--port", str(flower_port)),
            says=f"http://127.0.0.1:{flower_port}",
            health_port=flower_port,
            ready_path="/healthcheck",
            live_path=None,
        ),
    ]
