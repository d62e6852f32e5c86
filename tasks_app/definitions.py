"""A task's definition as one value, and what can be wrong with it. Pure but for the text of messages."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from tasks_app import http_parameters, shell_parameters
from tasks_app import parameters as rules
from tasks_app.errors import InvalidTask
from tasks_app.text import Text

EXECUTORS: Final = ("python", "shell", "http")
TIMEOUT_SECONDS_MAX: Final = 30 * 24 * 3600
RETRIES_MAX: Final = 1000
EVERY_SECONDS_MIN: Final = 1.0
EVERY_SECONDS_MAX: Final = 366 * 24 * 3600
#: Above this an interval is whole seconds: django-celery-beat keeps fractions as microseconds in 32 bits.
FRACTIONS_BELOW_SECONDS: Final = 2000.0
DESCRIPTION_LENGTH_MAX: Final = 10_000
#: Part of the interface, and not accepted yet. Empty values are taken for absent.
NOT_YET: Final = ("schedule", "timezone", "dependencies")


@dataclass(frozen=True)
class TaskDefinition:
    """Everything that an edit can change. every_seconds and run_at are the schedule: at most one of them."""

    name: str
    executor: str
    task_type: str = "default"
    description: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    timeout_seconds: int = 3600
    max_retries: int = 3
    retry_delay_seconds: float = 5.0
    retry_delay_cap_seconds: float = 3600.0
    priority: int = 5
    quarantine_after: int = 3
    keep_running: bool = False
    every_seconds: float | None = None
    run_at: datetime | None = None

    def columns(self) -> dict[str, Any]:
        """The fields that are columns of Task."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        del values["every_seconds"], values["run_at"]
        values["parameters"] = dict(self.parameters)
        return values

    def as_json(self) -> dict[str, Any]:
        """The whole definition as a JSON object, for a TaskVersion."""
        return self.columns() | {
            "every_seconds": self.every_seconds,
            "run_at": self.run_at.isoformat() if self.run_at else None,
        }


FIELDS: Final = tuple(f.name for f in dataclasses.fields(TaskDefinition))


def definition_from(
    values: Mapping[str, Any], *, base: TaskDefinition | None = None, ignored: Iterable[str] = ()
) -> TaskDefinition:
    """A definition from plain values, as JSON brings them; `run_at` is a text in ISO 8601 with its offset.

    With `base` only the given fields change. `ignored` fields may be there and mean nothing. Raises
    InvalidTask for unknown fields (with the nearest known one), for fields that are not accepted yet and for
    missing ones. Whether the values make sense is said by `problems_of`.
    """
    problems: dict[str, list[str]] = {}
    given: dict[str, Any] = {}
    skipped = set(ignored)
    for key, value in values.items():
        if key in FIELDS:
            given[key] = value
        elif key in NOT_YET:
            if value not in (None, "", [], {}):
                problems[key] = [Text("is not accepted yet; use every_seconds or run_at")]
        elif key not in skipped:
            problems[str(key)[:100]] = [unknown_field(key, FIELDS)]
    if isinstance(given.get("run_at"), str):
        try:
            given["run_at"] = datetime.fromisoformat(given["run_at"])
        except ValueError:
            problems["run_at"] = [Text("must be a time in ISO 8601 with its offset, as 2030-01-31T08:00:00+00:00")]
    if base is None:
        for key in ("name", "executor"):
            if key not in given:
                problems[key] = [Text("is needed")]
    if problems:
        raise InvalidTask(problems)
    return dataclasses.replace(base, **given) if base is not None else TaskDefinition(**given)


def unknown_field(key: object, known: Iterable[str]) -> Text:
    """What to say about a field that is not known."""
    names = sorted(known)
    near = difflib.get_close_matches(str(key)[:100], names, n=1)
    if near:
        return Text('unknown field; did you mean "%(near)s"?', near=near[0])
    return Text("unknown field; known: %(known)s", known=", ".join(names))


def problems_of(definition: TaskDefinition, *, parameters_bytes_max: int) -> dict[str, list[str]]:
    """Everything that is wrong with a definition, by field; empty when it can be saved."""
    found: dict[str, list[str]] = {
        "name": rules.name_problems(definition.name),
        "task_type": rules.task_type_problems(definition.task_type),
        "executor": [],
        "parameters": rules.json_problems(definition.parameters, bytes_max=parameters_bytes_max),
        "description": rules.text_problems(definition.description, length_max=DESCRIPTION_LENGTH_MAX),
        "timeout_seconds": _whole(definition.timeout_seconds, 1, TIMEOUT_SECONDS_MAX),
        "max_retries": _whole(definition.max_retries, 0, RETRIES_MAX),
        "priority": _whole(definition.priority, 0, 9),
        "quarantine_after": _whole(definition.quarantine_after, 1, 100),
        "retry_delay_seconds": _number(definition.retry_delay_seconds, 0, 24 * 3600),
        "retry_delay_cap_seconds": _number(definition.retry_delay_cap_seconds, 0, 30 * 24 * 3600),
        "keep_running": _flag(definition.keep_running),
        "every_seconds": _every_problems(definition.every_seconds),
        "run_at": _run_at_problems(definition),
    }
    if definition.executor not in EXECUTORS:
        found["executor"].append(_unknown_executor(definition.executor))
    elif not found["parameters"]:
        found["parameters"] = executor_problems(definition.executor, definition.parameters)
    delays_known = not found["retry_delay_seconds"] and not found["retry_delay_cap_seconds"]
    if delays_known and definition.retry_delay_cap_seconds < definition.retry_delay_seconds:
        found["retry_delay_cap_seconds"].append(Text("must not be below retry_delay_seconds"))
    return {name: problems for name, problems in found.items() if problems}


def executor_problems(executor: str, parameters: Mapping[str, Any]) -> list[str]:
    """What is wrong with an executor's own parameters."""
    return _CHECKS[executor](parameters) if executor in _CHECKS else [_unknown_executor(executor)]


def _unknown_executor(executor: object) -> Text:
    return Text("unknown executor %(given)s; known: %(known)s", given=repr(executor)[:60], known=", ".join(EXECUTORS))


def _every_problems(every: object) -> list[str]:
    if every is None:
        return []
    problems = _number(every, EVERY_SECONDS_MIN, EVERY_SECONDS_MAX)
    if not problems and isinstance(every, float) and every > FRACTIONS_BELOW_SECONDS and not every.is_integer():
        return [Text("whole seconds, where it is above %(limit)s", limit=int(FRACTIONS_BELOW_SECONDS))]
    return problems


def _run_at_problems(definition: TaskDefinition) -> list[str]:
    at: object = definition.run_at
    if at is None:
        return []
    if not isinstance(at, datetime):
        return [Text("must be a time in ISO 8601 with its offset, as 2030-01-31T08:00:00+00:00")]
    if definition.every_seconds is not None:
        return [Text("give either an interval or a time, not both")]
    if at.tzinfo is None:
        return [Text("needs a UTC offset")]
    return [] if 1970 < at.year < 9000 else [Text("is not a time that can be waited for")]


def _python_problems(parameters: Mapping[str, Any]) -> list[str]:
    problems = _unknown_keys(parameters, {"function", "args", "kwargs"})
    function = parameters.get("function")
    if not isinstance(function, str) or not function:
        problems.append(Text('"function" must name a registered Celery task'))
    if not isinstance(parameters.get("args", []), list):
        problems.append(Text('"%(key)s" must be a list', key="args"))
    if not isinstance(parameters.get("kwargs", {}), Mapping):
        problems.append(Text('"%(key)s" must be an object', key="kwargs"))
    return problems


_CHECKS: Final = {
    "python": _python_problems,
    "shell": shell_parameters.check_parameters,
    "http": http_parameters.check_parameters,
}


def _unknown_keys(parameters: Mapping[str, Any], known: set[str]) -> list[str]:
    return [
        Text(
            "unknown parameter %(given)s; known: %(known)s",
            given=repr(key)[:100],
            known=", ".join(sorted(known)),
        )
        for key in parameters
        if key not in known
    ]


def _whole(value: object, low: int, high: int) -> list[str]:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        return [
            Text(
                "a whole number from %(low)s to %(high)s, not %(given)s",
                low=low,
                high=high,
                given=_short(value),
            )
        ]
    return []


def _flag(value: object) -> list[str]:
    return [] if isinstance(value, bool) else [Text("must be true or false")]


def _number(value: object, low: float, high: float) -> list[str]:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        return [Text("a number from %(low)s to %(high)s, not %(given)s", low=low, high=high, given=_short(value))]
    return []


def _short(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10**18:
        return "a number of more than 18 digits"
    return repr(value)[:60]
