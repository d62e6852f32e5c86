"""The example of docs/testing.md is executed as it stands there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_BLOCK = re.compile(r"^```python\n# (\w+\.py)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_the_example_passes_in_a_folder_of_its_own(tmp_path: Path):
    files = dict(_BLOCK.findall((ROOT / "docs" / "testing.md").read_text()))
    assert set(files) == {"conftest.py", "reports.py", "test_reports.py"}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("SIGNALBOX_", "PYTEST_"))}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", str(tmp_path)],
        cwd=tmp_path,
        env=clean
        | {
            "PYTHONPATH": f"{ROOT}:{tmp_path}",
            "DJANGO_SETTINGS_MODULE": "scheduler_project.settings",
            "SIGNALBOX_STATE_DIR": str(tmp_path / "state"),
            "SIGNALBOX_IMPORTS": "reports",
        },
        capture_output=True,
        text=True,
        timeout=100,
    )
    written = files["test_reports.py"].count("def test_")
    assert f"{written} passed" in done.stdout, done.stdout + done.stderr
