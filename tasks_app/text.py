"""Text for people that a pure module writes and an outer face may say in another language. Pure."""

from __future__ import annotations

from typing import Any, Self


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
