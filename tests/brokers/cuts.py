"""Consumers that are killed and connections that are cut in the middle of an answer: what comes to nobody?

Plain Kombu consumers read through a proxy. Each writes down a message's number and acknowledges it. What was published
and never written down, long after everything that was held has been given to others, is lost.
"""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kombu import Connection, Producer

from tests.processes import until
from tests.servers import RedisServer, RedisStreamServer
from tests.servers.tcp_proxy import TcpProxy

ROOT: Final = Path(__file__).parents[2]
QUEUE: Final = "cuts"
CONSUMERS: Final = 2
#: Seconds after which what a dead consumer held goes to others: the life of a consumer on streams, the visibility
#: timeout of the stock transport, which looks for what is overdue at every tenth empty read.
GIVEN_BACK_SECONDS: Final = 3.0


@dataclass(frozen=True)
class Outcome:
    """What became of the messages."""

    transport: str
    published: int
    lost: int
    repeated: int
    kills: int
    cuts: int

    def line(self) -> str:
        """For people."""
        return (
            f"{self.transport}: {self.lost} of {self.published:,} lost, {self.repeated} came more than once; "
            f"{self.kills} consumers killed, {self.cuts} answers cut"
        )


def strike(transport: str, messages: int, kills: int, cuts: int, say: Callable[[str], None], seed: int = 1) -> Outcome:
    """transport: `redis` or `redis-stream`."""
    server_class = RedisStreamServer if transport == "redis-stream" else RedisServer
    with tempfile.TemporaryDirectory() as folder, server_class() as server, TcpProxy(server.port) as proxy:
        round_ = _Round(transport, server, proxy, Path(folder))
        try:
            outcome = round_.play(messages, kills, cuts, random.Random(seed))
        finally:
            round_.close()
    say(outcome.line())
    return outcome


class _Round:
    def __init__(self, transport: str, server: RedisServer, proxy: TcpProxy, folder: Path) -> None:
        self._transport, self._server, self._proxy, self._folder = transport, server, proxy, folder
        self._url = server.url.replace(f":{server.port}/", f":{proxy.port}/")
        self._consumers: list[subprocess.Popen[bytes]] = []
        self._published = self._started = 0
        self._connection = Connection(server.url)
        self._producer = Producer(self._connection)

    def close(self) -> None:
        for process in self._consumers:
            process.kill()
            process.wait()
        self._connection.release()

    def play(self, messages: int, kills: int, cuts: int, chance: random.Random) -> Outcome:
        strikes = ["kill"] * kills + ["cut"] * cuts
        chance.shuffle(strikes)
        share = messages // (len(strikes) + 1)
        self._keep_up()
        for what in strikes:
            known = len(self._seen())
            if what == "cut":
                before = self._proxy.cuts
                self._proxy.cut_next_answer_with(QUEUE.encode())
                self._publish(share)
                until(lambda before=before: self._proxy.cuts > before, "an answer to be cut", 60)
            else:
                self._publish(share)
                until(lambda known=known: len(self._seen()) > known + share // 4, "consumers to work", 60)
                chance.choice(self._consumers).kill()
            self._keep_up()
        self._publish(messages - self._published)
        self._wait()
        seen = self._seen()
        return Outcome(
            transport=self._transport, published=self._published, lost=self._published - len(seen),
            repeated=sum(count > 1 for count in seen.values()), kills=kills, cuts=self._proxy.cuts,
        )  # fmt: skip

    def _publish(self, count: int) -> None:
        for number in range(self._published, self._published + count):
            self._producer.publish(number, exchange="", routing_key=QUEUE, serializer="json")
        self._published += count

    def _keep_up(self) -> None:
        for process in [one for one in self._consumers if one.poll() is not None]:
            process.wait()
            self._consumers.remove(process)
        while len(self._consumers) < CONSUMERS:
            self._started += 1
            self._consumers.append(
                subprocess.Popen(
                    [sys.executable, "-m", "tests.brokers.consumer", self._url, QUEUE,
                     str(self._folder / f"{self._started}.seen"), str(GIVEN_BACK_SECONDS)],
                    cwd=ROOT,
                )
            )  # fmt: skip

    def _seen(self) -> Counter[bytes]:
        seen: Counter[bytes] = Counter()
        for path in self._folder.glob("*.seen"):
            # The last line of one that was killed may be cut off.
            seen.update(path.read_bytes().split(b"\n")[:-1])
        return seen

    def _wait(self) -> None:
        """Until everything was seen, or nothing came for many times as long as giving back takes."""
        found, since = 0, time.monotonic()
        while found < self._published and time.monotonic() - since < 15 * GIVEN_BACK_SECONDS:
            self._keep_up()
            time.sleep(0.2)
            now = len(self._seen())
            if now > found:
                found, since = now, time.monotonic()
