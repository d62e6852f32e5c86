"""A claim: a figure that a plain test cannot hold, with the bar that it must clear."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Measured:
    """What a measurement gave: the value, what a reader should know of it, and the path of the raw figures."""

    value: float
    detail: str
    evidence: str


@dataclass(frozen=True)
class Claim:
    """How one claim is measured and judged. `measure` takes the scale, "small" or "full"."""

    id: str
    unit: str
    bar: str
    holds: Callable[[float], bool]
    measure: Callable[[str], Measured]
