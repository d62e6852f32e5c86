"""The claims about cost, with their bars: `CLAIMS` is what the registry takes. All share one sitting."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any, Final

from tests.benchmarks.figures import Spread, differences, ratios, spread
from tests.prove.claim import Claim, Measured

OUT: Final = Path("build/bench")
OURS: Final = "signalbox"
#: What ratios are judged against: Celery that has every message confirmed, as Signalbox has.
BARE: Final = "celery"
UNCONFIRMED: Final = "celery_unconfirmed"
RESULTS: Final = "results"
RESULTS_DEFAULT: Final = "results_default"

Figures = Mapping[str, Any]


class Inexact(Exception):
    """Bodies were executed twice or not at all: no figure of such a sitting means anything."""


def throughput_ratio(figures: Figures) -> tuple[float, str]:
    """End to end, over bare Celery."""
    _must_be_exact(figures)
    judged = ratios(_rates(figures, OURS), _rates(figures, BARE))
    other = ratios(_rates(figures, OURS), _rates(figures, UNCONFIRMED))
    return judged.median, (
        f"of bare Celery with a confirm per message {judged.text(2)}; of bare Celery without confirms {other.text(2)}; "
        f"runs/s {spread(_rates(figures, OURS)).text()}"
    )


def vs_results(figures: Figures, contender: str, how: str) -> tuple[float, str]:
    """End to end, over django-celery-results set up in one of two ways."""
    _must_be_exact(figures)
    theirs = _rates(figures, contender)
    judged = ratios(_rates(figures, OURS), theirs)
    return judged.median, f"{judged.text(2)}; {how}: runs/s {spread(theirs).text()}"


def cpu_ratio(figures: Figures) -> tuple[float, str]:
    """CPU of all processes for a run, over bare Celery's."""
    _must_be_exact(figures)
    judged = ratios(_cpu(figures, OURS), _cpu(figures, BARE))
    other = ratios(_cpu(figures, OURS), _cpu(figures, UNCONFIRMED))
    return judged.median, (
        f"of bare Celery with a confirm per message {judged.text(2)}; without confirms {other.text(2)}; "
        f"CPU s/1,000 {spread(_cpu(figures, OURS)).text(2)}"
    )


def start_latency(figures: Figures, quantile: str) -> tuple[float, str]:
    """How much later a body starts than under bare Celery, on an idle system."""
    ours, bare, other = (_latency(figures, name, quantile) for name in (OURS, BARE, UNCONFIRMED))
    judged = differences(ours, bare)
    return judged.median, (
        f"{judged.text(1)}; Signalbox {spread(ours).text(1)}, bare {spread(bare).text(1)}, "
        f"bare without confirms {spread(other).text(1)}"
    )


def step_ratio(figures: Figures, step: str) -> tuple[float, str]:
    """Over the bare loop, at the backlog where it is worst."""
    levels = {level["pending"]: _step_ratio(level[step]) for level in figures["rates"]["levels"]}
    worst = min(found.median for found in levels.values())
    return worst, "; ".join(f"{pending:,} pending {found.text(2)}" for pending, found in levels.items())


def claim_backlog(figures: Figures) -> tuple[float, str]:
    """Claims a second with the largest backlog, over those with the smallest."""
    levels = sorted(figures["rates"]["levels"], key=lambda level: level["pending"])
    few, many = levels[0], levels[-1]
    low, high = spread(few["claim"]["ours"]), spread(many["claim"]["ours"])
    return high.median / low.median, (
        f"{many['pending']:,} pending {high.text()} rows/s, {few['pending']:,} pending {low.text()} rows/s"
    )


def _rates(figures: Figures, name: str) -> list[float]:
    return [one[name]["load"]["per_second"] for one in figures["rounds"]]


def _cpu(figures: Figures, name: str) -> list[float]:
    return [one[name]["load"]["cpu_per_thousand"] for one in figures["rounds"]]


def _latency(figures: Figures, name: str, quantile: str) -> list[float]:
    return [one[name]["latency_ms"][quantile] for one in figures["rounds"]]


def _step_ratio(step: Mapping[str, list[float]]) -> Spread:
    return ratios(step["ours"], step["bare"])


def _must_be_exact(figures: Figures) -> None:
    for number, one in enumerate(figures["rounds"], 1):
        for name, found in one.items():
            load = found["load"]
            if load["doubled"] or load["missing"]:
                raise Inexact(f"round {number}, {name}: {load['doubled']} doubled, {load['missing']} missing")


def sitting(scale: str, part: str) -> tuple[Figures, str]:
    """The figures of a part, "rounds" or "rates", and the path of the raw ones.

    Measured once a process; what `make bench` measured on this very commit is taken as it is. A sitting that failed
    fails for every claim that asks for it, without being tried again.
    """
    found = _sitting(scale, part)
    if isinstance(found, Exception):
        raise found
    return found


@cache
def _sitting(scale: str, part: str) -> tuple[Figures, str] | Exception:
    from tests.benchmarks import session
    from tests.benchmarks.contenders import all_contenders
    from tests.benchmarks.measure import SCALES

    known = session.path_of(OUT, scale, session.EVERYTHING)
    if known.exists() and session.unchanged():
        figures = json.loads(known.read_text())
        if figures["commit"] == session.commit() and part in figures:
            return figures, str(known)
    try:
        figures = session.measure(SCALES[scale], parts=[part], out=OUT, contenders=all_contenders)
    except Exception as error:
        return error
    return figures, str(session.path_of(OUT, scale, [part]))


def _measured(judge: Callable[[Figures], tuple[float, str]], part: str, scale: str) -> Measured:
    figures, evidence = sitting(scale, part)
    value, detail = judge(figures)
    return Measured(round(value, 3), detail, evidence)


def _claim(
    name: str, unit: str, bar: str, holds: Callable[[float], bool], judge: Callable[[Figures], tuple[float, str]]
) -> Claim:
    part = "rounds" if name.startswith("rabbitmq.") else "rates"
    return Claim(f"bench.{name}", unit, bar, holds, partial(_measured, judge, part))


def judge_of(claim: Claim) -> Callable[[Figures], tuple[float, str]]:
    """What makes a claim's value and detail out of the figures of a sitting."""
    assert isinstance(claim.measure, partial)
    judge: Callable[[Figures], tuple[float, str]] = claim.measure.args[0]
    return judge


def _at_least(bar: float) -> tuple[str, Callable[[float], bool]]:
    return f"at least {bar:g}", lambda value: value >= bar


def _at_most(bar: float) -> tuple[str, Callable[[float], bool]]:
    return f"at most {bar:g}", lambda value: value <= bar


_TIMES_BARE: Final = "× bare Celery"
_TIMES_LOOP: Final = "× a bare psycopg loop"

CLAIMS: Final[list[Claim]] = [
    _claim("rabbitmq.throughput_ratio", _TIMES_BARE, *_at_least(0.5), throughput_ratio),
    _claim(
        "rabbitmq.vs_results",
        "× django-celery-results as it comes",
        *_at_least(2.5),
        partial(vs_results, contender=RESULTS_DEFAULT, how="set up as its documentation says"),
    ),
    _claim(
        "rabbitmq.vs_results_kept",
        "× django-celery-results at its best",
        *_at_least(2.5),
        partial(vs_results, contender=RESULTS, how="with kept connections, a setting that its documentation lacks"),
    ),
    _claim("rabbitmq.cpu_ratio", _TIMES_BARE, *_at_most(2.0), cpu_ratio),
    _claim("rabbitmq.start_latency_p50", "ms over bare Celery", *_at_most(5.0), partial(start_latency, quantile="p50")),
    _claim(
        "rabbitmq.start_latency_p99", "ms over bare Celery", *_at_most(15.0), partial(start_latency, quantile="p99")
    ),
    _claim("claim_ratio", _TIMES_LOOP, *_at_least(0.45), partial(step_ratio, step="claim")),
    _claim("ingest_ratio", _TIMES_LOOP, *_at_least(0.45), partial(step_ratio, step="ingest")),
    _claim("claim_backlog", "× the rate with 10,000 pending", *_at_least(0.6), claim_backlog),
]
