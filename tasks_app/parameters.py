"""Rules for names and parameters that hold for every executor.

Pure; what an executor itself needs is its own rule.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any, Final

from tasks_app.text import Text, encodable

NAME_LENGTH_MAX: Final = 200
TASK_TYPE_PATTERN: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,49}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
#: An escaped NUL in a JSON text, and not a backslash that happens to stand before "u0000".
_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")


#: Made once: `json.dumps` with options makes one for each call, half of what a small text costs.
_CANONICAL: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def canonical_json(value: object) -> str:
    """The one JSON text of a value: sorted keys, no spaces, no NaN, characters as they are.

    Raises ValueError or TypeError for what JSON cannot hold.
    """
    return _CANONICAL.encode(value)


def digest(value: object) -> str:
    """SHA-256 of the canonical JSON text, in hexadecimal."""
    return hashlib.sha256(canonical_json(value).encode("utf-8", "surrogatepass")).hexdigest()


def text_problems(text: object, *, length_max: int) -> list[str]:
    """What is wrong with a free text: not a text, too long, or nothing that a database can store."""
    if not isinstance(text, str):
        return [Text("must be a text")]
    if len(text) > length_max:
        return [Text("at most %(limit)s characters, not %(length)s", limit=length_max, length=len(text))]
    if "\x00" in text:
        return [Text("NUL characters cannot be stored")]
    return [] if encodable(text) else [Text("not valid Unicode text")]


def name_problems(name: object) -> list[str]:
    """What is wrong with a task's name; empty when nothing is."""
    if not isinstance(name, str) or not name.strip():
        return [Text("a name is needed")]
    problems: list[str] = []
    if len(name) > NAME_LENGTH_MAX:
        problems.append(Text("at most %(limit)s characters, not %(length)s", limit=NAME_LENGTH_MAX, length=len(name)))
    if _CONTROL.search(name):
        problems.append(Text("no control characters"))
    if not encodable(name):
        problems.append(Text("not valid Unicode text"))
    return problems


def task_type_problems(task_type: object) -> list[str]:
    """What is wrong with a task type. It is one word of a routing key, so it holds no dot."""
    if isinstance(task_type, str) and TASK_TYPE_PATTERN.fullmatch(task_type):
        return []
    return [Text("1 to 50 of a-z, 0-9, - and _, beginning with a letter or a digit")]


def json_problems(parameters: object, *, bytes_max: int) -> list[str]:
    """What keeps a value from being parameters: not an object, not JSON, too large, NUL in a text."""
    if not isinstance(parameters, Mapping):
        return [Text("must be a JSON object")]
    try:
        text = canonical_json(parameters)
        size = len(text.encode("utf-8"))
    except (TypeError, ValueError, RecursionError) as error:
        return [Text("not JSON: %(reason)s", reason=error)]
    problems: list[str] = []
    if size > bytes_max:
        problems.append(
            Text(
                "%(size)s bytes of JSON, the limit is %(limit)s; pass large data by reference",
                size=size,
                limit=bytes_max,
            )
        )
    if _NUL.search(text):
        problems.append(Text("NUL characters cannot be stored"))
    return problems


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` laid on `base`: objects are merged key by key, everything else is replaced."""
    result = dict(base)
    for key, value in over.items():
        below = result.get(key)
        if isinstance(below, Mapping) and isinstance(value, Mapping):
            result[key] = merged(below, value)
        else:
            result[key] = value
    return result
