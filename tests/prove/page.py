"""docs/claims.md from build/prove.json: pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

_HEAD: Final = """# Claims

Made by `make prove` from `build/prove.json`; do not edit. Each line is a figure that a plain test cannot hold: how it
came out, its bar, and whether it holds. The raw evidence lies under the path in the last column, on the machine that
measured. `make prove ONLY=spine.` measures a part, `SCALE=small` is a quick look that leaves this page alone.
"""


def page(proof: Mapping[str, Any]) -> str:
    """The page."""
    claims: Sequence[Mapping[str, Any]] = proof["claims"]
    measured = (
        f"Measured on commit `{proof['commit']}` at {proof['scale']} scale in {proof['seconds']:.0f} s; "
        f"{sum(bool(claim['holds']) for claim in claims)} of {len(claims)} hold."
    )
    lines = [
        _HEAD,
        measured,
        "",
        "| claim | holds | value | unit | bar | evidence |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| `{claim['id']}` | {'yes' if claim['holds'] else '**no**'} | {_figure(claim['value'])} | {claim['unit']} | "
        f"{claim['bar']} | `{claim['evidence']}` |"
        for claim in claims
    ]
    lines += ["", "## What each figure stands for", ""]
    lines += [f"* `{claim['id']}`: {_plain(claim['detail'])}" for claim in claims]
    return "\n".join([*lines, ""])


def _figure(value: Any) -> str:
    return "–" if value is None else value if isinstance(value, str) else f"{value:.4g}"


def _plain(text: str) -> str:
    return " ".join(text.replace("|", "/").split())
