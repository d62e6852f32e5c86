"""Plain Celery under the same bodies and the same checker, acknowledging early and late: it must fail.

Its rows are made from what its own bodies wrote, because it keeps no others: a run is COMPLETED when a body of it ended
well. So it can only fail by what really happened: a message that was taken and never executed, or a body that began
twice. It fails for no missing field.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from celery import Celery

from tests.faults.checker import check
from tests.faults.history import Execution, raw_clock, read_folder
from tests.faults.jobs_names import SUCCEEDING
from tests.faults.servers import Servers
from tests.faults.system import ROOT
from tests.faults.witness import AttemptRow, Fault, Plan, RunRow, Submission, Verdict, Witnesses
from tests.servers.leash import family, hold, release

#: Read by the worker's own process, which imports this module as its app.
_late = os.environ.get("FAULTS_ACKS_LATE") == "1"


def make_app(broker: str) -> Celery:
    """The usual set-up; with late acknowledgement also for workers that are lost."""
    app = Celery("plain", broker=broker)
    app.conf.update(
        task_acks_late=_late, task_reject_on_worker_lost=_late, task_ignore_result=True, task_default_queue="plain",
        worker_prefetch_multiplier=4, imports=["tests.faults.jobs"], broker_connection_retry_on_startup=True,
    )  # fmt: skip
    app.set_default()
    return app


app = make_app(os.environ.get("FAULTS_PLAIN_BROKER", "memory://"))


@dataclass(frozen=True)
class PlainRound:
    """What the checker says about one round."""

    name: str
    verdict: Verdict
    seconds: float

    @property
    def caught_by(self) -> list[str]:
        """Lost or doubled executions; nothing else counts."""
        return [kind for kind in ("stuck", "lost", "double_starts") if self.verdict.violations[kind]]

    def line(self) -> str:
        """One line for people."""
        return f"{self.name}: caught by {', '.join(self.caught_by) or 'NOTHING'}; {self.verdict.summary()}"


def witnesses(executions: Sequence[Execution], sent: Sequence[str], faults: Sequence[Fault]) -> Witnesses:
    """Rows as bare Celery would have them if it kept any, from its bodies' own histories."""
    ended = {item.run: item for item in executions if item.how == "ok"}
    began = {item.run for item in executions}
    return Witnesses(
        executions=executions,
        submissions=[Submission(run, "ok", run, Plan(max_retries=0)) for run in sent],
        runs=[
            RunRow(run, "COMPLETED" if run in ended else "RUNNING" if run in began else "PENDING", 1, 0, run)
            for run in sent
        ],
        attempts=[AttemptRow(run, 1, "COMPLETED") for run in sent if run in ended],
        faults=faults,
    )


def play_plain(servers: Servers, *, acks_late: bool, say: Callable[[str], None], kills: int = 2) -> PlainRound:
    """Kill a plain worker with all its processes in the middle of its work, start it again, wait for rest, judge."""
    began = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="signalbox-plain-"))
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT), "FAULTS_HISTORY": str(folder), "FAULTS_PLAIN_BROKER": servers.broker.url,
        "FAULTS_ACKS_LATE": "1" if acks_late else "0",
    }  # fmt: skip
    servers.start()
    client = Celery("client", broker=servers.broker.url)
    client.conf.task_default_queue = "plain"
    sent = []
    for number in range(60):
        function = SUCCEEDING[number % len(SUCCEEDING)]
        sent.append(client.send_task(function, kwargs={"seconds": 0.4}, queue="plain").id)
    client.close()
    faults: list[Fault] = []
    log = folder / "worker.log"
    command = [sys.executable, "-m", "celery", "-A", "tests.faults.plain:app", "worker", "-c", "4", "-n", "plain@host",
               "-l", "WARNING", "--without-gossip", "--without-mingle"]  # fmt: skip
    worker: subprocess.Popen[bytes] | None = None
    try:
        for _ in range(kills + 1):
            with open(log, "ab") as output:
                worker = subprocess.Popen(
                    command, cwd=ROOT, env=environment, stdout=output, stderr=output, stdin=subprocess.DEVNULL,
                    start_new_session=True,
                )  # fmt: skip
            hold(worker.pid)
            if len(faults) == kills:
                _rest(folder, servers)
                break
            _until(partial(_more_than, folder, len(read_folder(folder)) + 5), 60, log)
            faults.append(Fault("kill", raw_clock(), pid=worker.pid, main=worker.pid, note="all of the worker"))
            _end(worker)
    finally:
        if worker is not None:
            _end(worker)
    verdict = check(witnesses(read_folder(folder), sent, faults))
    shutil.rmtree(folder, ignore_errors=True)
    done = PlainRound(f"plain Celery, acks_late={acks_late}", verdict, time.monotonic() - began)
    say(done.line())
    return done


def _more_than(folder: Path, count: int) -> bool:
    return len(read_folder(folder)) > count


def _end(worker: subprocess.Popen[bytes]) -> None:
    for pid in [worker.pid, *family(worker.pid)]:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    worker.wait(20)
    release(worker.pid)


def _until(condition: Callable[[], bool], seconds: float, log: Path) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(log.read_text(errors="replace")[-2000:])
        time.sleep(0.02)


def _rest(folder: Path, servers: Servers, quiet_seconds: float = 4.0) -> None:
    """Return when the queue is empty, nothing is unacknowledged, and for some seconds no body said anything."""
    seen, since = -1, time.monotonic()
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        said = sum(path.stat().st_size for path in folder.glob("*.jsonl"))
        if said != seen or servers.broker.depth("plain"):
            seen, since = said, time.monotonic()
        if time.monotonic() - since > quiet_seconds:
            return
        time.sleep(0.3)
