"""The model and its mutants, and how one of them is checked with Spin."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
MODEL: Final = ROOT / "docs" / "model" / "signalbox.pml"
TOOLS: Final = ("spin", "cc")
SECONDS_MAX: Final = 900
MEGABYTES_MAX: Final = 4000
#: Every safety property and every end of a process; or the liveness property under weak fairness.
SAFETY: Final = (("-DSAFETY", "-DNOCLAIM"), ("-E",))
LIVE: Final = (("-DNFAIR=4",), ("-a", "-f"))

#: What an assertion of the model says, by a part of it as Spin prints it.
_SAYINGS: Final = (
    ("acceptance cycle", "the run never ends"),
    ("stage[0]", "an attempt ends while its body runs"),
    ("asked_for", "LOST without a permit"),
    ("cancel_answered", "a permit after an answered cancel"),
    ("over[", "a permit to an incarnation that is over"),
    ("bodies", "two bodies at once"),
    ("started[", "an attempt begins twice"),
    ("status", "a final state is left"),
    ("violated 0", "held by a worker that never heard of it"),
)


class ToolMissing(Exception):
    """What checks the model is not installed."""


@dataclass(frozen=True)
class Variant:
    """The model with one of its mutants, or none. live: in a gentler world, whether every run ends, too."""

    name: str
    mutant: str = ""
    live: bool = False
    faults: int = 1

    @property
    def holds(self) -> bool:
        """Whether it must."""
        return not self.mutant

    @property
    def folder(self) -> Path:
        """Where Spin's files and words are kept."""
        return ROOT / "build" / "model" / self.name.replace(" ", "-")


VARIANTS: Final = (
    Variant("the model"),
    Variant("every run ends", live=True),
    Variant("lease held too long", "NO_MARGIN"),
    Variant("lease counted from the answer", "FROM_ANSWER"),
    Variant("only bodies are ended", "BODIES_ONLY"),
    Variant("registered is re-asserted", "REGISTERED_AGAIN"),
    Variant("permit to an incarnation over", "PERMIT_TO_OVER"),
    Variant("reaper by id alone", "BY_ID_ALONE"),
    Variant("report without its token", "NO_TOKEN"),
    Variant("grant of an earlier incarnation", "OLD_GRANT"),
    Variant("finished list dropped", "FINISHED_DROPPED"),
    Variant("cancel lost on the way back", "CANCEL_DROPPED"),
    Variant("never retracted", "NEVER_RETRACTED", live=True),
    Variant("leases never judged", "NEVER_JUDGED", live=True),
)


@dataclass(frozen=True)
class Outcome:
    """What Spin found: nothing, or a promise that is broken. complete: the whole of it was searched."""

    variant: Variant
    states: int
    depth: int
    broken: str
    complete: bool
    seconds: float

    @property
    def as_it_must(self) -> bool:
        """The model was searched through and holds; a mutant does not hold."""
        return self.complete and not self.broken if self.variant.holds else bool(self.broken)

    @property
    def verdict(self) -> str:
        """In words."""
        if self.broken:
            return f"fails: {self.broken}"
        return "holds" if self.complete else "NOT SEARCHED THROUGH"


def missing_tools() -> list[str]:
    """What is not installed."""
    return [tool for tool in TOOLS if shutil.which(tool) is None]


def check(variant: Variant) -> Outcome:
    """Translate, compile, search; what Spin printed stays in the variant's folder. Raises ToolMissing."""
    if missing := missing_tools():
        raise ToolMissing(f"not installed: {' '.join(missing)} (on Debian: sudo tests/servers/install.sh)")
    folder = variant.folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    began = time.monotonic()
    compiling, searching = LIVE if variant.live else SAFETY
    flags = [f"-DFAULTS={variant.faults}", f"-DMUTANT={variant.mutant or 0}", *(["-DLIVE"] if variant.live else [])]
    _run(["spin", *flags, "-a", str(MODEL)], folder, "spin")
    # -w: what warns is Spin's own code.
    _run(["cc", "-O2", "-w", "-DCOLLAPSE", f"-DMEMLIM={MEGABYTES_MAX}", *compiling, "-o", "pan", "pan.c"], folder, "cc")
    said = _run(["./pan", "-m100000", *searching], folder, "pan")
    return _read(variant, said, time.monotonic() - began)


def _run(command: Sequence[str], folder: Path, name: str) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=SECONDS_MAX)
    (folder / f"{name}.txt").write_text(done.stdout + done.stderr)
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed: {(done.stdout + done.stderr).strip()[-500:]}")
    return done.stdout


def _read(variant: Variant, said: str, seconds: float) -> Outcome:
    states, depth = re.search(r"(\d+) states, stored", said), re.search(r"depth reached (\d+), errors: (\d+)", said)
    if states is None or depth is None:
        raise RuntimeError(f"{variant.name}: Spin said nothing that could be read: {said[-500:]}")
    found = re.search(r"pan:\d+: (.*)\(at depth", said)
    broken = ""
    if int(depth[2]):
        text = found[1].strip() if found else "unknown"
        broken = next((saying for part, saying in _SAYINGS if part in text), text)
    complete = "Search not completed" not in said and "max search depth too small" not in said
    return Outcome(variant, int(states[1]), int(depth[1]), broken, complete, seconds)


def table(outcomes: Sequence[Outcome]) -> list[str]:
    """A line for each."""
    lines = [f"{'variant':34}{'states':>10}{'depth':>8}{'seconds':>9}  verdict"]
    for one in outcomes:
        mark = "" if one.as_it_must else "   <-- NOT AS IT MUST BE"
        lines.append(f"{one.variant.name:34}{one.states:>10,}{one.depth:>8,}{one.seconds:>9.1f}  {one.verdict}{mark}")
    return lines
