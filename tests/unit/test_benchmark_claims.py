"""Each claim about cost can fail: made-up figures that are a little worse than its bar. The page tells them all."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.benchmarks import claims, report, session
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
            "results": contender(400 * drift, 8.0, 9.0, 20.0),
            "results_default": contender(150 * drift, 16.0, 12.0, 25.0),
            "signalbox": contender(1300 * drift, 2.0, 7.0, 20.0),
        }
        for drift in (1.0, 0.6, 1.3)
    ],
    "redis": [
        {
            "celery_redis": contender(600 * drift, 2.6, 3.0, 6.0),
            "celery_stream": contender(1500 * drift, 1.5, 3.0, 6.0),
            "results_redis": contender(200 * drift, 8.0, 9.0, 20.0),
            "results_redis_default": contender(100 * drift, 16.0, 12.0, 25.0),
            "signalbox_redis": contender(540 * drift, 3.0, 7.0, 20.0),
            "signalbox_stream": contender(1200 * drift, 2.0, 7.0, 20.0),
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


def _times(part: str, name: str, key: str, factor: float) -> Callable[[dict[str, Any]], None]:
    def spoil(figures: dict[str, Any]) -> None:
        for one in figures[part]:
            of = "latency_ms" if key in one[name]["latency_ms"] else "load"
            one[name][of][key] *= factor

    return spoil


def _slow_claims_at_one_level(figures: dict[str, Any]) -> None:
    figures["rates"]["levels"][0]["claim"]["bare"] = [40_000.0] * 3


def _slow_ingest_at_one_level(figures: dict[str, Any]) -> None:
    figures["rates"]["levels"][1]["ingest"]["ours"] = [2000.0] * 3


def _claims_slowed_by_a_backlog(figures: dict[str, Any]) -> None:
    level = figures["rates"]["levels"][1]["claim"]
    level["ours"], level["bare"] = [8_000.0] * 3, [16_000.0] * 3


SPOILED = {
    "bench.rabbitmq.throughput_ratio": _times("rounds", "celery", "per_second", 3.0),
    "bench.rabbitmq.throughput_ratio_unconfirmed": _times("rounds", "celery_unconfirmed", "per_second", 1.3),
    "bench.rabbitmq.vs_results": _times("rounds", "results_default", "per_second", 5.0),
    "bench.rabbitmq.vs_results_kept": _times("rounds", "results", "per_second", 1.6),
    "bench.rabbitmq.cpu_ratio": _times("rounds", "celery", "cpu_per_thousand", 0.4),
    "bench.rabbitmq.cpu_ratio_unconfirmed": _times("rounds", "celery_unconfirmed", "cpu_per_thousand", 0.9),
    "bench.rabbitmq.start_latency_p50": _times("rounds", "signalbox", "p50", 1.2),
    "bench.rabbitmq.start_latency_p99": _times("rounds", "signalbox", "p99", 1.2),
    "bench.redis.throughput_ratio": _times("redis", "celery_redis", "per_second", 1.2),
    "bench.redis.stream_throughput_ratio": _times("redis", "signalbox_stream", "per_second", 0.7),
    "bench.redis.vs_results": _times("redis", "results_redis_default", "per_second", 3.0),
    "bench.redis.vs_results_kept": _times("redis", "results_redis", "per_second", 1.1),
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
@pytest.mark.parametrize(("part", "name"), [("rounds", "signalbox"), ("redis", "celery_stream")])
def test_a_body_that_ran_twice_or_never_leaves_no_figure(part, name, fault, monkeypatch):
    figures = copy.deepcopy(GOOD)
    figures[part][1][name]["load"][fault] = 1
    with pytest.raises(claims.Inexact, match=f"round 2, {name}"):
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


def _page(*parts: str) -> str:
    figures = copy.deepcopy({part: GOOD[part] for part in parts})
    for found in (found for rounds in figures.values() for one in rounds for found in one.values()):
        found["load"] |= {"submits_per_second": 10.0, "peak_mib": 1.0, "others": 0.0, "runs": 100, "cpu_seconds": {}}
        found["single"] = found["load"]
    titles = {name: f"<{name}>" for part in ("rounds", "redis") for name in GOOD[part][0]}
    means = {"rounds": 3, "runs": 100, "calls": 10, "calls_per_second": 20.0}
    return report.page(
        figures | {"titles": titles, "scale": "small", "scale_means": means, "commit": "c", "at": "t", "versions": {}}
    )


def test_the_page_has_a_section_for_each_broker_with_ratios_to_its_own_bare_celery():
    rabbitmq, _, redis = _page("rounds", "redis").partition("## Redis: throughput")
    assert "## RabbitMQ: throughput" in rabbitmq
    [stream] = [line for line in redis.splitlines() if line.startswith("| <signalbox_stream>") and "2.00 [" in line]
    assert "0.80 [0.80–0.80]" in stream  # of Celery on redis-stream
    assert "÷ Celery on stock Redis" in redis
    assert "÷ Celery with confirms" not in redis
    assert "| `bench.redis.stream_throughput_ratio` | 2.00 |" in redis


def test_the_page_leaves_out_what_was_not_measured():
    page = _page("rounds")
    assert "## RabbitMQ: throughput" in page
    for missing in ("## Redis", "`bench.redis.", "`bench.claim_ratio`"):
        assert missing not in page


def test_parts_of_one_commit_belong_together_the_newest_first(tmp_path, monkeypatch):
    monkeypatch.setattr(session, "commit", lambda: "here")

    def write(name: str, at: str, commit: str = "here", **more: Any) -> None:
        (tmp_path / name).write_text(json.dumps({"at": at, "commit": commit} | more))

    write("small.json", "1", rounds=["old"], rates=["rates"])
    write("small-rounds.json", "2", rounds=["new"])
    write("small-redis.json", "3", only=["celery_redis"], redis=["not everybody"])
    write("small-profile.json", "4", commit="elsewhere", profile=["other code"])
    write("full.json", "5", rounds=["other scale"])
    found = session.sittings(tmp_path, "small")
    assert [path.name for path, _ in found] == ["small-rounds.json", "small.json"]
    together = session.together(found)
    assert (together["rounds"], together["rates"]) == (["new"], ["rates"])
    assert {"redis", "profile"}.isdisjoint(together)
