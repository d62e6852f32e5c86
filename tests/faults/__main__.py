"""`python -m tests.faults [cells] [nemeses] [emptied] [recovery] [mutants]`: all of them where none is named.

SCALE or --scale: small or full. Ends with 1 when anything was violated, not done, or not caught.
"""

from __future__ import annotations

import argparse
import os
import sys

from tests.faults import claims
from tests.faults.sitting import sitting

PARTS = {
    "cells": "spine.crashpoints",
    "nemeses": "spine.nemesis",
    "emptied": "spine.broker_emptied",
    "recovery": "spine.recovery",
    "mutants": "spine.mutants",
}


def main() -> int:
    """Run the parts and say what each came to."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="which parts; all without any")
    parser.add_argument("--scale", choices=("small", "full"), default=os.environ.get("SCALE") or "full")
    options = parser.parse_args()
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


if __name__ == "__main__":
    sys.exit(main())
