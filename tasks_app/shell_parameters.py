"""What a shell command's parameters may be, and the argument list that they mean. Pure.

    {"argv": ["tar", "czf", "/backup/a.tgz", "a"]}                 started as it is
    {"command": "tar czf /backup/a.tgz a"}                         split into words as a shell would, but no shell
    {"command": "tar cz a | ssh host 'cat > a'", "shell": true}    given to /bin/sh

and, optional: `env` (an object of texts), `cwd` (an absolute path), `stdin` (a text).
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any, Final

from tasks_app.text import Text, encodable

#: Names in `env` that are ours.
RESERVED: Final = "SIGNALBOX_"
_KNOWN: Final = ("argv", "command", "cwd", "env", "shell", "stdin")


def check_parameters(parameters: Mapping[str, Any]) -> list[str]:
    """What is wrong with a command's parameters; empty when nothing is."""
    problems: list[str] = [
        Text("unknown parameter %(given)s; known: %(known)s", given=repr(key)[:100], known=", ".join(_KNOWN))
        for key in parameters
        if key not in _KNOWN
    ]
    problems += _program_problems(parameters)
    problems += _env_problems(parameters.get("env", {}))
    for key in ("cwd", "stdin"):
        value = parameters.get(key)
        if value is not None and not isinstance(value, str):
            problems.append(Text('"%(key)s" must be a text', key=key))
    cwd = parameters.get("cwd")
    if isinstance(cwd, str) and cwd and not cwd.startswith("/"):
        problems.append(Text('"cwd" must be an absolute path'))
    return problems or _text_problems(parameters)


def argv_of(parameters: Mapping[str, Any]) -> list[str]:
    """Program and arguments. Only for parameters without problems."""
    if parameters.get("argv") is not None:
        return list(parameters["argv"])
    if parameters.get("shell"):
        return ["/bin/sh", "-c", parameters["command"]]
    return shlex.split(parameters["command"])


def _program_problems(parameters: Mapping[str, Any]) -> list[str]:
    argv, command, shell = parameters.get("argv"), parameters.get("command"), parameters.get("shell", False)
    if (argv is None) == (command is None):
        return [Text('give either "argv" (a list) or "command" (a text)')]
    if not isinstance(shell, bool):
        return [Text('"shell" must be true or false')]
    if command is None:
        if not isinstance(argv, list) or not argv or not all(isinstance(word, str) for word in argv):
            return [Text('"argv" must be a list of texts with at least one')]
        return [] if argv[0] else [Text("the name of the program is empty")]
    if not isinstance(command, str) or not command.strip():
        return [Text('"command" must be a text that is not empty')]
    if shell:
        return []
    try:
        words = shlex.split(command)
    except ValueError as error:
        return [Text('"command" cannot be split into words: %(reason)s', reason=error)]
    return [] if words and words[0] else [Text("the name of the program is empty")]


def _env_problems(env: object) -> list[str]:
    if env is None:
        return []
    if not isinstance(env, Mapping) or not all(
        isinstance(name, str) and name and "=" not in name and isinstance(value, str) for name, value in env.items()
    ):
        return [Text('"env" must be an object of texts')]
    return [Text('"env" cannot set %(name)s', name=name) for name in env if name.startswith(RESERVED)]


def _text_problems(parameters: Mapping[str, Any]) -> list[str]:
    """What no process can be given, whatever the field."""
    env = parameters.get("env") or {}
    texts = [*argv_of(parameters), *env, *env.values(), parameters.get("cwd") or ""]
    if any("\x00" in text for text in texts):
        return [Text("NUL characters cannot be passed to a command")]
    if not all(encodable(text) for text in [*texts, parameters.get("stdin") or ""]):
        return [Text("not valid Unicode text")]
    return []
