"""One sitting of the benchmark: servers up, parts measured, figures written."""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.benchmarks import rounds, versions
from tests.benchmarks.contenders import ROOT, Contender, Servers
from tests.benchmarks.measure import SCALES, Scale
from tests.servers import PostgresServer, RabbitMQServer, leash

Say = Callable[[str], None]

EVERYTHING = ("rounds", "rates", "profile")
CHANGED = " (with changes)"


def run(options: argparse.Namespace, contenders: Callable[[Servers], list[Contender]]) -> int:
    """As the command line says."""
    full = options.scale == "full"
    everything = list(EVERYTHING if full else EVERYTHING[:2])
    parts = ["profile"] if options.profile else _words(options.parts) or everything
    measured = measure(
        SCALES[options.scale], parts=parts, only=_words(options.only), latency=not options.no_latency, out=options.out,
        contenders=contenders,
    )  # fmt: skip
    if {"rounds", "rates"} <= set(parts) and not options.only:
        from tests.benchmarks import report

        page = options.docs or (ROOT / "docs" / "benchmarks.md" if full else options.out / "benchmarks.md")
        page.write_text(report.page(measured))
        print(f"written: {page}")
    return 0


def measure(
    scale: Scale,
    *,
    parts: list[str],
    out: Path,
    contenders: Callable[[Servers], list[Contender]],
    only: list[str] | None = None,
    latency: bool = True,
    say: Say = print,
) -> dict[str, Any]:
    """Measure the parts and write them to `path_of` them."""
    began = time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {
        "scale": scale.name, "at": datetime.now(UTC).isoformat(timespec="seconds"), "commit": commit(),
        "scale_means": vars(scale),
    }  # fmt: skip
    folder = Path(tempfile.mkdtemp(prefix="signalbox-bench-"))
    leash.hold_directory(folder)
    try:
        with ExitStack() as stack:
            servers = Servers(stack.enter_context(PostgresServer()), stack.enter_context(RabbitMQServer()), folder)
            found["versions"] = versions.all_of_them(servers)
            found["titles"] = {one.name: one.title for one in contenders(servers)}
            if "rounds" in parts:
                chosen = [one for one in contenders(servers) if not only or one.name in only]
                found["rounds"] = rounds.run(chosen, scale, say, latency=latency)
                # Kept at once: what comes after may fail, and these are most of the sitting.
                (out / f"{scale.name}-rounds.json").write_text(json.dumps(found, indent=1, default=str))
            if "rates" in parts:
                from tests.benchmarks import rates

                found["rates"] = rates.run(servers, scale, say)
            if "profile" in parts:
                from tests.benchmarks import profiling

                found["profile"] = profiling.run(servers, scale, out, say)
        return _written(found, path_of(out, scale.name, parts), began)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        leash.release_directory(folder)


def _words(text: str) -> list[str]:
    return [word for word in text.split(",") if word]


def path_of(out: Path, scale: str, parts: Sequence[str]) -> Path:
    """Where figures go: a sitting of everything under the scale's name, parts with theirs behind it."""
    whole = {"rounds", "rates"} <= set(parts)
    return out / (f"{scale}.json" if whole else f"{scale}-{'-'.join(parts)}.json")


def unchanged() -> bool:
    """Whether the files are those of the commit."""
    return not commit().endswith(CHANGED)


def commit() -> str:
    """The commit that is measured, with a mark when files differ from it."""

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True)
        return done.stdout.strip()

    name = git("rev-parse", "--short=12", "HEAD") or "unknown"
    changed = git("status", "--porcelain", "--untracked-files=no", "--", "*.py", "requirements*")
    return name + CHANGED if changed else name


def _written(found: dict[str, Any], path: Path, began: float) -> dict[str, Any]:
    found["seconds"] = round(time.monotonic() - began, 1)
    path.write_text(json.dumps(found, indent=1, default=str))
    print(f"written: {path} ({found['seconds']:.0f} s)")
    return found
