"""Rows as a table, JSON, YAML or names.

A table is cut to the terminal's width; anywhere else (a pipe, a file) nothing is ever cut.
"""

from __future__ import annotations

import json
import os
import shutil
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, Final

import yaml

FORMATS: Final = ("table", "json", "yaml", "name")

_COLOURS: Final = {
    "COMPLETED": "32", "ONLINE": "32", "RUNNING": "36", "DISPATCHED": "36", "FAILED": "31", "TIMEOUT": "31",
    "LOST": "31", "QUARANTINED": "35", "CANCELLED": "33", "SKIPPED": "33", "PAUSED": "33", "DRAINING": "33",
    "SUSPECT": "33",
}  # fmt: skip


def plain(value: Any) -> Any:
    """The value as JSON knows it: what serializers answer has types of its own."""
    return json.loads(json.dumps(value, default=str, ensure_ascii=False))


def rendered(data: Any, *, form: str, columns: Sequence[str], name: str, terminal: bool) -> str:
    """The text for one object or a list of objects.

    columns: what a table of a list shows. name: the key that `-o name` shows. A single object's table is a line a key.
    """
    data = plain(data)
    if form == "json":
        return json.dumps(data, indent=2, ensure_ascii=False)
    if form == "yaml":
        text: str = yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=2**31)
        return text.rstrip("\n")
    rows = data if isinstance(data, list) else [data]
    if form == "name":
        return "\n".join(_cell(row.get(name)) for row in rows)
    width = shutil.get_terminal_size().columns if terminal else None
    colour = terminal and not os.environ.get("NO_COLOR")
    if isinstance(data, list):
        return table([[_cell(row.get(key)) for key in columns] for row in rows], columns, width=width, colour=colour)
    return _record(data, width=width, colour=colour)


def table(cells: Sequence[Sequence[str]], columns: Sequence[str], *, width: int | None, colour: bool) -> str:
    """Columns side by side; the last one may be as long as it likes."""
    header = [column.upper().replace("_", " ") for column in columns]
    widths = [max(_width(row[i]) for row in [header, *cells]) for i in range(len(columns))]
    lines = []
    for row in [header, *cells]:
        padded = [cell + " " * (widths[i] - _width(cell)) for i, cell in enumerate(row)]
        line = _cut("  ".join(padded).rstrip(), width)
        lines.append(_painted(line, row) if colour else line)
    return "\n".join(lines)


def _record(row: Mapping[str, Any], *, width: int | None, colour: bool) -> str:
    longest = max((len(key) for key in row), default=0)
    lines = []
    for key, value in row.items():
        cell = _cell(value)
        line = _cut(f"{key:<{longest}}  {cell}".rstrip(), width)
        lines.append(_painted(line, [cell]) if colour else line)
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict | list):
        value = json.dumps(value, ensure_ascii=False)
    return "".join(char if char.isprintable() else " " for char in str(value))


def _width(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)


def _cut(line: str, width: int | None) -> str:
    if width is None or _width(line) <= width:
        return line
    while _width(line) > width - 1:
        line = line[:-1]
    return line + "…"


def _painted(line: str, cells: Sequence[str]) -> str:
    for cell in cells:
        if cell in _COLOURS:
            return line.replace(cell, f"\x1b[{_COLOURS[cell]}m{cell}\x1b[0m", 1)
    return line
