"""Medians, percentiles and ratios inside rounds. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Spread(NamedTuple):
    """A figure over the rounds."""

    median: float
    low: float
    high: float

    def text(self, digits: int = 0) -> str:
        """`1147 [1045–1411]`."""
        return f"{self.median:,.{digits}f} [{self.low:,.{digits}f}–{self.high:,.{digits}f}]"


def spread(values: Iterable[float]) -> Spread:
    """Median, least and greatest of at least one value."""
    known = list(values)
    return Spread(statistics.median(known), min(known), max(known))


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """Ours over theirs, inside each round."""
    return spread(own / other for own, other in zip(ours, theirs, strict=True))


def differences(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """Ours less theirs, inside each round."""
    return spread(own - other for own, other in zip(ours, theirs, strict=True))


def percentile(samples: Sequence[float], q: float) -> float:
    """The smallest sample that is not exceeded by q % of them (nearest rank)."""
    ordered = sorted(samples)
    return ordered[max(0, math.ceil(q / 100 * len(ordered)) - 1)]
