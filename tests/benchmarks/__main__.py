"""`python -m tests.benchmarks`: measure, and write build/bench/ and (at full scale) docs/benchmarks.md.

Parts may be measured one after the other: the page has all that was measured on one commit.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.benchmarks.contenders import all_contenders
from tests.benchmarks.measure import SCALES


def main() -> int:
    """Exit code 0 when it was measured, whatever came out; claims are judged by `make prove`."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--scale", choices=sorted(SCALES), default="full")
    parser.add_argument("--only", default="", help="contenders, comma separated; also which Signalbox to profile")
    parser.add_argument("--parts", default="", help="of rounds, redis, rates, profile; default: all")
    parser.add_argument("--no-latency", action="store_true", help="leave start latency out")
    parser.add_argument("--profile", action="store_true", help="the profile alone")
    parser.add_argument("--out", type=Path, default=Path("build/bench"), help="where the figures go")
    parser.add_argument("--docs", type=Path, help="where the page goes; default at full scale: docs/benchmarks.md")
    options = parser.parse_args()

    from tests.benchmarks import session

    return session.run(options, all_contenders)


if __name__ == "__main__":
    sys.exit(main())
