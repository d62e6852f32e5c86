"""`python -m tests.prove`: measure the claims, write build/prove.json, at full scale docs/claims.md.

ONLY=spine.,bench.claim chooses by prefixes of ids; SCALE=small is a quick look. What was measured before on the same
commit and scale stays in build/prove.json, so parts can be measured one after the other. Ends with 1 when a claim that
was measured does not hold.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.prove.page import page
from tests.prove.registry import SOURCES, chosen, claims, measure

ROOT = Path(__file__).resolve().parents[2]


def commit() -> str:
    """The commit that is measured, with `+changes` when the tree differs from it."""
    found = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    dirty = subprocess.run(
        ["git", "status", "--porcelain", "--untracked-files=no"], cwd=ROOT, capture_output=True, text=True
    ).stdout.strip()
    return (found or "unknown") + ("+changes" if dirty else "")


def main() -> int:
    """Measure, tell, write."""
    parser = argparse.ArgumentParser(prog="python -m tests.prove", description=__doc__)
    parser.add_argument("--only", default=os.environ.get("ONLY", ""))
    parser.add_argument("--scale", choices=("small", "full"), default=os.environ.get("SCALE") or "full")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "prove.json")
    parser.add_argument("--list", action="store_true", help="name the claims and their bars, measure nothing")
    options = parser.parse_args()
    os.chdir(ROOT)
    wanted = chosen(claims(SOURCES), options.only)
    if options.list:
        for claim in wanted:
            print(f"{claim.id}  [{claim.unit}]  {claim.bar}")
        return 0
    if not wanted:
        print(f"error: no claim begins with {options.only!r}; python -m tests.prove --list names them", file=sys.stderr)
        return 2
    began, at = time.monotonic(), commit()
    results: list[dict[str, Any]] = []
    for claim in wanted:
        print(f"=== {claim.id}", flush=True)
        result = measure(claim, options.scale, print)
        results.append(result.as_json())
        fate = "holds" if result.holds else "DOES NOT HOLD"
        print(f"=== {claim.id}: {fate}: {result.value} {claim.unit}, bar {claim.bar}\n    {result.detail}", flush=True)
        write(options.out, at, options.scale, results, time.monotonic() - began)
    if options.scale == "full" and options.out == ROOT / "build" / "prove.json":
        (ROOT / "docs" / "claims.md").write_text(page(json.loads(options.out.read_text())))
    return 0 if all(result["holds"] for result in results) else 1


def write(path: Path, at: str, scale: str, results: list[dict[str, Any]], seconds: float) -> None:
    """Write what is known so far, with what was measured before on the same commit and scale."""
    before = json.loads(path.read_text()) if path.exists() else {}
    known: dict[str, dict[str, Any]] = {}
    same = before.get("commit") == at and before.get("scale") == scale
    if same:
        known = {claim["id"]: claim for claim in before["claims"]}
    known |= {result["id"]: result for result in results}
    order = [claim.id for claim in claims(SOURCES)]
    rows = sorted(known.values(), key=lambda claim: order.index(claim["id"]) if claim["id"] in order else len(order))
    total = sum(row["seconds"] for row in rows) if same else seconds
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps({"claims": rows, "commit": at, "scale": scale, "seconds": round(total, 1)}, indent=1))
    fresh.replace(path)


if __name__ == "__main__":
    sys.exit(main())
