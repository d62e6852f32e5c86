"""The claims about the transport on streams: `CLAIMS` is what the registry takes. Judgements are pure."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any, Final

from tests.benchmarks.figures import ratios, spread
from tests.brokers import cuts, drain
from tests.brokers.cuts import Outcome
from tests.prove.claim import Claim, Measured

OUT: Final = Path("build/brokers")
#: (rounds, messages) of the drains; (messages, kills, cuts) of the strikes.
DRAINS: Final = {"small": (1, 2000), "full": (5, 6000)}
STRIKES: Final = {"small": (1000, 5, 3), "full": (10_000, 50, 25)}


def ratio_value(rounds: Sequence[dict[str, float]], other: str) -> tuple[float, str]:
    """The drain of streams over that of another broker, inside each round."""
    ours, theirs = ([one[name] for one in rounds] for name in ("redis-stream", other))
    judged = ratios(ours, theirs)
    return judged.median, (
        f"{judged.text(2)}; messages/s redis-stream {spread(ours).text()}, {other} {spread(theirs).text()}"
    )


def lost_value(ours: Outcome, stock: Outcome) -> tuple[float, str]:
    """Messages of streams that came to nobody; the stock transport's loss under the same strikes beside it."""
    struck = ours.kills > 0 and ours.cuts > 0 and ours.published > 0
    return float(ours.lost) if struck else float("inf"), f"{ours.line()}; {stock.line()}"


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def _kept(name: str, found: Any) -> str:
    OUT.mkdir(parents=True, exist_ok=True)
    path = OUT / name
    path.write_text(json.dumps(found, indent=1))
    return str(path)


@cache
def _drains(scale: str) -> tuple[list[dict[str, float]], str]:
    found = drain.measure(*DRAINS[scale], _say)
    return found, _kept(f"drain-{scale}.json", found)


def _ratio(scale: str, other: str) -> Measured:
    found, evidence = _drains(scale)
    return Measured(*ratio_value(found, other), evidence)


def _lost(scale: str) -> Measured:
    ours, stock = (cuts.strike(name, *STRIKES[scale], _say) for name in ("redis-stream", "redis"))
    return Measured(*lost_value(ours, stock), _kept(f"cuts-{scale}.json", [asdict(ours), asdict(stock)]))


CLAIMS: Final[list[Claim]] = [
    Claim("broker.redis_stream.lost", "messages lost", "0", lambda value: value == 0, _lost),
    Claim("broker.redis_stream.vs_stock", "× the stock transport's drain", "at least 2", lambda value: value >= 2,
          lambda scale: _ratio(scale, "redis")),
    Claim("broker.redis_stream.vs_rabbitmq", "× RabbitMQ's drain", "at least 0.8", lambda value: value >= 0.8,
          lambda scale: _ratio(scale, "rabbitmq")),
]  # fmt: skip
