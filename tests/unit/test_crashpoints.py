"""Crash points act before their thread does anything else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

_THREADS = """
import sys, threading, time
from tasks_app.crashpoints import reach

def work():
    reach("reap.before_commit")
    open(sys.argv[1], "w").close()

def busy():
    while True:
        sum(range(1000))

threading.Thread(target=busy, daemon=True).start()
thread = threading.Thread(target=work)
thread.start()
thread.join()
"""


def _armed(folder: Path, action: str) -> subprocess.Popen[bytes]:
    for name in ("armed", "fired"):
        (folder / name).mkdir(parents=True)
    (folder / "armed" / "reap.before_commit").write_text(action)
    return subprocess.Popen(
        [sys.executable, "-c", _THREADS, str(folder / "went-on")],
        env={**os.environ, "SIGNALBOX_CRASH_DIR": str(folder)},
    )


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]


def test_a_stop_comes_before_the_thread_goes_on(tmp_path: Path) -> None:
    for turn in range(8):
        folder = tmp_path / str(turn)
        process = _armed(folder, "stop")
        try:
            until = time.monotonic() + 20
            while _state(process.pid) != "T":
                assert process.poll() is None, "it ended"
                assert time.monotonic() < until, "it was not stopped"
                time.sleep(0.01)
            assert list((folder / "fired").iterdir())
            assert not (folder / "went-on").exists()
            os.kill(process.pid, signal.SIGCONT)
            assert process.wait(20) == 0
            assert (folder / "went-on").exists()
        finally:
            process.kill()
            process.wait()


def test_a_kill_comes_before_the_thread_goes_on(tmp_path: Path) -> None:
    process = _armed(tmp_path, "kill")
    assert process.wait(20) == -signal.SIGKILL
    assert not (tmp_path / "went-on").exists()
