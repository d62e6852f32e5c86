"""Text for people that a pure module writes and an outer face may say in another language. Pure."""

from __future__ import annotations

from typing import Any, Self


def line_of_error(text: str) -> str:
    """The line of an error that says most: the last one of a traceback, else the first; empty where there is none."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        return ""
    return lines[-1] if lines[0].startswith("Traceback") else lines[0]


def encodable(text: str) -> bool:
    """Whether it is Unicode text that can be stored and sent: no half of a surrogate pair."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


class Text(str):
    """An English text that remembers its template and values.

    `Text("at most %(limit)s characters", limit=200)` is the string "at most 200 characters"; a face looks
    `template` up in its catalogue and puts `values` in again.
    """

    template: str
    values: dict[str, Any]

    __slots__ = ("template", "values")

    def __new__(cls, template: str, **values: Any) -> Self:
        """Fill the template, in %-style, with the values."""
        made = super().__new__(cls, template % values if values else template)
        made.template, made.values = template, values
        return made
