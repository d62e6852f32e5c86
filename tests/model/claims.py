"""The claim about the model: `CLAIMS` is what the registry takes."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tests.model.variants import VARIANTS, Outcome, check
from tests.prove.claim import Claim, Measured


def model_value(outcomes: Sequence[Outcome]) -> tuple[float, str]:
    """Variants that are not as they must be; not a number of nothing when nothing was checked."""
    if not outcomes:
        return math.inf, "nothing was checked"
    told = "; ".join(f"{one.variant.name}: {one.states:,} states, {one.verdict}" for one in outcomes)
    return float(sum(not one.as_it_must for one in outcomes)), told


def _model(_scale: str) -> Measured:
    return Measured(*model_value([check(variant) for variant in VARIANTS]), "build/model")


CLAIMS = [
    Claim("faults.model", "variants not as they must be", "0: the model holds, every mutant fails",
          lambda value: value == 0, _model),
]  # fmt: skip
