"""One sitting: servers started once, systems one after the other, every result kept under build/faults.

`Sitting` measures each part once, however many claims ask for it. Small scale is a look that fits into CI; what is said
to be done is shown at full scale.
"""

from __future__ import annotations

import atexit
import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Final

from tasks_app.crashpoints import POINTS
from tests.faults.cells import OPERATIONS, Cells, save
from tests.faults.chance import COMBINATIONS, Chance, Plan, play_by_chance
from tests.faults.exposures import EXPOSURES, QUICK, Caught, expose
from tests.faults.nemeses import (
    Nemesis,
    Round,
    all_nemeses,
    broker_emptied,
    light,
    play,
    recovery,
    shipped_defaults,
    short,
    without_postgresql,
)
from tests.faults.plain import PlainRound, play_plain
from tests.faults.servers import Servers, given_servers
from tests.faults.storm import storms
from tests.faults.system import DEVIATIONS, System, told_of
from tests.faults.witness import KINDS, Verdict

OUT: Final = Path("build/faults")
MAIN: Final = "postgresql+rabbitmq"
OTHER: Final = "sqlite+valkey"
#: On the second combination: what differs there is the database's and the broker's own part of the way.
OTHER_OPERATIONS: Final = ("submit", "success", "shell")
SMALL_OPERATIONS: Final = ("submit", "success")
SMALL_NEMESES: Final = ("kill_worker_main", "kill_child", "kill_dispatchers", "kill_ingests", "stop_worker_main")
#: A little more than what is claimed, so that it does not hang on the last run.
RANDOM_FULL: Final = Plan(faults=70, runs=4200, minutes=15)
RANDOM_SMALL: Final = Plan(faults=22, runs=600, minutes=4, each=1)
SMALL_MUTANTS: Final = ("permit_off", "reaper_off")


@dataclass(frozen=True)
class CellsResult:
    """Crash points x operations on one combination."""

    combination: str
    cells: Cells
    ended_by_themselves: list[str]
    deviations: dict[str, str]

    @property
    def problems(self) -> int:
        """Cells that did not fire as they should, roles that ended by themselves, and violations."""
        bad = sum(not cell.holds for cell in self.cells.cells) + len(self.ended_by_themselves)
        return bad + sum(sum(verdict.counts.values()) for verdict in self.cells.verdicts.values())


class Sitting:
    """Everything that was measured at one scale, each part once."""

    def __init__(self, scale: str, say: Callable[[str], None] = print, out: Path = OUT) -> None:
        """scale: small or full."""
        if scale not in {"small", "full"}:
            raise ValueError(f'the scale is "small" or "full", not {scale!r}')
        self.small, self.say, self.out = scale == "small", say, out
        self._servers: dict[str, Servers] = {}
        self._cells: list[CellsResult] | None = None
        self._rounds: list[Round] | None = None
        self._emptied: Round | None = None
        self._recovery: tuple[Round, float, float] | None = None
        self._caught: tuple[list[Caught], list[PlainRound]] | None = None
        self._by_chance: list[Chance] | None = None

    def servers(self, combination: str) -> Servers:
        """Running servers of a combination."""
        if combination not in self._servers:
            made = given_servers() or Servers(combination)
            made.start()
            # Only now: what ends the servers when we are killed has registered itself by their start and must go last.
            if not self._servers:
                atexit.register(self.close)
            self._servers[combination] = made
        return self._servers[combination]

    def close(self) -> None:
        """Stop the servers."""
        for servers in self._servers.values():
            servers.close()
        self._servers.clear()

    def _system(self, combination: str, settings: dict[str, str] | None = None) -> System:
        deviations = DEVIATIONS if settings is None else settings
        self.say(f"--- {combination}; {told_of(deviations)}")
        return System(combination, settings=settings, servers=self.servers(combination), say=self.say)

    # -- parts ----------------------------------------------------------------------------------------------------

    def cells(self) -> list[CellsResult]:
        """Crash points x operations."""
        if self._cells is None:
            self._cells = [self._cells_on(MAIN, SMALL_OPERATIONS if self.small else OPERATIONS)]
            if not self.small and given_servers() is None:
                self._cells.append(self._cells_on(OTHER, OTHER_OPERATIONS))
        return self._cells

    def _cells_on(self, combination: str, operations: Sequence[str]) -> CellsResult:
        folder = fresh(self.out / "cells" / combination)
        points = [point for point in POINTS if not (self.small and point.startswith("reap."))]
        with self._system(combination) as system:
            cells = Cells(system, folder, self.say)
            for operation in operations:
                cells.operation(operation, points)
            save(cells.cells, folder)
            result = CellsResult(combination, cells, list(system.ended), system.deviations)
        system.remove()
        return result

    def rounds(self) -> list[Round]:
        """Every nemesis but the emptied broker, which is a claim of its own."""
        if self._rounds is None:
            wanted = [one for one in all_nemeses() if one.name != "broker_emptied"]
            if self.small:
                wanted = [one for one in wanted if one.name in SMALL_NEMESES]
                self._rounds = self._played(MAIN, wanted, QUICK, "quick")
            else:
                self._rounds = self._played(MAIN, wanted, None, "lease10")
                other = [*without_postgresql(wanted), Nemesis("emptied", broker_emptied(400), short, outstanding=0)]
                self._rounds += self._played(MAIN, storms([1, 2], 60), None, "storms")
                if given_servers() is None:
                    self._rounds += self._played(OTHER, other, None, OTHER)
                    shipped = Nemesis("shipped_defaults", shipped_defaults, light, outstanding=10, settle_seconds=240)
                    self._rounds += self._played(MAIN, [shipped], {}, "shipped")
        return self._rounds

    def _played(
        self, combination: str, nemeses: Sequence[Nemesis], settings: dict[str, str] | None, label: str
    ) -> list[Round]:
        folder = fresh(self.out / "nemeses" / label)
        rounds = []
        with self._system(combination, settings) as system:
            for nemesis in nemeses:
                if not nemesis.possible(system):
                    self.say(f"{nemesis.name}: left out, these servers are not ours to stop")
                    continue
                done = play(system, nemesis, folder)
                done.label = label
                self._told(done)
                rounds.append(done)
        system.remove()
        (folder / "rounds.json").write_text(json.dumps([asdict(done) for done in rounds], indent=1))
        return rounds

    def _told(self, done: Round) -> None:
        self.say(done.line())
        for kind, found in done.verdict.violations.items():
            for text in found[:5]:
                self.say(f"  {kind}: {text}")

    def emptied(self) -> Round:
        """The broker emptied in the middle of 2,000 runs (400 at small scale)."""
        if self._emptied is None:
            runs = 400 if self.small else 2000
            one = Nemesis("broker_emptied", broker_emptied(runs), short, outstanding=0, settle_seconds=240)
            [self._emptied] = self._played(MAIN, [one], QUICK if self.small else None, "emptied")
        return self._emptied

    def recovery(self) -> tuple[Round, float, float]:
        """Workers killed one after the other; the round, the lease and the reaper's tick in seconds."""
        if self._recovery is None:
            one = Nemesis("recovery", recovery(2 if self.small else 8), light, outstanding=6)
            settings = QUICK if self.small else DEVIATIONS
            [done] = self._played(MAIN, [one], dict(settings), "recovery")
            lease = float(settings["SIGNALBOX_WORKERS__LEASE_SECONDS"])
            tick = float(settings["SIGNALBOX_DISPATCH__REAPER_TICK_SECONDS"])
            self._recovery = (done, lease, tick)
        return self._recovery

    def by_chance(self) -> list[Chance]:
        """Random mode: a seed for each combination; at small scale one, on the first."""
        if self._by_chance is None:
            folder, plan = fresh(self.out / "random"), RANDOM_SMALL if self.small else RANDOM_FULL
            self._by_chance = []
            for seed, combination in enumerate((MAIN,) if self.small else COMBINATIONS, start=1):
                self._by_chance.append(self.chance(combination, seed, plan, folder))
        return self._by_chance

    def chance(self, combination: str, seed: int, plan: Plan, folder: Path) -> Chance:
        """One seed on one combination; told and kept."""
        done = play_by_chance(combination, seed, plan, folder, self.say)
        for line in done.lines():
            self.say(line)
        (folder / f"{combination}-{seed}.json").write_text(json.dumps(asdict(done), indent=1))
        return done

    def caught(self) -> tuple[list[Caught], list[PlainRound]]:
        """Mutants, each with the product itself under the same nemesis at full scale, and plain Celery."""
        if self._caught is None:
            folder = fresh(self.out / "mutants")
            servers = self.servers(MAIN)
            modes = (True,) if self.small else (False, True)
            plain = [play_plain(servers, acks_late=late, say=self.say) for late in modes]
            found = []
            for exposure in EXPOSURES:
                if self.small and exposure.mutant not in SMALL_MUTANTS:
                    continue
                one = expose(exposure, servers, folder, self.say, control=not self.small)
                self.say(one.line())
                found.append(one)
            self._caught = (found, plain)
            (folder / "mutants.json").write_text(
                json.dumps(
                    {"mutants": [asdict(one) for one in found], "plain": [asdict(one) for one in plain]}, indent=1
                )
            )
        return self._caught


@cache
def sitting(scale: str) -> Sitting:
    """The one sitting of this process at a scale; its servers end with the process."""
    return Sitting(scale, say=lambda text: print(f"{time.strftime('%H:%M:%S')} {text}", flush=True))


def fresh(folder: Path) -> Path:
    """An empty folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def added(verdicts: Sequence[Verdict]) -> dict[str, int]:
    """Violations by kind over several verdicts."""
    return {kind: sum(verdict.counts[kind] for verdict in verdicts) for kind in KINDS}
