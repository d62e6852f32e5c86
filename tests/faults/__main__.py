"""`python -m tests.faults [cells] [nemeses] [emptied] [recovery] [random] [mutants]`: all of them where none is named.

`--random SEED --combination NAME` plays one seed of random mode and nothing else.
SCALE or --scale: small or full. Ends with 1 when anything was violated, not done, or not caught.
"""

from __future__ import annotations

import argparse
import os
import sys

from tests.faults import claims
from tests.faults.chance import COMBINATIONS, Plan, table
from tests.faults.kinds_of_fault import ALL
from tests.faults.mutants.changes import MUTANTS
from tests.faults.sitting import OUT, sitting

PARTS = {
    "cells": "spine.crashpoints",
    "nemeses": "spine.nemesis",
    "emptied": "spine.broker_emptied",
    "recovery": "spine.recovery",
    "random": "faults.random",
    "mutants": "spine.mutants",
}


def main() -> int:
    """Run the parts and say what each came to."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="which parts; all without any")
    parser.add_argument("--scale", choices=("small", "full"), default=os.environ.get("SCALE") or "full")
    one = parser.add_argument_group("one seed of random mode")
    one.add_argument("--random", type=int, metavar="SEED")
    one.add_argument("--combination", choices=COMBINATIONS, default="postgresql+rabbitmq")
    one.add_argument("--kinds", default="", help="comma separated; default: all that are possible there")
    one.add_argument("--each", type=int, default=2, help="how often each kind at least")
    one.add_argument("--faults", type=int, default=0, help="how many in all")
    one.add_argument("--runs", type=int, default=0, help="how many runs at least")
    one.add_argument("--minutes", type=float, default=12.0, help="then it ends, whatever is left")
    one.add_argument("--mutant", choices=("", *MUTANTS), default="", help="a defect to put into the product")
    options = parser.parse_args()
    if options.random is not None:
        return _one_seed(parser, options)
    failed = False
    try:
        for part in options.parts or PARTS:
            claim = next(claim for claim in claims.CLAIMS if claim.id == PARTS[part])
            measured = claim.measure(options.scale)
            holds = claim.holds(measured.value)
            failed = failed or not holds
            print(
                f"=== {claim.id}: {'holds' if holds else 'DOES NOT HOLD'}; "
                f"{measured.value:g} {claim.unit}, bar {claim.bar}"
            )
            print(f"    {measured.detail}\n    evidence: {measured.evidence}", flush=True)
    finally:
        sitting(options.scale).close()
    return 1 if failed else 0


def _one_seed(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    only = tuple(name.strip() for name in options.kinds.split(",") if name.strip())
    if unknown := set(only) - {kind.name for kind in ALL}:
        parser.error(f"no such kinds: {', '.join(sorted(unknown))}; there are {', '.join(kind.name for kind in ALL)}")
    plan = Plan(options.faults, options.runs, options.minutes, options.each, only, options.mutant)
    folder = OUT / "random"
    folder.mkdir(parents=True, exist_ok=True)
    done = sitting(options.scale).chance(options.combination, options.random, plan, folder)
    print(table([done], claims.quantile))
    return 0 if done.round.holds and not done.missing else 1


if __name__ == "__main__":
    sys.exit(main())
