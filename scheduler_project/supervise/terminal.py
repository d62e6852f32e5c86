"""What the user sees: a line at a time, each with the name of who said it."""

from __future__ import annotations

import itertools
import os
import sys
from typing import TextIO

_COLOURS = itertools.cycle((36, 33, 35, 32, 34, 96, 93, 95))
_GOOD, _BAD, _DIM = 32, 31, 2


class Terminal:
    """Prefixed lines; in colour on a terminal, unless NO_COLOR is set to anything."""

    def __init__(self, output: TextIO | None = None, *, width: int = 10) -> None:
        self.output = output or sys.stdout
        self.width = width
        self.coloured = self.output.isatty() and not os.environ.get("NO_COLOR")
        #: Set once nobody reads any more (`make run | head`): then it is time to end.
        self.broken = False
        self._colours: dict[str, int] = {}

    def line(self, name: str, text: str) -> None:
        """What a role printed."""
        colour = self._colours.get(name) or self._colours.setdefault(name, next(_COLOURS))
        self._write(f"{self._paint(f'{name:<{self.width}} |', colour)} {_printable(text)}")

    def say(self, text: str = "") -> None:
        """What the supervisor has to say."""
        self._write(text)

    def good(self, text: str) -> None:
        """A line of the checklist."""
        self._write(f"{self._paint(self._mark('✓', '+'), _GOOD)} {text}")

    def bad(self, text: str) -> None:
        """Something that went wrong."""
        self._write(f"{self._paint(self._mark('✗', 'x'), _BAD)} {text}")

    def note(self, text: str) -> None:
        """Something that goes on."""
        self._write(f"{self._paint(self._mark('·', '-'), _DIM)} {text}")

    def _mark(self, sign: str, plain: str) -> str:
        try:
            sign.encode(self.output.encoding or "ascii")
        except UnicodeEncodeError:
            return plain
        return sign

    def _paint(self, text: str, colour: int) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self.coloured else text

    def _write(self, text: str) -> None:
        if self.broken:
            return
        encoding = self.output.encoding or "ascii"
        try:
            self.output.write(text.encode(encoding, "replace").decode(encoding) + "\n")
            self.output.flush()
        except (OSError, ValueError):
            self.broken = True


def _printable(text: str) -> str:
    # A job's output may hold anything; escape sequences in it must not drive the user's terminal.
    plain = _without_colour(text)
    return "".join(c if c.isprintable() or c == "\t" else "\N{REPLACEMENT CHARACTER}" for c in plain)


def _without_colour(text: str) -> str:
    while (start := text.find("\x1b[")) >= 0:
        end = start + 2
        while end < len(text) and not text[end].isalpha():
            end += 1
        text = text[:start] + text[end + 1 :]
    return text
