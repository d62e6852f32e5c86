"""docs/benchmarks.md from the figures. Nothing is written there by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from tests.benchmarks import claims
from tests.benchmarks.figures import Spread, ratios, spread

_HEAD = """# What Signalbox costs

Written by `make bench`; raw figures: `{raw}` after a run of your own.
Commit {commit}, {at}, scale {scale}: {rounds} rounds, {runs:,} runs a contender in each, {slots} prefork slots.

{versions}

## How to read it

* Bodies do nothing but write down that they started: this is the price of the way, not of the work. A body that
  takes 100 ms leaves little of these differences.
* Every contender ran once in each round, in an order that rotates. Machines are shared and drift: compare
  inside a row's own round, as the ratio columns do, and take absolute figures as ± 30 %. Figures are medians
  over the rounds, [least–greatest].
* *End to end* is from the first submit until the last run is final where that contender keeps its truth: the
  body's own record for bare Celery, the database's row for the others.
* *CPU* and *memory* are those of all processes that a contender needs: client, worker with its pool,
  Signalbox's dispatcher, ingest and guardian, the broker, and PostgreSQL (fully durable) where it is used. Memory
  is the highest sum of proportional set sizes (PSS), seen once a second.
* Same RabbitMQ, classic durable queues, persistent messages; same Redis, for the stock transport and for redis-stream
  alike, an append-only file that is synced every second. Prefork, early acknowledgement, prefetch 4. Bare Celery sends
  no events and logs from WARNING on; Signalbox is as shipped: signed messages, events on, JSON logs to a file, confirms
  awaited.
* On RabbitMQ two kinds of bare Celery stand beside Signalbox, and each ratio says to which it is. *With confirms*
  Celery awaits one for each message, Signalbox for a batch: that is what each offers. *Without*, as it comes, Celery
  may lose what it accepted. On Redis the answer to a command is the confirm: there is only one kind.
* *Others* is the share of the machine's processors that went to anything else meanwhile, the harness included: above
  a tenth, take the figures with care; above a third they say little.
* django-celery-results tracks starts. *Connections kept* uses a setting that is not documented and helps it;
  *as it comes* connects for each task.
"""


def page(figures: Mapping[str, Any]) -> str:
    """The whole page, Markdown."""
    parts = [_head(figures)]
    for part in _SECTIONS:
        if figures.get(part.key):
            parts += [_throughput(figures, part), _roles(figures, part), _latency(figures, part)]
    if figures.get("rates"):
        parts.append(_rates(figures))
    parts.append(_bars(figures))
    if figures.get("profile"):
        parts.append(_profile(figures["profile"]))
    return "\n".join(parts)


def _head(figures: Mapping[str, Any]) -> str:
    means = figures["scale_means"]
    return _HEAD.format(
        raw=f"build/bench/{figures['scale']}*.json", commit=figures["commit"], at=figures["at"], scale=figures["scale"],
        rounds=means["rounds"], runs=means["runs"], slots=2,
        versions=" · ".join(f"{name} {text}" for name, text in figures["versions"].items()),
    )  # fmt: skip


class Section(NamedTuple):
    """Rounds among contenders of one kind of broker, and who of them ratios are to: contender → words in a head."""

    key: str
    title: str
    bases: Mapping[str, str]
    #: Ours that were also given runs one by one: contender → title.
    singles: Mapping[str, str]


_SECTIONS: Final = (
    Section(
        "rounds", "RabbitMQ",
        {claims.BARE: "Celery with confirms", claims.UNCONFIRMED: "Celery without"},
        {claims.OURS: "Signalbox, submitted one by one"},
    ),
    Section(
        "redis", "Redis",
        {claims.BARE_REDIS: "Celery on stock Redis", claims.BARE_STREAM: "Celery on redis-stream"},
        {
            claims.OURS_REDIS: "Signalbox, stock Redis, submitted one by one",
            claims.OURS_STREAM: "Signalbox, redis-stream, submitted one by one",
        },
    ),
)  # fmt: skip


def _names(figures: Mapping[str, Any], part: Section) -> list[str]:
    first = figures[part.key][0]
    return [name for name in figures["titles"] if name in first]


def _column(rounds: claims.Rounds, name: str, of: str, key: str) -> list[float]:
    return [one[name][of][key] for one in rounds]


def _over(rounds: claims.Rounds, name: str, of: str, base: str, key: str) -> str:
    if base not in rounds[0]:
        return "–"
    return ratios(_column(rounds, name, of, key), _column(rounds, base, "load", key)).text(2)


def _throughput(figures: Mapping[str, Any], part: Section) -> str:
    rounds: claims.Rounds = figures[part.key]
    rows = [_row(rounds, part, name, "load", figures["titles"][name]) for name in _names(figures, part)]
    rows += [
        _row(rounds, part, name, "single", title) for name, title in part.singles.items() if name in rounds[0]
    ]  # fmt: skip
    head = [
        "", "end to end, runs/s", "submit, runs/s", *(f"÷ {base}" for base in part.bases.values()), "CPU s/1,000",
        *(f"CPU ÷ {base}" for base in part.bases.values()), "memory, MiB", "others",
    ]  # fmt: skip
    return f"## {part.title}: throughput, CPU, memory\n\n" + table(head, rows)


def _row(rounds: claims.Rounds, part: Section, name: str, of: str, title: str) -> list[str]:
    load = {
        key: spread(_column(rounds, name, of, key))
        for key in ("per_second", "submits_per_second", "cpu_per_thousand", "peak_mib", "others")
    }
    rates, cpu = (
        [_over(rounds, name, of, base, key) for base in part.bases] for key in ("per_second", "cpu_per_thousand")
    )
    return [
        title, load["per_second"].text(), load["submits_per_second"].text(), *rates, load["cpu_per_thousand"].text(2),
        *cpu, load["peak_mib"].text(), _percent(load["others"]),
    ]  # fmt: skip


def _percent(share: Spread) -> str:
    return f"{share.median:.0%} [{share.low:.0%}–{share.high:.0%}]"


def _roles(figures: Mapping[str, Any], part: Section) -> str:
    roles = ("client", "worker", "dispatcher", "ingest", "broker", "database")
    rows = []
    for name in _names(figures, part):
        loads = [one[name]["load"] for one in figures[part.key]]
        cells = []
        for role in roles:
            values = [load["cpu_seconds"].get(role, 0.0) / load["runs"] * 1000 for load in loads]
            cells.append(f"{spread(values).median:.2f}" if any(values) else "–")
        rows.append([figures["titles"][name], *cells])
    return "Where the CPU goes, seconds for 1,000 runs (medians):\n\n" + table(["", *roles], rows)


def _latency(figures: Mapping[str, Any], part: Section) -> str:
    rounds, names = figures[part.key], _names(figures, part)
    if "latency_ms" not in rounds[0][names[0]]:
        return ""
    rows = [
        [
            figures["titles"][name],
            *(spread(_column(rounds, name, "latency_ms", q)).text(1) for q in ("p50", "p95", "p99")),
        ]
        for name in names
    ]
    means = figures["scale_means"]
    text = (
        f"## {part.title}: from the call to the body's start, idle\n\nmilliseconds, {means['calls']} calls a round, "
        f"{means['calls_per_second']:g} a second; Signalbox's call is `services.trigger`, its commit included.\n\n"
    )
    return text + table(["", "p50", "p95", "p99"], rows)


def _rates(figures: Mapping[str, Any]) -> str:
    rates = figures["rates"]
    rows = []
    for step, batch in (("claim", rates["claim_batch"]), ("ingest", rates["ingest_batch"])):
        for level in rates["levels"]:
            ours, bare = level[step]["ours"], level[step]["bare"]
            rows.append(
                [
                    f"{step}, {batch} a batch", f"{level['pending']:,}", spread(ours).text(), spread(bare).text(),
                    ratios(ours, bare).text(2),
                ]
            )  # fmt: skip
    return (
        "## One dispatcher, one ingest: rows a second\n\n"
        "In turns with a loop of bare psycopg that writes the same rows in as few statements (UPDATE … RETURNING "
        "over SKIP LOCKED; UPDATE from unnest and COPY), begun with ready values. Ours counts queues, credit and "
        "blockers, and checks signatures and every field of a report.\n\n"
    ) + table(["", "pending", "Signalbox", "bare loop", "ratio"], rows)


def _bars(figures: Mapping[str, Any]) -> str:
    rows = []
    for claim in claims.CLAIMS:
        judge: Callable[[claims.Figures], tuple[float, str]] = claims.judge_of(claim)
        try:
            value, _ = judge(figures)
        except KeyError:
            continue
        rows.append([f"`{claim.id}`", f"{value:.2f}", claim.unit, claim.bar, "yes" if claim.holds(value) else "**no**"])
    return "## Bars\n\n" + table(["claim", "value", "unit", "bar", "holds"], rows)


def _profile(profile: Mapping[str, Any]) -> str:
    text = (
        f"{profile['title']}: a load of its own with py-spy on each process, {profile['runs']:,} runs. *Busy* is the "
        "share of the load in which the process had a thread that held the interpreter; below are shares of that time: "
        "by function, and in or below functions of Signalbox.\n"
    )
    parts = ["## What limits it\n", text]
    for role, found in profile["processes"].items():
        below = dict(enumerate(found["below"]))
        rows = []
        for index, (name, share) in enumerate(found["self"]):
            other = below.get(index)
            rows.append([f"{share:.1%}", f"`{name}`", *([f"{other[1]:.1%}", f"`{other[0]}`"] if other else ["", ""])])
        parts.append(
            f"### {role}: busy {found['busy']:.0%}\n\n" + table(["self", "function", "in or below", "function"], rows)
        )
    return "\n".join(parts)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table with a line after it."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"
