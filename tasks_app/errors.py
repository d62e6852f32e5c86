"""Errors of the domain. The class docstring is the message and `code` never changes.

Only `scheduler_project.api.errors` knows which HTTP status an error becomes.
"""

from __future__ import annotations

from typing import Any

from django.utils.translation import gettext_noop


class SignalboxError(Exception):
    """Base of every error that a user may see: a stable code, a message, and details for a machine."""

    code = "signalbox.error"
    message = gettext_noop("The request could not be carried out.")

    def __init__(self, message: str | None = None, **details: Any) -> None:
        """`message` replaces the class's own text; `details` are safe to show (ids, names, limits)."""
        self.detail = message or self.message
        self.details = details
        super().__init__(self.detail)


class NotFound(SignalboxError):
    """There is nothing with that id or name."""

    code = "not_found"
    message = gettext_noop("There is nothing with that id or name.")


class TaskNotFound(NotFound):
    """There is no such task."""

    code = "task.not_found"
    message = gettext_noop("There is no such task.")


class RunNotFound(NotFound):
    """There is no such run."""

    code = "run.not_found"
    message = gettext_noop("There is no such run.")


class InvalidTask(SignalboxError):
    """The task's definition is not valid. `problems` maps a field to its messages."""

    code = "task.invalid"
    message = gettext_noop("The task's definition is not valid.")

    def __init__(self, problems: dict[str, list[str]]) -> None:
        """Keep the problems by field; the first one becomes part of the message."""
        self.problems = problems
        first = next(iter(problems.items()))
        super().__init__(f"{first[0]}: {first[1][0]}")


class InvalidParameters(InvalidTask):
    """The parameters are not valid for this executor."""

    code = "run.invalid_parameters"


class DuplicateTask(SignalboxError):
    """A task of that name exists already."""

    code = "task.duplicate"
    message = gettext_noop("A task of that name exists already.")


class EditConflict(SignalboxError):
    """Somebody else changed this in the meantime; load it again."""

    code = "task.edit_conflict"
    message = gettext_noop("Somebody else changed this in the meantime; load it again.")


class BacklogFull(SignalboxError):
    """The backlog is full; nothing was accepted. Try again later."""

    code = "backlog.full"
    message = gettext_noop("The backlog is full; nothing was accepted. Try again later.")

    def __init__(self, *, scope: str, pending: int, limit: int, retry_after_seconds: int) -> None:
        """`scope` is "global" or a task type; retry_after_seconds is a hint for the client."""
        self.retry_after_seconds = retry_after_seconds
        super().__init__(None, scope=scope, pending=pending, limit=limit)


class StaleTransition(SignalboxError):
    """The run is no longer in a state that allows this."""

    code = "run.stale_transition"
    message = gettext_noop("The run is no longer in a state that allows this.")


class InvalidSearch(SignalboxError):
    """The search cannot be understood. `term` is the part that is wrong, `suggestion` what may have been meant."""

    code = "search.invalid"
    message = gettext_noop("The search cannot be understood.")

    def __init__(self, term: str, problem: str, *, suggestion: str = "") -> None:
        """Keep the term, what is wrong with it, and what it may have been meant to be."""
        self.term, self.suggestion = term, suggestion
        super().__init__(problem, term=term)


class MessageRefused(SignalboxError):
    """A message from the broker is not one of ours, not intact, or of a version that is not known here."""

    code = "message.refused"
    message = gettext_noop("The message was refused.")
