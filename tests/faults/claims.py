"""The claims about faults, with their bars: `CLAIMS` is what the registry takes. All share one sitting.

Each is a pure judgement of what the sitting found (`*_value`), so that a test can make it fail.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from tests.faults.chance import Chance, table
from tests.faults.nemeses import Round
from tests.faults.sitting import CellsResult, added, sitting
from tests.prove.claim import Claim, Measured

#: Bars that depend on settings are given in the claim's own unit: seconds beyond the lease and two reaper ticks.
RECOVERY_RUNS_MIN = 4
#: What random mode must have done for its zeros to mean something.
RANDOM_RUNS_MIN, RANDOM_FAULTS_MIN, RANDOM_KINDS_MIN = 20_000, 300, 12


def quantile(values: Sequence[float], q: float) -> float:
    """The nearest-rank quantile; infinite without values, so that an empty measurement never clears a bar."""
    if not values:
        return math.inf
    ordered = sorted(values)
    return ordered[min(len(ordered), max(1, math.ceil(q * len(ordered)))) - 1]


def crashpoints_value(results: Sequence[CellsResult]) -> tuple[float, str]:
    """Violations and cells that did not fire; not a number of nothing when nothing was done."""
    parts = []
    for result in results:
        cells = result.cells.cells
        fired = sum(cell.fired > 0 for cell in cells)
        cannot = sum(bool(cell.impossible) for cell in cells)
        verdicts = list(result.cells.verdicts.values())
        least = min((cell.in_flight for cell in cells if cell.fired), default=0)
        parts.append(
            f"{result.combination}: {fired} cells fired with {least} or more runs in flight, {cannot} cannot be, "
            f"{sum(not cell.holds for cell in cells)} failed; {sum(v.runs for v in verdicts)} runs, "
            f"{sum(v.executions for v in verdicts)} executions, violations {_named(added(verdicts))}"
        )
    if not any(cell.fired for result in results for cell in result.cells.cells):
        return math.inf, "no cell fired"
    return float(sum(result.problems for result in results)), "; ".join(parts)


def nemesis_value(rounds: Sequence[Round]) -> tuple[float, str]:
    """Violations, and rounds that were not done or did not come to rest."""
    if not rounds:
        return math.inf, "no nemesis was done"
    counts = added([one.verdict for one in rounds])
    undone = [one.name for one in rounds if one.problem or not one.settled or not one.verdict.runs]
    overlap = max(one.verdict.overlap_seconds_max for one in rounds)
    again = sum(len(one.verdict.duplicates) for one in rounds)
    detail = (
        f"{len(rounds)} rounds, {sum(one.verdict.runs for one in rounds)} runs, violations {_named(counts)}, "
        f"{again} bodies run again after a lease that was over or a killed child, longest overlap {overlap:.2f} s"
        + (f"; not done or not at rest: {', '.join(undone)}" if undone else "")
    )
    return float(sum(counts.values()) + len(undone)), detail


def emptied_value(done: Round) -> tuple[float, str]:
    """Share of runs that completed in their first attempt, 0 when anything was violated."""
    verdict = done.verdict
    if not done.holds:
        return 0.0, done.line()
    first = verdict.runs - len({text.split()[1] for text in verdict.duplicates}) - verdict.lost_attempts
    return first / verdict.runs, done.line()


def recovery_value(done: Round, lease: float, tick: float) -> tuple[float, str]:
    """p99 of the time from a worker's death to the next start of what it ran, over the lease and two ticks."""
    values = done.verdict.recoveries
    if len(values) < RECOVERY_RUNS_MIN:
        return math.inf, f"{len(values)} recoveries are too few"
    bar = lease + 2 * tick
    return quantile(values, 0.99) - bar, (
        f"p50 {quantile(values, 0.5):.2f} s, p99 {quantile(values, 0.99):.2f} s of {len(values)} recoveries; "
        f"bar {bar:.0f} s: lease {lease:.0f} s and 2 reaper ticks of {tick:.0f} s; {done.line()}"
    )


def random_value(results: Sequence[Chance], *, full: bool) -> tuple[float, str]:
    """Violations, kinds that were done too rarely, and rounds that were not done; not a number of nothing."""
    runs = sum(one.round.verdict.runs for one in results)
    faults = sum(one.faults for one in results)
    kinds = {name for one in results for name, count in one.done.items() if count}
    counts = added([one.round.verdict for one in results])
    undone = [one.combination for one in results if one.round.problem or not one.round.settled]
    missing = [f"{name} on {one.combination}" for one in results for name in one.missing]
    recoveries = [seconds for one in results for seconds in one.round.verdict.recoveries]
    seeds = len({one.seed for one in results})
    parts = [f"{runs} runs, {faults} faults in {len(kinds)} kinds, {seeds} seeds, violations {_named(counts)}"]
    parts += [f"recovery {_recovered(recoveries)}"]
    parts += [
        f"{one.combination} (seed {one.seed}): {one.round.verdict.runs} runs, {one.faults} faults in {len(one.done)} "
        f"kinds, {len(one.impossible)} cannot be, {one.round.verdict.lost_attempts} attempts lost, violations "
        f"{_named(one.round.verdict.counts)}, recovery {_recovered(one.round.verdict.recoveries)}"
        for one in results
    ]
    parts += [f"not done or not at rest: {', '.join(undone)}"] if undone else []
    parts += [f"too few: {', '.join(missing)}"] if missing else []
    detail = "; ".join(parts)
    enough = runs >= RANDOM_RUNS_MIN and faults >= RANDOM_FAULTS_MIN and len(kinds) >= RANDOM_KINDS_MIN
    if not runs or not faults or (full and not enough):
        return math.inf, f"too little for a verdict: {detail}"
    return float(sum(counts.values()) + len(undone) + len(missing)), detail


def _named(counts: dict[str, int]) -> str:
    return ", ".join(f"{kind} {count}" for kind, count in counts.items() if count) or "none"


def _recovered(values: Sequence[float]) -> str:
    return f"p50 {quantile(values, 0.5):.1f} s, p99 {quantile(values, 0.99):.1f} s of {len(values)}"


def _evidence(*parts: str) -> str:
    return str(Path("build/faults").joinpath(*parts))


def _crashpoints(scale: str) -> Measured:
    return Measured(*crashpoints_value(sitting(scale).cells()), _evidence("cells"))


def _nemesis(scale: str) -> Measured:
    return Measured(*nemesis_value(sitting(scale).rounds()), _evidence("nemeses"))


def _emptied(scale: str) -> Measured:
    return Measured(*emptied_value(sitting(scale).emptied()), _evidence("nemeses", "emptied"))


def _recovery(scale: str) -> Measured:
    return Measured(*recovery_value(*sitting(scale).recovery()), _evidence("nemeses", "recovery"))


def _random(scale: str) -> Measured:
    results = sitting(scale).by_chance()
    made = table(results, quantile)
    print(made, flush=True)
    Path(_evidence("random", "table.md")).write_text(made)
    return Measured(*random_value(results, full=scale == "full"), _evidence("random"))


def _mutants(scale: str) -> Measured:
    found, plain = sitting(scale).caught()
    missed = [one.mutant for one in found if not one.holds] + [one.name for one in plain if not one.caught_by]
    told = [f"{one.mutant}: {', '.join(one.caught_by) or 'NOT CAUGHT'}" for one in found]
    told += [f"{one.name}: {', '.join(one.caught_by) or 'NOT CAUGHT'}" for one in plain]
    value = float(len(missed)) if told else math.inf
    return Measured(value, "; ".join(told), _evidence("mutants"))


CLAIMS = [
    Claim("spine.crashpoints", "violations", "0", lambda value: value == 0, _crashpoints),
    Claim("spine.nemesis", "violations", "0", lambda value: value == 0, _nemesis),
    Claim("spine.broker_emptied", "share of runs", "1: all completed at the first attempt", lambda value: value == 1,
          _emptied),
    Claim("spine.recovery", "s beyond lease + 2 ticks (p99)", "at most 0", lambda value: value <= 0, _recovery),
    Claim("faults.random", "violations, and kinds not done", "0, of 20,000 runs and 300 faults",
          lambda value: value == 0, _random),
    Claim("spine.mutants", "mutants not caught", "0", lambda value: value == 0, _mutants),
]  # fmt: skip
