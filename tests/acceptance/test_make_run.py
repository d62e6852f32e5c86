"""`make run`, as a user meets it: everything comes up, a demo run completes, Ctrl-C leaves nothing running."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from tests.servers.process import answers, free_port, wait_until

ROOT = Path(__file__).resolve().parents[2]
#: The demonstration task that runs every minute must have come round in this time.
DEMO_SECONDS = 180.0


class MakeRun:
    """The supervisor in a process of its own, on an empty folder and free ports."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.web, self.flower = free_port(), free_port()
        self.text = ""
        self.seen: set[psutil.Process] = set()

    def start(self) -> None:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("SIGNALBOX_", "DJANGO_"))}
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "scheduler_project.supervise"),
                *("--port", str(self.web), "--flower-port", str(self.flower)),
            ],
            cwd=ROOT,
            env={**kept, "SIGNALBOX_STATE_DIR": str(self.state)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self.text = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.text += line

    def wait_for(self, pattern: str, seconds: float) -> re.Match[str]:
        wait_until(
            lambda: re.search(pattern, self.text) or self.process.poll() is not None,
            seconds=seconds,
            what=f"{pattern!r} in:\n{self.text}",
            every=0.1,
        )
        match = re.search(pattern, self.text)
        assert match, self.text
        return match

    def completed(self) -> list[tuple[str, str]]:
        """Of every completed demo run: the task's name and the log."""
        with closing(
            sqlite3.connect(f"file:{self.state / 'signalbox.sqlite3'}?mode=ro", uri=True, timeout=20)
        ) as database:
            runs = database.execute(
                "SELECT id, task_name FROM tasks_app_taskrun WHERE status = 'COMPLETED' AND task_name LIKE 'demo.%'"
            ).fetchall()
            return [
                (
                    name,
                    "".join(
                        text
                        for (text,) in database.execute(
                            "SELECT text FROM tasks_app_runlogchunk WHERE run_id = ? ORDER BY attempt, seq", (run_id,)
                        )
                    ),
                )
                for run_id, name in runs
            ]

    def look(self) -> None:
        self.seen |= set(psutil.Process(self.process.pid).children(recursive=True))

    def stop(self) -> None:
        """Ctrl-C; 0 is the exit status, no process and no listener is left."""
        self.look()
        self.process.send_signal(signal.SIGINT)
        try:
            status = self.process.wait(60)
        finally:
            self._hang_up()
        assert status == 0, self.text
        assert "everything has ended" in self.text
        for complaint in ("left behind", "did not end", "Traceback"):
            assert complaint not in self.text, self.text
        assert [p for p in self.seen if p.is_running() and p.status() != psutil.STATUS_ZOMBIE] == []
        assert not answers(self.web)
        assert not answers(self.flower)

    def close(self) -> None:
        if self.process.poll() is None:
            self.look()
            self.process.kill()
            self.process.wait()
            for process in self.seen:
                if process.is_running():
                    process.kill()
        self._hang_up()

    def _hang_up(self) -> None:
        self._reader.join(10)
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def make_run(tmp_path: Path) -> Iterator[MakeRun]:
    run = MakeRun(tmp_path / "var")
    try:
        yield run
    finally:
        run.close()


def get(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=10) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


@pytest.mark.slow
@pytest.mark.timeout(420)
def test_make_run_completes_a_demo_run_and_goes_on_after_a_restart(make_run: MakeRun) -> None:
    make_run.start()
    link = make_run.wait_for(r"log in once with (http://127\.0\.0\.1:\d+/login/once/\S+/)", 120).group(1)
    for name in ("valkey", "web", "dispatcher", "ingest", "worker", "flower"):
        assert re.search(rf"✓ {name} ", make_run.text), make_run.text
    assert get(link) == 200
    assert get(f"http://127.0.0.1:{make_run.web}/readyz") == 200
    wait_until(make_run.completed, seconds=DEMO_SECONDS, what=f"no demo run completed\n{make_run.text}", every=0.5)
    name, log = make_run.completed()[0]
    assert log.strip(), f"{name} has no log"
    first = len(make_run.completed())
    make_run.stop()

    make_run.start()
    make_run.wait_for("log in once with", 120)
    wait_until(
        lambda: len(make_run.completed()) > first,
        seconds=DEMO_SECONDS,
        what=f"no demo run completed after the restart\n{make_run.text}",
        every=0.5,
    )
    make_run.stop()
