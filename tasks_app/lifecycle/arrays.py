"""Columns as PostgreSQL array literals. Pure.

psycopg can make arrays of lists, value by value in Python with a regular expression for each text: that was half of the
ingest's time. A column holds values of one type, so one look decides how all of them are written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID


def array_literal(values: Sequence[Any]) -> str:
    """`{…}` of values that are None or of one type: text, bool, int, float, UUID or datetime. Raises TypeError."""
    written = _writer(next((value for value in values if value is not None), None))
    return "{" + ",".join(["NULL" if value is None else written(value) for value in values]) + "}"


def column_arrays(rows: Sequence[Sequence[Any]]) -> list[str]:
    """The columns of the rows, each as an array literal: the parameters of a statement that unnests them."""
    return [array_literal(column) for column in zip(*rows, strict=True)]


def _writer(sample: object) -> Callable[[Any], str]:
    if sample is None or isinstance(sample, str):
        return _quoted
    if isinstance(sample, bool):
        return _flag
    if isinstance(sample, int | float | UUID):
        return str
    if isinstance(sample, datetime):
        return datetime.isoformat
    raise TypeError(f"no array of {type(sample).__name__}")


def _quoted(text: str) -> str:
    if "\\" in text or '"' in text:
        text = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'


def _flag(value: bool) -> str:
    return "t" if value else "f"
