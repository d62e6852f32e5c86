"""A web process over a database with something to see, and a browser that is logged in there."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.servers import leash
from tests.servers.process import free_port

ROOT = Path(__file__).resolve().parents[2]
PASSWORD = "correct horse battery"
CONSOLE = "/console/"


@dataclass
class Site:
    """The web process of one database. runs: numbers of runs by what they are (see scenes)."""

    folder: Path
    database_url: str
    broker_url: str
    port: int = field(default_factory=free_port)
    runs: dict[str, int] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pages(self) -> dict[str, str]:
        """Every page, by name."""
        runs = {name: f"runs/{self.runs[name]}/" for name in ("failed", "running", "paused", "quarantined")}
        return {
            "overview": "",
            "runs": "runs/",
            "runs-failed": "runs/?q=is:failed,timeout,lost",
            "runs-refused": "runs/?q=iss:failed",
            "runs-none": "runs/?q=is:failed+task:nothing*",
            **{f"run-{name}": path for name, path in runs.items()},
            "tasks": "tasks/",
            "task": f"tasks/{self.runs['task']}/",
            "workers": "workers/",
            "worker": "workers/w-01/",
            "problem": "runs/999999/",
        }

    def environment(self) -> dict[str, str]:
        """Of its processes, without anything of the developer's own."""
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("SIGNALBOX_", "DJANGO_", "PYTEST_"))}
        return clean | {
            "PYTHONPATH": str(ROOT),
            "DJANGO_SETTINGS_MODULE": "scheduler_project.settings",
            "SIGNALBOX_DATABASE_URL": self.database_url,
            "SIGNALBOX_BROKER_URL": self.broker_url,
            "SIGNALBOX_STATE_DIR": str(self.folder / "state"),
            # No worker of the scenes sends heartbeats.
            "SIGNALBOX_WORKERS__SUSPECT_AFTER_SECONDS": "3600",
        }

    def run(self, *arguments: str, seconds: float = 100) -> str:
        """What a Python program of ours prints."""
        done = subprocess.run(
            [sys.executable, *arguments], cwd=ROOT, env=self.environment(), capture_output=True, text=True,
            timeout=seconds,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    def prepare(self, *, scenes: bool = True) -> None:
        """Make the tables and fill them."""
        self.run("manage.py", "migrate", "-v0")
        if scenes:
            self.runs = json.loads(self.run("-m", "tests.console.scenes").splitlines()[-1])

    def start(self) -> None:
        """Serve."""
        with open(self.folder / "web.log", "ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "manage.py", "run_web", "--port", str(self.port)], cwd=ROOT, env=self.environment(),
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        leash.hold(self.process.pid)
        deadline = time.monotonic() + 60
        while True:
            with (
                suppress(urllib.error.URLError, ConnectionError),
                urllib.request.urlopen(f"{self.address}/livez", timeout=5),
            ):
                return
            assert self.process.poll() is None, (self.folder / "web.log").read_text()
            assert time.monotonic() < deadline, (self.folder / "web.log").read_text()
            time.sleep(0.1)

    def kill(self) -> None:
        """End it without a goodbye."""
        if self.process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(20)
            leash.release(self.process.pid)
            self.process = None


@contextmanager
def site(folder: Path, database_url: str, broker_url: str, *, scenes: bool = True) -> Iterator[Site]:
    """A site that serves, and is gone afterwards."""
    made = Site(folder, database_url, broker_url)
    made.prepare(scenes=scenes)
    made.start()
    try:
        yield made
    finally:
        made.kill()


@contextmanager
def browser(chromium: str) -> Iterator[Any]:
    """The system's Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        try:
            yield started
        finally:
            started.close()


def logged_in(
    site: Site, started: Any, *, user: str = "ada", language: str = "en", theme: str = "light", **options: Any
) -> Any:
    """A browser's context in which the user is logged in, by the form, with the preferences chosen."""
    context = started.new_context(viewport={"width": 1440, "height": 900}, color_scheme=theme, **options)
    locale = {"en": "en", "zh-hans": "zh-hans"}[language]
    context.add_cookies([{"name": "django_language", "value": locale, "url": site.address}])
    page = context.new_page()
    page.goto(site.address + CONSOLE)
    page.fill("#id_username", user)
    page.fill("#id_password", PASSWORD)
    page.click("form button.primary")
    page.wait_for_url(site.address + CONSOLE)
    page.close()
    return context
