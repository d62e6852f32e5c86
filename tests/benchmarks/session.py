"""One sitting of the benchmark: servers up, parts measured, figures written."""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.benchmarks import rounds, versions
from tests.benchmarks.contenders import ROOT, ROUNDS, Contender, Servers, Signalbox
from tests.benchmarks.measure import SCALES, Scale
from tests.servers import PostgresServer, RabbitMQServer, RedisServer, RedisStreamServer, leash

Say = Callable[[str], None]
Contenders = Callable[[Servers], Mapping[str, list[Contender]]]

EVERYTHING = (*ROUNDS, "rates", "profile")
CHANGED = " (with changes)"


def run(options: argparse.Namespace, contenders: Contenders) -> int:
    """As the command line says."""
    full = options.scale == "full"
    everything = list(EVERYTHING if full else EVERYTHING[:-1])
    parts = ["profile"] if options.profile else _words(options.parts) or everything
    measured = measure(
        SCALES[options.scale], parts=parts, only=_words(options.only), latency=not options.no_latency, out=options.out,
        contenders=contenders,
    )  # fmt: skip
    found = together(sittings(options.out, options.scale)) if unchanged() else measured
    if not options.only and set(parts) != {"profile"}:
        from tests.benchmarks import report

        whole = full and set(EVERYTHING[:-1]) <= set(found)
        page = options.docs or (ROOT / "docs" / "benchmarks.md" if whole else options.out / "benchmarks.md")
        page.write_text(report.page(found))
        print(f"written: {page}")
    return 0


def measure(
    scale: Scale,
    *,
    parts: list[str],
    out: Path,
    contenders: Contenders,
    only: list[str] | None = None,
    latency: bool = True,
    say: Say = print,
) -> dict[str, Any]:
    """Measure the parts and write them to `path_of` them."""
    began = time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {
        "scale": scale.name, "at": datetime.now(UTC).isoformat(timespec="seconds"), "commit": commit(),
        "scale_means": vars(scale), "only": only or [],
    }  # fmt: skip
    folder = Path(tempfile.mkdtemp(prefix="signalbox-bench-"))
    leash.hold_directory(folder)
    try:
        with ExitStack() as stack:
            servers = Servers(
                postgres=stack.enter_context(PostgresServer()), rabbitmq=stack.enter_context(RabbitMQServer()),
                redis=stack.enter_context(RedisServer()), redis_stream=stack.enter_context(RedisStreamServer()),
                folder=folder,
            )  # fmt: skip
            found["versions"] = versions.all_of_them(servers)
            everybody = contenders(servers)
            found["titles"] = {one.name: one.title for some in everybody.values() for one in some}
            for part in ROUNDS:
                chosen = [one for one in everybody[part] if not only or one.name in only]
                if part in parts and chosen:
                    found[part] = rounds.run(chosen, scale, say, latency=latency)
                    # Kept at once: what comes after may fail, and these are most of the sitting.
                    path_of(out, scale.name, [part]).write_text(json.dumps(found, indent=1, default=str))
            if "rates" in parts:
                from tests.benchmarks import rates

                found["rates"] = rates.run(servers, scale, say)
            if "profile" in parts:
                from tests.benchmarks import profiling

                found["profile"] = profiling.run(_profiled(contenders(servers), only), scale, out, say)
        return _written(found, path_of(out, scale.name, parts), began)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        leash.release_directory(folder)


def _words(text: str) -> list[str]:
    return [word for word in text.split(",") if word]


def _profiled(everybody: Mapping[str, list[Contender]], only: Sequence[str] | None) -> Signalbox:
    """The first of Signalbox, of those chosen where one was."""
    ours = [one for some in everybody.values() for one in some if isinstance(one, Signalbox)]
    return next((one for one in ours if only and one.name in only), ours[0])


def sittings(out: Path, scale: str) -> list[tuple[Path, dict[str, Any]]]:
    """What was measured on this very commit with all contenders, the newest first, each with its file."""
    name = commit()
    read = [(path, json.loads(path.read_text())) for path in out.glob(f"{scale}*.json")]
    known = [(path, figures) for path, figures in read if figures["commit"] == name and not figures.get("only")]
    return sorted(known, key=lambda one: str(one[1]["at"]), reverse=True)


def together(newest_first: Sequence[tuple[Path, dict[str, Any]]]) -> dict[str, Any]:
    """One set of figures, each part from where it was measured last."""
    found: dict[str, Any] = {}
    for _, figures in reversed(newest_first):
        found |= figures
    return found


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
