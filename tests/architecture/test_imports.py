"""Who may import whom: the contracts in pyproject.toml hold, and would notice a module without a place."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache", "--no-logo"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_every_import_contract_holds() -> None:
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout


def test_a_module_without_a_place_or_with_an_upward_import_is_noticed(tmp_path: Path) -> None:
    for package in ("scheduler_project", "dispatch", "workers_app", "tasks_app"):
        (tmp_path / package).symlink_to(ROOT / package)
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    (tmp_path / "tasks_app").unlink()
    (tmp_path / "tasks_app").mkdir()
    for path in (ROOT / "tasks_app").iterdir():
        (tmp_path / "tasks_app" / path.name).symlink_to(path)
    (tmp_path / "tasks_app" / "stray.py").write_text("import workers_app.models\n")
    done = lint(tmp_path)
    assert done.returncode == 1
    assert "Inside tasks_app BROKEN" in done.stdout
    assert "tasks_app.stray" in done.stdout
    assert "tasks_app.stray -> workers_app.models" in done.stdout
