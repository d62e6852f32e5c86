"""A task's definition as one value, and what can be wrong with it. Pure but for the text of messages."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from tasks_app import parameters as rules

EXECUTORS: Final = ("python", "shell")
TIMEOUT_SECONDS_MAX: Final = 30 * 24 * 3600
RETRIES_MAX: Final = 1000
EVERY_SECONDS_MIN: Final = 1.0


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


def problems_of(definition: TaskDefinition, *, parameters_bytes_max: int) -> dict[str, list[str]]:
    """Everything that is wrong with a definition, by field; empty when it can be saved."""
    found: dict[str, list[str]] = {
        "name": rules.name_problems(definition.name),
        "task_type": rules.task_type_problems(definition.task_type),
        "executor": [],
        "parameters": rules.json_problems(definition.parameters, bytes_max=parameters_bytes_max),
        "description": ["NUL characters cannot be stored"] if "\x00" in definition.description else [],
        "timeout_seconds": _whole(definition.timeout_seconds, 1, TIMEOUT_SECONDS_MAX),
        "max_retries": _whole(definition.max_retries, 0, RETRIES_MAX),
        "priority": _whole(definition.priority, 0, 9),
        "quarantine_after": _whole(definition.quarantine_after, 1, 100),
        "retry_delay_seconds": _number(definition.retry_delay_seconds, 0, 24 * 3600),
        "retry_delay_cap_seconds": _number(definition.retry_delay_cap_seconds, 0, 30 * 24 * 3600),
        "every_seconds": [],
        "run_at": [],
    }
    if definition.executor not in EXECUTORS:
        found["executor"].append(f"unknown executor {definition.executor!r}; known: {', '.join(EXECUTORS)}")
    elif not found["parameters"]:
        found["parameters"] = executor_problems(definition.executor, definition.parameters)
    if not found["retry_delay_seconds"] and not found["retry_delay_cap_seconds"]:
        if definition.retry_delay_cap_seconds < definition.retry_delay_seconds:
            found["retry_delay_cap_seconds"].append("must not be below retry_delay_seconds")
    if definition.every_seconds is not None:
        found["every_seconds"] = _number(definition.every_seconds, EVERY_SECONDS_MIN, 366 * 24 * 3600)
        if definition.run_at is not None:
            found["run_at"].append("give either an interval or a time, not both")
    if definition.run_at is not None and definition.run_at.tzinfo is None:
        found["run_at"].append("needs a UTC offset")
    return {name: problems for name, problems in found.items() if problems}


def executor_problems(executor: str, parameters: Mapping[str, Any]) -> list[str]:
    """What is wrong with an executor's own parameters."""
    return _CHECKS[executor](parameters) if executor in _CHECKS else [f"unknown executor {executor!r}"]


def _python_problems(parameters: Mapping[str, Any]) -> list[str]:
    problems = _unknown_keys(parameters, {"function", "args", "kwargs"})
    function = parameters.get("function")
    if not isinstance(function, str) or not function:
        problems.append('"function" must name a registered Celery task')
    if not isinstance(parameters.get("args", []), list):
        problems.append('"args" must be a list')
    if not isinstance(parameters.get("kwargs", {}), Mapping):
        problems.append('"kwargs" must be an object')
    return problems


def _shell_problems(parameters: Mapping[str, Any]) -> list[str]:
    problems = _unknown_keys(parameters, {"argv", "command", "shell", "env", "cwd", "stdin"})
    argv, command = parameters.get("argv"), parameters.get("command")
    if (argv is None) == (command is None):
        problems.append('give either "argv" (a list) or "command" (a text)')
    if argv is not None and not (
        isinstance(argv, list) and argv and all(isinstance(word, str) for word in argv)
    ):
        problems.append('"argv" must be a list of texts with at least one')
    if command is not None:
        problems.extend(_command_problems(command, parameters.get("shell", False)))
    env = parameters.get("env", {})
    if not isinstance(env, Mapping) or not all(
        isinstance(v, str) and k and "=" not in k for k, v in env.items()
    ):
        problems.append('"env" must be an object of texts')
    for key in ("cwd", "stdin"):
        if not isinstance(parameters.get(key, ""), str):
            problems.append(f'"{key}" must be a text')
    return problems


def _command_problems(command: object, shell: object) -> list[str]:
    if not isinstance(shell, bool):
        return ['"shell" must be true or false']
    if not isinstance(command, str) or not command.strip():
        return ['"command" must be a text that is not empty']
    if not shell:
        try:
            shlex.split(command)
        except ValueError as error:
            return [f'"command" cannot be split into words: {error}']
    return []


_CHECKS: Final = {"python": _python_problems, "shell": _shell_problems}


def _unknown_keys(parameters: Mapping[str, Any], known: set[str]) -> list[str]:
    return [
        f"unknown parameter {key!r}; known: {', '.join(sorted(known))}"
        for key in parameters
        if key not in known
    ]


def _whole(value: object, low: int, high: int) -> list[str]:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        return [f"a whole number from {low} to {high}, not {value!r}"[:200]]
    return []


def _number(value: object, low: float, high: float) -> list[str]:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        return [f"a number from {low} to {high}, not {value!r}"[:200]]
    return []
