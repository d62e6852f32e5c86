"""Random mode: every kind of fault that a combination allows, drawn by a seed, several at once, always under load.

For a seed and a combination the draw holds each kind so many times, and more by chance up to the number wanted, in an
order by chance. The same seed draws the same faults; the moments are those of the machine. After the last fault the
load goes on until enough runs were submitted, then everything comes to rest and the checker judges all of it at once.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import shutil
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.faults.exposures import QUICK
from tests.faults.harmable import HarmableServers
from tests.faults.jumping_clock import JumpingClock, library
from tests.faults.kinds_of_fault import ALL, LONG, FaultKind, NotNow, Pause, Scene, Steps
from tests.faults.load import Kind, Load, python, shell
from tests.faults.nemeses import Round
from tests.faults.storm import everything, some_are_cancelled
from tests.faults.system import ROOT, HarnessError, System, told_of
from tests.servers.tcp_proxy import TcpProxy

COMBINATIONS: Final = (
    "sqlite+valkey",
    "postgresql+rabbitmq",
    "postgresql+rabbitmq-quorum",
    "postgresql+redis",
    "postgresql+redis-stream",
)
#: Roles whose wall clock can jump; the others have the host's.
CLOCKED: Final = ("worker-0", "dispatcher-0", "ingest-0")
#: The worker with a way of its own to the database.
WITH_DOOR: Final = "worker-1"
TOGETHER_MAX: Final = 3
BATCH: Final = 40
#: Of each of two workers. A quarter of them has a long body; the others go through the short ones.
SLOTS: Final = 8
LONG_EVERY_SECONDS: Final = 3.0
CONDITION_SECONDS: Final = 75.0


@dataclass(frozen=True)
class Plan:
    """How much of everything. each: how often every kind is drawn at least; minutes: then it ends, whatever is left."""

    faults: int
    runs: int
    minutes: float
    each: int = 2
    only: tuple[str, ...] = ()
    mutant: str = ""


@dataclass
class Chance:
    """What came of one seed on one combination."""

    combination: str
    seed: int
    round: Round
    each: int
    done: dict[str, int] = field(default_factory=dict)
    impossible: dict[str, str] = field(default_factory=dict)
    logs: str = ""

    @property
    def faults(self) -> int:
        """How many were done, of every kind."""
        return sum(self.done.values())

    @property
    def missing(self) -> list[str]:
        """Kinds that would have been possible and were not done often enough."""
        return [name for name, count in self.done.items() if count < self.each]

    def lines(self) -> list[str]:
        """For people."""
        told = [f"{self.combination}, seed {self.seed}: {self.faults} faults; {self.round.line()}"]
        told += [f"  {name} cannot be: {reason}" for name, reason in self.impossible.items()]
        told += [f"  too few: {', '.join(self.missing)}"] if self.missing else []
        for kind, found in self.round.verdict.violations.items():
            told += [f"  {kind}: {text}" for text in found[:5]]
        return told + ([f"  the logs of all processes: {self.logs}"] if self.logs else [])


def drawn(kinds: Sequence[FaultKind], rng: random.Random, *, each: int, count: int) -> list[FaultKind]:
    """Every kind so often, and more by chance up to `count`, in an order by chance."""
    draws = [kind for kind in kinds for _ in range(each)]
    draws += [rng.choice(kinds) for _ in range(count - len(draws))]
    rng.shuffle(draws)
    return draws


class Crowd(Load):
    """Many short runs in batches, every other kind of work beside them, and always some bodies that outlast a lease."""

    def prepare(self) -> None:
        """Make the tasks; the first kind is the short one, the long ones come last."""
        super().prepare()
        self.cancel_when = some_are_cancelled
        self._long = itertools.cycle([kind for kind in self.kinds if kind.name.startswith(LONG + "_")])
        self._next_long = 0.0

    def pump(self) -> None:
        """Top up by a whole batch: one for each run that ended would be as many others as short ones."""
        active = self.watch()
        if active is None or active > self.outstanding - BATCH:
            return
        self.submit_batch(self.kinds[0], BATCH)
        self.submit_one()
        if time.monotonic() >= self._next_long:
            self._next_long = time.monotonic() + LONG_EVERY_SECONDS
            self.submit(next(self._long))


def _work(system: System) -> list[Kind]:
    # A body that is not ended in time is seen beside its successor only where it lasts long enough, and where the
    # successor does not wait behind all the short runs.
    seconds = system.number("lease_seconds") + 6 * system.number("lease_margin_seconds")
    return [
        python("faults.plain", "crowd", seconds=0.02),
        *everything(system),
        python("faults.bound", f"{LONG}_body", seconds=seconds, priority=9),
        python("faults.own_call", f"{LONG}_call", seconds=seconds, priority=9),
        shell(f"{LONG}_shell", system.history, ROOT, seconds=seconds, priority=9),
    ]


@dataclass
class _UnderWay:
    kind: FaultKind
    steps: Steps
    pause: Pause
    since: float

    def due(self, now: float) -> bool:
        """Whether its next step may come."""
        return bool(self.pause()) if callable(self.pause) else now >= self.since + self.pause


class _Fate:
    """Brings draws about, one or several at a time."""

    def __init__(self, scene: Scene, draws: Sequence[FaultKind]) -> None:
        self.scene = scene
        self.pending = deque(draws)
        self.under_way: list[_UnderWay] = []
        self.done: Counter[str] = Counter()
        self.problems: list[str] = []
        self._next = time.monotonic() + 1.0

    @property
    def over(self) -> bool:
        """Nothing is left to do or to undo."""
        return not self.pending and not self.under_way

    def go_on(self) -> None:
        """Every step that is due; a new fault when it is time for one."""
        for one in list(self.under_way):
            now = time.monotonic()
            if one.due(now):
                self._step(one)
            elif callable(one.pause) and now > one.since + CONDITION_SECONDS:
                self._step(one, HarnessError(f"what it waits for did not come in {CONDITION_SECONDS:.0f} s"))
        if self.pending and len(self.under_way) < TOGETHER_MAX and time.monotonic() >= self._next:
            self._begin()

    def give_up(self) -> None:
        """Undo what is under way; what was not done is missing."""
        self.pending.clear()
        for one in self.under_way:
            with contextlib.suppress(HarnessError):
                one.steps.close()  # type: ignore[attr-defined]
        self.under_way.clear()

    def _begin(self) -> None:
        kind = self.pending.popleft()
        steps = kind.act(self.scene)
        try:
            pause = next(steps)
        except NotNow:
            self.pending.append(kind)
            self._next = time.monotonic() + 0.2
            return
        except StopIteration:
            self.done[kind.name] += 1
        except HarnessError as error:
            self.problems.append(f"{kind.name}: {error}")
        else:
            self.under_way.append(_UnderWay(kind, steps, pause, time.monotonic()))
        self._next = time.monotonic() + self.scene.rng.uniform(0.3, 2.0)

    def _step(self, one: _UnderWay, error: HarnessError | None = None) -> None:
        try:
            one.pause = one.steps.throw(error) if error else next(one.steps)  # type: ignore[attr-defined]
            one.since = time.monotonic()
        except StopIteration:
            self.done[one.kind.name] += 1
            self.under_way.remove(one)
        except HarnessError as failed:
            self.problems.append(f"{one.kind.name}: {failed}")
            self.under_way.remove(one)


def play_by_chance(combination: str, seed: int, plan: Plan, out: Path, say: Callable[[str], None]) -> Chance:
    """One seed on servers of its own. Logs are kept when anything was violated or not done."""
    servers = HarmableServers(combination)
    clocks: dict[str, JumpingClock] = {}
    doors: dict[str, TcpProxy] = {}
    try:
        with contextlib.ExitStack() as stack:
            system: System | None = None

            def vary(label: str, environment: Mapping[str, str]) -> dict[str, str]:
                if label == WITH_DOOR and (way := servers.door(environment["SIGNALBOX_DATABASE_URL"])):
                    doors[label] = way[0]
                    return {"SIGNALBOX_DATABASE_URL": way[1]}
                if label in CLOCKED and servers.database is not None and library():
                    assert system is not None
                    clocks[label] = JumpingClock(system.folder / f"{label}.clock", environment)
                    return clocks[label].environment
                return {}

            system = System(
                combination, settings=QUICK, mutant=plan.mutant, slots=SLOTS, say=say, servers=servers, vary=vary
            )
            stack.enter_context(system)
            done = _played(Scene(system, servers, random.Random(seed), clocks, doors), combination, seed, plan, out)
        if not done.round.holds or done.missing:
            kept = out / f"{combination}-{seed}-logs"
            kept.mkdir(parents=True, exist_ok=True)
            for log in system.folder.glob("*.log"):
                shutil.copy(log, kept)
            done.logs = str(kept)
        system.remove()
        return done
    finally:
        servers.close()


def _played(scene: Scene, combination: str, seed: int, plan: Plan, out: Path) -> Chance:
    system, servers, began = scene.system, scene.servers, time.monotonic()
    reasons = {kind.name: kind.impossible(servers) for kind in ALL}
    kinds = [kind for kind in ALL if not reasons[kind.name] and (not plan.only or kind.name in plan.only)]
    system.say(f"--- {combination}, seed {seed}: {len(kinds)} kinds; {told_of(system.deviations)}")
    name = f"random_{combination.replace('+', '_').replace('-', '_')}_{seed}"
    load = Crowd(system, name, _work(system), outstanding=160)
    load.prepare()
    fate = _Fate(scene, drawn(kinds, scene.rng, each=plan.each, count=plan.faults))
    until, problem, told = began + 60 * plan.minutes, "", began

    try:
        while time.monotonic() < until and not (fate.over and load.accepted >= plan.runs):
            fate.go_on()
            system.keep_up()
            load.pump()
            if time.monotonic() > told + 30:
                told = time.monotonic()
                system.say(f"  {sum(fate.done.values())} faults, {load.accepted} runs; {len(fate.pending)} to come")
            time.sleep(0.03)
    except HarnessError as error:
        problem = f"not done: {error} "
    finally:
        fate.give_up()
    load.cancel_when = None
    settled = load.settle(180)
    # Celery's main process gives up by itself when a child dies while it is being made; a supervisor starts it again.
    ended = [text for text in system.ended if "worker" not in text]
    problem += "".join(f"{text}; " for text in fate.problems)
    problem += f"ended by themselves: {', '.join(ended)}; " if ended else ""
    made = Round(name, load.judge(out), settled, time.monotonic() - began, problem, label=combination)
    counts = {kind.name: fate.done[kind.name] for kind in kinds}
    return Chance(combination, seed, made, plan.each, counts, {name: why for name, why in reasons.items() if why})


def table(results: Sequence[Chance], quantile: Callable[[Sequence[float], float], float]) -> str:
    """By combination: runs, faults by kind, violations, recovery; below it why a kind cannot be somewhere."""
    head = ["", *(f"{one.combination} (seed {one.seed})" for one in results)]
    rows = [["runs", *(str(one.round.verdict.runs) for one in results)]]
    rows += [["faults", *(str(one.faults) for one in results)]]
    reasons: dict[str, int] = {}
    for kind in ALL:
        cells = []
        for one in results:
            reason = one.impossible.get(kind.name)
            number = reasons.setdefault(reason, len(reasons) + 1) if reason else 0
            cells.append(f"– {number}" if reason else str(one.done.get(kind.name, 0)))
        rows.append([kind.name, *cells])
    rows += [["attempts lost", *(str(one.round.verdict.lost_attempts) for one in results)]]
    rows += [["violations", *(str(sum(one.round.verdict.counts.values())) for one in results)]]
    for q in (0.5, 0.99):
        rows.append([
            f"recovery p{q * 100:.0f}, s",
            *(f"{quantile(one.round.verdict.recoveries, q):.1f}" for one in results),
        ])  # fmt: skip
    lines = [f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows]]
    return "\n".join([*lines, "", *(f"{number}. {reason}" for reason, number in reasons.items()), ""])
