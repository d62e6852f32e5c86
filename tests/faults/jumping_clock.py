"""A wall clock that jumps for one process, by libfaketime; its monotonic clocks go on as they are.

A host's wall clock is set by people and by NTP, and nobody asks the processes. Leases and durations must not care. That
the library leaves the monotonic clocks alone is not believed but looked at, with a process under the same environment,
after every jump: a harness that moved them would test something that no host ever does.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from glob import glob
from pathlib import Path
from typing import Final

from tests.faults.system import HarnessError

_LIBRARIES: Final = "/usr/lib/*/faketime/libfaketimeMT.so.1"
#: How far apart two processes may read a clock on a busy machine; far below any jump.
APART_SECONDS: Final = 30.0
_MONOTONIC: Final = ("CLOCK_MONOTONIC", "CLOCK_MONOTONIC_RAW", "CLOCK_BOOTTIME")
#: Makes `time.sleep` work there.
_CUSTOMIZED: Final = Path(__file__).with_name("under_libfaketime")
#: Prints the same as `here`, after a sleep, without importing anything of ours.
_PROBE: Final = """
import json, sys, time
time.sleep(0.01)
clocks = {name: time.clock_gettime(getattr(time, name)) for name in sys.argv[1:] if hasattr(time, name)}
print(json.dumps({"wall": time.time(), **clocks}))
"""


def library() -> str:
    """The library's path; empty where it is not installed."""
    return next(iter(sorted(glob(_LIBRARIES))), "")


class JumpingClock:
    """The wall clock of every process that is started under `environment`, by a file that is written anew."""

    def __init__(self, file: Path, environment: Mapping[str, str]) -> None:
        """Right at first. environment: what the processes would be started with."""
        self._file = file
        self.jump(0)
        self.environment = {
            "PYTHONPATH": os.pathsep.join((str(_CUSTOMIZED), environment.get("PYTHONPATH", ""))).rstrip(os.pathsep),
            "LD_PRELOAD": library(),
            "FAKETIME_TIMESTAMP_FILE": str(file),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
            # A killed process could not remove its shared memory.
            "FAKETIME_DISABLE_SHM": "1",
            "NO_FAKE_STAT": "1",
        }

    def jump(self, seconds: int) -> None:
        """Be so much ahead (below 0: behind) from now on."""
        fresh = self._file.with_suffix(".new")
        fresh.write_text(f"{seconds:+d}\n")
        fresh.replace(self._file)
        self.seconds = seconds

    def check(self, environment: dict[str, str]) -> None:
        """Raise HarnessError unless the wall clock jumped under this environment, and no monotonic one did."""
        done = subprocess.run(
            [sys.executable, "-c", _PROBE, *_MONOTONIC], env={**environment, **self.environment},
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        if done.returncode:
            raise HarnessError(f"no process can be started under libfaketime: {done.stderr.strip()}")
        problems = deviations(json.loads(done.stdout), here(), self.seconds)
        if problems:
            raise HarnessError("; ".join(problems))


def here() -> dict[str, float]:
    """This process's clocks."""
    return {
        "wall": time.time(),
        **{name: time.clock_gettime(getattr(time, name)) for name in _MONOTONIC if hasattr(time, name)},
    }


def deviations(there: dict[str, float], here: dict[str, float], jumped: float) -> list[str]:
    """What is wrong with another process's clocks: the wall clock must differ by `jumped`, the others by nothing."""
    found = []
    for name, value in here.items():
        wanted = jumped if name == "wall" else 0.0
        differs = there[name] - value
        if abs(differs - wanted) > APART_SECONDS:
            found.append(f"{name} is {differs:+.0f} s off, and should be {wanted:+.0f} s off")
    return found
