"""Which claims there are, and how a list of them is measured and judged."""

from __future__ import annotations

import importlib
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tests.prove.claim import Claim

#: Modules with a list CLAIMS, in the order in which they are measured.
SOURCES: Final = (
    "tests.faults.claims", "tests.properties.claims", "tests.model.claims", "tests.brokers.claims",
    "tests.benchmarks.claims", "tests.console.claims",
)  # fmt: skip


class DuplicateClaim(Exception):
    """Two claims have one id."""


@dataclass(frozen=True)
class Result:
    """A claim as it was measured. value: None when it could not be; it does not hold then."""

    id: str
    value: float | None
    unit: str
    bar: str
    holds: bool
    detail: str
    evidence: str
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """With plain JSON values: what is not finite is text."""
        finite = self.value is None or math.isfinite(self.value)
        value = self.value if finite else str(self.value)
        return {
            "id": self.id, "value": value, "unit": self.unit, "bar": self.bar, "holds": self.holds,
            "detail": self.detail, "evidence": self.evidence, "seconds": round(self.seconds, 1),
        }  # fmt: skip


def claims(sources: Iterable[str] = SOURCES) -> list[Claim]:
    """Every claim. Raises DuplicateClaim."""
    found: dict[str, Claim] = {}
    for source in sources:
        for claim in importlib.import_module(source).CLAIMS:
            if claim.id in found:
                raise DuplicateClaim(claim.id)
            found[claim.id] = claim
    return list(found.values())


def chosen(all_claims: Sequence[Claim], only: str) -> list[Claim]:
    """Claims whose id begins with one of the comma-separated prefixes; all of them for none."""
    prefixes = tuple(prefix.strip() for prefix in only.split(",") if prefix.strip())
    return [claim for claim in all_claims if not prefixes or claim.id.startswith(prefixes)]


def measure(claim: Claim, scale: str, say: Callable[[str], None]) -> Result:
    """Measure and judge one. A measurement that fails is a claim that does not hold, not an end of the run."""
    began = time.monotonic()
    try:
        measured = claim.measure(scale)
    except Exception as error:
        say(f"{claim.id}: could not be measured: {type(error).__name__}: {error}")
        detail = f"could not be measured: {type(error).__name__}: {str(error)[:500]}"
        return Result(claim.id, None, claim.unit, claim.bar, False, detail, "", time.monotonic() - began)
    # Not a number is above no bar and below none.
    holds = not math.isnan(measured.value) and bool(claim.holds(measured.value))
    return Result(
        claim.id, measured.value, claim.unit, claim.bar, holds, measured.detail, measured.evidence,
        time.monotonic() - began,
    )  # fmt: skip
