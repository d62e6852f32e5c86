"""Which functions a python task may name.

This package knows neither Celery nor the workers. Whoever knows registered functions offers a source here
(the composition root does, at start); without any source nothing is refused, and an unknown function becomes
a failed run.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tasks_app.text import Text

Source = Callable[[], Iterable[str]]

_sources: list[Source] = []


def offer(source: Source) -> None:
    """Ask this source, too, from now on.

    It answers names of registered functions, from memory or with one query.
    """
    if source not in _sources:
        _sources.append(source)


def function_problems(parameters: Mapping[str, Any]) -> list[str]:
    """What is wrong with the function that a python task's parameters name; sources are asked in turn."""
    function = parameters.get("function")
    known: set[str] = set()
    for source in _sources:
        names = set(source())
        if function in names:
            return []
        known |= names
    if not _sources:
        return []
    near = difflib.get_close_matches(str(function)[:200], sorted(known), n=1)
    if near:
        return [
            Text(
                'no function is registered as "%(given)s"; did you mean "%(near)s"?',
                given=str(function)[:200],
                near=near[0],
            )
        ]
    return [
        Text(
            'no function is registered as "%(given)s"; its module must be on the list of imports',
            given=str(function)[:200],
        )
    ]
