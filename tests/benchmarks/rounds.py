"""Rounds: every contender once in each, in an order that rotates."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from tests.benchmarks.contenders import Contender, Signalbox
from tests.benchmarks.measure import Scale, Sitting, latency_summary

Say = Callable[[str], None]


def run(contenders: Sequence[Contender], scale: Scale, say: Say, *, latency: bool = True) -> list[dict[str, Any]]:
    """Measure; one object a round: {contender: {"load", "latency_ms", …}}."""
    for contender in contenders:
        contender.prepare()
    rounds: list[dict[str, Any]] = []
    for number in range(scale.rounds):
        shift = number % len(contenders)
        measured: dict[str, Any] = {}
        for contender in (*contenders[shift:], *contenders[:shift]):
            measured[contender.name] = one(contender, scale, number, say, latency=latency)
        rounds.append(measured)
    return rounds


def one(contender: Contender, scale: Scale, number: int, say: Say, *, latency: bool = True) -> dict[str, Any]:
    """Start, warm up, measure, stop."""
    began = time.monotonic()
    try:
        sitting = Sitting(contender.start(f"{number}-{contender.name}"))
        sitting.warm_up(scale.warm_up_runs)
        load = sitting.load(scale.runs // contender.fewer_runs)
        found: dict[str, Any] = {"load": load.as_json()}
        if latency:
            samples = sitting.latencies_ms(scale.calls, scale.calls_per_second)
            found |= {"latency_ms": latency_summary(samples), "latency_samples_ms": samples}
        if isinstance(contender, Signalbox):
            found["single"] = sitting.load(scale.single_runs, "single").as_json()
    finally:
        contender.stop()
    latency_text = " ".join(f"{k} {v:.1f}" for k, v in found.get("latency_ms", {}).items())
    say(
        f"round {number + 1} {contender.name}: {load.per_second:,.0f}/s, submit {load.submits_per_second:,.0f}/s, "
        f"{load.cpu_per_thousand:.2f} CPU s/1,000, {load.peak_mib:.0f} MiB, start ms {latency_text} "
        f"({time.monotonic() - began:.0f} s)"
    )
    return found
