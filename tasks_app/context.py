"""The ids of what a process is busy with, for its log lines.

    with bind(run_id=7, attempt=2):
        logger.info("run started")      # carries run_id and attempt

A contextvar, so threads and asynchronous code keep theirs apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any

_EMPTY: Mapping[str, Any] = MappingProxyType({})
_ids: ContextVar[Mapping[str, Any]] = ContextVar("signalbox_ids", default=_EMPTY)


@contextmanager
def bind(**ids: Any) -> Iterator[None]:
    """Lay these ids over the present ones until the block ends; None takes one away."""
    merged = {**_ids.get(), **ids}
    token = _ids.set(MappingProxyType({key: value for key, value in merged.items() if value is not None}))
    try:
        yield
    finally:
        _ids.reset(token)


def current() -> Mapping[str, Any]:
    """The ids that are bound here; read only."""
    return _ids.get()
