"""A pool process that is forked at the worst moment opens its database all the same."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FORKS = 60


def test_children_are_forked_while_no_thread_is_inside_sqlite(tmp_path: Path):
    environment = {
        **os.environ, "DJANGO_SETTINGS_MODULE": "scheduler_project.settings", "SIGNALBOX_STATE_DIR": str(tmp_path),
        "SIGNALBOX_DATABASE_URL": f"sqlite:///{tmp_path / 'db.sqlite3'}",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "tests.integration.forking_worker", str(tmp_path / "a.sqlite3"), str(FORKS), "keep"],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.stdout.strip() == str(FORKS), done.stderr
