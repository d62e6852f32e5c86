"""Each claim about cost can fail: made-up figures that are a little worse than its bar."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tests.benchmarks import claims
from tests.benchmarks.figures import percentile, ratios, spread


def contender(per_second: float, cpu: float, p50: float, p99: float) -> dict[str, Any]:
    return {
        "load": {"per_second": per_second, "cpu_per_thousand": cpu, "doubled": 0, "missing": 0},
        "latency_ms": {"p50": p50, "p95": p99, "p99": p99},
    }


GOOD: dict[str, Any] = {
    "rounds": [
        {
            "celery": contender(1000 * drift, 2.0, 3.0, 6.0),
            "celery_unconfirmed": contender(1500 * drift, 1.5, 3.0, 6.0),
            "results": contender(180 * drift, 8.0, 9.0, 20.0),
            "results_default": contender(90 * drift, 16.0, 12.0, 25.0),
            "signalbox": contender(600 * drift, 3.5, 7.0, 20.0),
        }
        for drift in (1.0, 0.6, 1.3)
    ],
    "rates": {
        "levels": [
            {
                "pending": pending,
                "claim": {"ours": [rate * 0.5] * 3, "bare": [rate] * 3},
                "ingest": {"ours": [2500.0] * 3, "bare": [5000.0] * 3},
            }
            for pending, rate in ((10_000, 30_000.0), (1_000_000, 20_000.0))
        ]
    },
}


def judged(figures: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> dict[str, bool]:
    monkeypatch.setattr(claims, "sitting", lambda _scale, _part: (figures, "raw.json"))
    return {claim.id: claim.holds(claim.measure("small").value) for claim in claims.CLAIMS}


def test_good_figures_hold_every_claim(monkeypatch):
    assert set(judged(GOOD, monkeypatch).values()) == {True}


def _scaled(figures: dict[str, Any], name: str, part: str, key: str, factor: float) -> None:
    for one in figures["rounds"]:
        one[name][part][key] *= factor


def _slow(figures: dict[str, Any]) -> None:
    _scaled(figures, "signalbox", "load", "per_second", 0.8)


def _fast_results(figures: dict[str, Any]) -> None:
    _scaled(figures, "results", "load", "per_second", 1.4)


def _fast_results_as_they_come(figures: dict[str, Any]) -> None:
    _scaled(figures, "results_default", "load", "per_second", 3.0)


def _hungry(figures: dict[str, Any]) -> None:
    _scaled(figures, "signalbox", "load", "cpu_per_thousand", 1.2)


def _late(figures: dict[str, Any]) -> None:
    _scaled(figures, "signalbox", "latency_ms", "p50", 1.2)


def _often_late(figures: dict[str, Any]) -> None:
    _scaled(figures, "signalbox", "latency_ms", "p99", 1.2)


def _slow_claims_at_one_level(figures: dict[str, Any]) -> None:
    figures["rates"]["levels"][0]["claim"]["bare"] = [40_000.0] * 3


def _slow_ingest_at_one_level(figures: dict[str, Any]) -> None:
    figures["rates"]["levels"][1]["ingest"]["ours"] = [2000.0] * 3


def _claims_slowed_by_a_backlog(figures: dict[str, Any]) -> None:
    level = figures["rates"]["levels"][1]["claim"]
    level["ours"], level["bare"] = [8_000.0] * 3, [16_000.0] * 3


SPOILED = {
    "bench.rabbitmq.throughput_ratio": _slow,
    "bench.rabbitmq.vs_results": _fast_results_as_they_come,
    "bench.rabbitmq.vs_results_kept": _fast_results,
    "bench.rabbitmq.cpu_ratio": _hungry,
    "bench.rabbitmq.start_latency_p50": _late,
    "bench.rabbitmq.start_latency_p99": _often_late,
    "bench.claim_ratio": _slow_claims_at_one_level,
    "bench.ingest_ratio": _slow_ingest_at_one_level,
    "bench.claim_backlog": _claims_slowed_by_a_backlog,
}


def test_each_claim_has_figures_that_fail_it():
    assert set(SPOILED) == {claim.id for claim in claims.CLAIMS}


@pytest.mark.parametrize("claim_id", SPOILED)
def test_figures_below_its_bar_fail_a_claim(claim_id, monkeypatch):
    figures = copy.deepcopy(GOOD)
    SPOILED[claim_id](figures)
    verdicts = judged(figures, monkeypatch)
    assert {name for name, holds in verdicts.items() if not holds} == {claim_id}


@pytest.mark.parametrize("fault", ["doubled", "missing"])
def test_a_body_that_ran_twice_or_never_leaves_no_figure(fault, monkeypatch):
    figures = copy.deepcopy(GOOD)
    figures["rounds"][1]["signalbox"]["load"][fault] = 1
    with pytest.raises(claims.Inexact, match="round 2, signalbox"):
        judged(figures, monkeypatch)


def test_ratios_are_taken_inside_rounds():
    # The second round's machine was half as fast: that is no reason for a spread.
    assert ratios([500, 250], [1000, 500]) == (0.5, 0.5, 0.5)


def test_percentiles_are_samples():
    samples = [float(n) for n in range(1, 101)]
    assert (percentile(samples, 50), percentile(samples, 99), percentile([7.0], 99)) == (50, 99, 7)


def test_a_spread_says_median_and_extremes():
    assert spread([3, 1, 1200]).text() == "3 [1–1,200]"


def test_a_sitting_that_failed_fails_all_its_claims_without_being_tried_again(monkeypatch):
    tried = []

    def fails(*_args: Any, **_options: Any) -> dict[str, Any]:
        tried.append(1)
        raise RuntimeError("no broker")

    monkeypatch.setattr("tests.benchmarks.session.measure", fails)
    monkeypatch.setattr("tests.benchmarks.session.unchanged", lambda: False)
    claims._sitting.cache_clear()
    for claim in claims.CLAIMS[:3]:
        with pytest.raises(RuntimeError, match="no broker"):
            claim.measure("small")
    claims._sitting.cache_clear()
    assert len(tried) == 1
