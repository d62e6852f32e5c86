"""One sitting of the benchmark: servers up, parts measured, figures written."""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.benchmarks import rounds, versions
from tests.benchmarks.contenders import ROOT, Contender, Servers
from tests.benchmarks.measure import SCALES, Scale
from tests.servers import PostgresServer, RabbitMQServer, leash

#: In memory by choice of nobody: what is written here is little, logs and marks.
Say = Callable[[str], None]


def run(options: argparse.Namespace, contenders: Callable[[Servers], list[Contender]]) -> int:
    """As the command line says."""
    measured = measure(
        SCALES[options.scale],
        parts=[part for part in options.parts.split(",") if part],
        only=[name for name in options.only.split(",") if name],
        latency=not options.no_latency,
        profile=options.profile,
        out=options.out,
        contenders=contenders,
    )
    if options.docs and not options.profile:
        from tests.benchmarks import report

        options.docs.write_text(report.page(measured, report.last_profile(options.out)))
        print(f"written: {options.docs}")
    return 0


def measure(
    scale: Scale,
    *,
    parts: list[str],
    out: Path,
    contenders: Callable[[Servers], list[Contender]],
    only: list[str] | None = None,
    latency: bool = True,
    profile: bool = False,
    say: Say = print,
) -> dict[str, Any]:
    """Measure the parts and write them to out/<scale>.json; a profile goes to out/profile.json."""
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
            servers = Servers(
                stack.enter_context(PostgresServer()), stack.enter_context(RabbitMQServer()), folder
            )
            found["versions"] = versions.all_of_them(servers)
            found["titles"] = {one.name: one.title for one in contenders(servers)}
            if profile:
                from tests.benchmarks import profiling

                found["profile"] = profiling.run(servers, scale, out, say)
                return _written(found, out / "profile.json", began)
            if "rounds" in parts:
                chosen = [one for one in contenders(servers) if not only or one.name in only]
                found["rounds"] = rounds.run(chosen, scale, say, latency=latency)
            if "rates" in parts:
                from tests.benchmarks import rates

                found["rates"] = rates.run(servers, scale, say)
        return _written(found, out / f"{scale.name}.json", began)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        leash.release_directory(folder)


def commit() -> str:
    """The commit that is measured, with a mark when files differ from it."""

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True)
        return done.stdout.strip()

    name = git("rev-parse", "--short=12", "HEAD") or "unknown"
    changed = git("status", "--porcelain", "--untracked-files=no", "--", "*.py", "requirements*")
    return f"{name} (with changes)" if changed else name


def _written(found: dict[str, Any], path: Path, began: float) -> dict[str, Any]:
    found["seconds"] = round(time.monotonic() - began, 1)
    path.write_text(json.dumps(found, indent=1, default=str))
    print(f"written: {path} ({found['seconds']:.0f} s)")
    return found
