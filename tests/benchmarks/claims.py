"""The claims about cost, with their bars: `CLAIMS` is what the registry takes. All share one sitting."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, Final

from tests.benchmarks.figures import Spread, differences, ratios, spread
from tests.prove.claim import Claim, Measured

OUT: Final = Path("build/bench")
OURS: Final = "signalbox"
#: Celery that has every message confirmed, as Signalbox has.
BARE: Final = "celery"
#: Celery as it comes: it may lose what it accepted.
UNCONFIRMED: Final = "celery_unconfirmed"
RESULTS: Final = "results"
RESULTS_DEFAULT: Final = "results_default"

OURS_REDIS: Final = "signalbox_redis"
OURS_STREAM: Final = "signalbox_stream"
#: What everybody on Redis is judged against: Celery on the stock transport.
BARE_REDIS: Final = "celery_redis"
BARE_STREAM: Final = "celery_stream"
RESULTS_REDIS: Final = "results_redis"
RESULTS_REDIS_DEFAULT: Final = "results_redis_default"

_WORDS: Final = {
    BARE: "bare Celery with a confirm per message", UNCONFIRMED: "bare Celery without confirms",
    BARE_REDIS: "bare Celery on stock Redis", BARE_STREAM: "bare Celery on redis-stream",
}  # fmt: skip

Figures = Mapping[str, Any]
Rounds = Sequence[Mapping[str, Any]]


class Inexact(Exception):
    """Bodies were executed twice or not at all: no figure of such a sitting means anything."""


def throughput_ratio(
    figures: Figures, *, part: str = "rounds", ours: str = OURS, bare: str, beside: str
) -> tuple[float, str]:
    """End to end, over bare Celery; the ratio to the other kind of bare Celery is told beside it."""
    rounds = _exact(figures, part)
    own = _rates(rounds, ours)
    judged, other = (ratios(own, _rates(rounds, name)) for name in (bare, beside))
    return judged.median, (
        f"of {_WORDS[bare]} {judged.text(2)}; of {_WORDS[beside]} {other.text(2)}; runs/s {spread(own).text()}"
    )


def vs_results(
    figures: Figures, *, part: str = "rounds", ours: str = OURS, contender: str, how: str
) -> tuple[float, str]:
    """End to end, over django-celery-results set up in one of two ways."""
    rounds = _exact(figures, part)
    theirs = _rates(rounds, contender)
    judged = ratios(_rates(rounds, ours), theirs)
    return judged.median, f"{judged.text(2)}; {how}: runs/s {spread(theirs).text()}"


def cpu_ratio(figures: Figures, *, bare: str, beside: str) -> tuple[float, str]:
    """CPU of all processes for a run, over bare Celery's; the ratio to the other kind is told beside it."""
    rounds = _exact(figures, "rounds")
    own = _cpu(rounds, OURS)
    judged, other = (ratios(own, _cpu(rounds, name)) for name in (bare, beside))
    return judged.median, (
        f"of {_WORDS[bare]} {judged.text(2)}; of {_WORDS[beside]} {other.text(2)}; CPU s/1,000 {spread(own).text(2)}"
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


def _rates(rounds: Rounds, name: str) -> list[float]:
    return [one[name]["load"]["per_second"] for one in rounds]


def _cpu(rounds: Rounds, name: str) -> list[float]:
    return [one[name]["load"]["cpu_per_thousand"] for one in rounds]


def _latency(figures: Figures, name: str, quantile: str) -> list[float]:
    return [one[name]["latency_ms"][quantile] for one in figures["rounds"]]


def _step_ratio(step: Mapping[str, list[float]]) -> Spread:
    return ratios(step["ours"], step["bare"])


def _exact(figures: Figures, part: str) -> Rounds:
    """The rounds of a part. Raises Inexact."""
    rounds: Rounds = figures[part]
    for number, one in enumerate(rounds, 1):
        for name, found in one.items():
            load = found["load"]
            if load["doubled"] or load["missing"]:
                raise Inexact(f"round {number}, {name}: {load['doubled']} doubled, {load['missing']} missing")
    return rounds


def sitting(scale: str, part: str) -> tuple[Figures, str]:
    """The figures of a part, "rounds", "redis" or "rates", and the path of the raw ones.

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

    if session.unchanged():
        for path, figures in session.sittings(OUT, scale):
            if part in figures:
                return figures, str(path)
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
    part = {"rabbitmq": "rounds", "redis": "redis"}.get(name.partition(".")[0], "rates")
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


_TIMES_CONFIRMED: Final = "× bare Celery with confirms"
_TIMES_UNCONFIRMED: Final = "× bare Celery without confirms"
_TIMES_STOCK: Final = "× bare Celery on stock Redis"
_TIMES_LOOP: Final = "× a bare psycopg loop"
_TIMES_DEFAULT: Final = "× django-celery-results as it comes"
_TIMES_KEPT: Final = "× django-celery-results at its best"
_DEFAULT: Final = "set up as its documentation says"
_KEPT: Final = "with kept connections, a setting that its documentation lacks"

_VS_CONFIRMED: Final = {"bare": BARE, "beside": UNCONFIRMED}
_VS_UNCONFIRMED: Final = {"bare": UNCONFIRMED, "beside": BARE}
_VS_STOCK: Final = {"part": "redis", "bare": BARE_REDIS, "beside": BARE_STREAM}
_ON_REDIS: Final = {"part": "redis", "ours": OURS_REDIS}

CLAIMS: Final[list[Claim]] = [
    _claim(
        "rabbitmq.throughput_ratio", _TIMES_CONFIRMED, *_at_least(1.2), partial(throughput_ratio, **_VS_CONFIRMED)
    ),
    _claim(
        "rabbitmq.throughput_ratio_unconfirmed", _TIMES_UNCONFIRMED, *_at_least(0.7),
        partial(throughput_ratio, **_VS_UNCONFIRMED),
    ),
    _claim(
        "rabbitmq.vs_results", _TIMES_DEFAULT, *_at_least(3.0),
        partial(vs_results, contender=RESULTS_DEFAULT, how=_DEFAULT),
    ),
    _claim("rabbitmq.vs_results_kept", _TIMES_KEPT, *_at_least(3.0), partial(vs_results, contender=RESULTS, how=_KEPT)),
    _claim("rabbitmq.cpu_ratio", _TIMES_CONFIRMED, *_at_most(2.0), partial(cpu_ratio, **_VS_CONFIRMED)),
    _claim(
        "rabbitmq.cpu_ratio_unconfirmed", _TIMES_UNCONFIRMED, *_at_most(1.4), partial(cpu_ratio, **_VS_UNCONFIRMED)
    ),
    _claim("rabbitmq.start_latency_p50", "ms over bare Celery", *_at_most(5.0), partial(start_latency, quantile="p50")),
    _claim(
        "rabbitmq.start_latency_p99", "ms over bare Celery", *_at_most(15.0), partial(start_latency, quantile="p99")
    ),
    _claim(
        "redis.throughput_ratio", _TIMES_STOCK, *_at_least(0.8), partial(throughput_ratio, ours=OURS_REDIS, **_VS_STOCK)
    ),
    _claim(
        "redis.stream_throughput_ratio", _TIMES_STOCK, *_at_least(1.5),
        partial(throughput_ratio, ours=OURS_STREAM, **_VS_STOCK),
    ),
    _claim(
        "redis.vs_results", _TIMES_DEFAULT, *_at_least(2.5),
        partial(vs_results, **_ON_REDIS, contender=RESULTS_REDIS_DEFAULT, how=_DEFAULT),
    ),
    _claim(
        "redis.vs_results_kept", _TIMES_KEPT, *_at_least(2.5),
        partial(vs_results, **_ON_REDIS, contender=RESULTS_REDIS, how=_KEPT),
    ),
    _claim("claim_ratio", _TIMES_LOOP, *_at_least(0.45), partial(step_ratio, step="claim")),
    _claim("ingest_ratio", _TIMES_LOOP, *_at_least(0.45), partial(step_ratio, step="ingest")),
    _claim("claim_backlog", "× the rate with 10,000 pending", *_at_least(0.6), claim_backlog),
]  # fmt: skip
