"""What is around a body while it runs: where its output goes, and how it can be ended.

In a pool process standard output is the body's alone, and whoever ends the body kills the process. In a thread of the
worker's own process streams are shared (`job.StreamOfThreads` sorts them out), and a body of Python code can be
interrupted; shell commands and HTTP requests look by themselves whether they should stop, and clean up as they end.
"""

from __future__ import annotations

import contextlib
import sys
import traceback
from typing import Final, Protocol, Self

from django.db import connections

from tasks_app.messages.execution import HTTP_FUNCTION, SHELL_FUNCTION
from tasks_app.states import Outcome
from workers_app.execution import outcome
from workers_app.execution.interruption import Body, Interruption
from workers_app.execution.outcome import BodyEnd
from workers_app.execution.registry import Record
from workers_app.job import StreamToJob

#: They end by themselves, at once and with everything that they hold.
_END_BY_THEMSELVES: Final = frozenset({SHELL_FUNCTION, HTTP_FUNCTION})


class Surroundings(Protocol):
    """For one body."""

    def __enter__(self) -> Self:
        """The body begins."""

    def __exit__(self, *_: object) -> None:
        """It has ended."""

    def judged(self, end: BodyEnd, record: Record, error: BaseException | None = None) -> BodyEnd:
        """What its end counts as. error: what passed through Celery's tracing."""


class OfProcess:
    """In a pool process."""

    def __enter__(self) -> Self:
        self._before = sys.stdout, sys.stderr
        sys.stdout, sys.stderr = StreamToJob("stdout"), StreamToJob("stderr")
        return self

    def __exit__(self, *_: object) -> None:
        sys.stdout, sys.stderr = self._before

    def judged(self, end: BodyEnd, _record: Record, _error: BaseException | None = None) -> BodyEnd:
        """As it is: one that is ended by the platform says nothing any more."""
        return end


class OfThread:
    """In a thread of the worker's own process."""

    def __init__(self, nonce: bytes, celery_id: str, function: str) -> None:
        """celery_id: of the delivery."""
        self._body = None if function in _END_BY_THEMSELVES else Body(nonce, celery_id)

    def __enter__(self) -> Self:
        if self._body is not None:
            self._body.__enter__()
        return self

    def __exit__(self, *info: object) -> None:
        if self._body is not None:
            self._body.__exit__(*info)
            if self._body.interrupted:
                _forget_connections()

    def judged(self, end: BodyEnd, record: Record, error: BaseException | None = None) -> BodyEnd:
        """By the reason for which it was interrupted, unless it ended well all the same."""
        reason = record.stop_reason()
        if self._body is None or not self._body.interrupted or end.outcome is not Outcome.FAILED or reason is None:
            return end
        was_at = "".join(traceback.format_tb(error.__traceback__)) if isinstance(error, Interruption) else ""
        return outcome.stopped_by(reason, was_at or end.error_message)


def _forget_connections() -> None:
    """What was interrupted in the midst of a query or of a transaction's begin is of no use to the next body."""
    for wrapper in connections.all(initialized_only=True):
        with contextlib.suppress(Exception):
            wrapper.close()
        del connections[wrapper.alias]


def around(one_process: bool, nonce: bytes, celery_id: str, function: str) -> Surroundings:
    """The surroundings of one body."""
    return OfThread(nonce, celery_id, function) if one_process else OfProcess()
