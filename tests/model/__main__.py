"""`python -m tests.model`: check every variant and print a table. Ends with 1 when one is not as it must be."""

from __future__ import annotations

import sys

from tests.model.variants import VARIANTS, ToolMissing, check, table


def main() -> int:
    """Check and tell."""
    outcomes = []
    print(table([])[0], flush=True)
    for variant in VARIANTS:
        try:
            outcomes.append(check(variant))
        except ToolMissing as missing:
            print(f"error: the model cannot be checked: {missing}", file=sys.stderr)
            return 1
        print(table(outcomes)[-1], flush=True)
    wrong = [one for one in outcomes if not one.as_it_must]
    print(
        f"{len(outcomes)} variants in {sum(one.seconds for one in outcomes):.0f} s: "
        + (f"{len(wrong)} not as they must be" if wrong else "the model holds, every mutant fails")
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
