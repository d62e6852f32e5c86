"""Rules for names and parameters that hold for every executor. Pure; what an executor itself needs is its own rule."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any, Final

NAME_LENGTH_MAX: Final = 200
TASK_TYPE_PATTERN: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,49}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def canonical_json(value: object) -> str:
    """The one JSON text of a value: sorted keys, no spaces, no NaN, characters as they are.

    Raises ValueError or TypeError for what JSON cannot hold.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(value: object) -> str:
    """SHA-256 of the canonical JSON text, in hexadecimal."""
    return hashlib.sha256(canonical_json(value).encode("utf-8", "surrogatepass")).hexdigest()


def name_problems(name: object) -> list[str]:
    """What is wrong with a task's name; empty when nothing is."""
    if not isinstance(name, str) or not name.strip():
        return ["a name is needed"]
    problems = []
    if len(name) > NAME_LENGTH_MAX:
        problems.append(f"at most {NAME_LENGTH_MAX} characters, not {len(name)}")
    if _CONTROL.search(name):
        problems.append("no control characters")
    if not _encodable(name):
        problems.append("not valid Unicode text")
    return problems


def task_type_problems(task_type: object) -> list[str]:
    """What is wrong with a task type. It is one word of a routing key, so it holds no dot."""
    if isinstance(task_type, str) and TASK_TYPE_PATTERN.fullmatch(task_type):
        return []
    return ["1 to 50 of a-z, 0-9, - and _, beginning with a letter or a digit"]


def json_problems(parameters: object, *, bytes_max: int) -> list[str]:
    """What keeps a value from being the parameters of a run: not an object, not JSON, too large, NUL in a text."""
    if not isinstance(parameters, Mapping):
        return ["must be a JSON object"]
    try:
        text = canonical_json(parameters)
        size = len(text.encode("utf-8"))
    except (TypeError, ValueError, RecursionError) as error:
        return [f"not JSON: {error}"]
    problems = []
    if size > bytes_max:
        problems.append(f"{size} bytes of JSON, the limit is {bytes_max}; pass large data by reference")
    if "\\u0000" in text:
        problems.append("NUL characters cannot be stored")
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


def _encodable(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
