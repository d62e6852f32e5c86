"""What an HTTP request's parameters may be, and what of them others may see. Pure.

    {"url": "https://api.example.org/health"}
    {"method": "POST", "url": "…", "headers": {"Authorization": "Bearer …"}, "json": {"month": "2026-11"}}
    {"method": "PUT", "url": "…", "body": "a text", "expect_status": [201, "204-206"]}

and, optional: `retry_status` (which unexpected statuses are worth another attempt), `connect_timeout_seconds`,
`read_timeout_seconds` (for each wait for data), `response_bytes_max`, `follow_redirects` (how many, 0 for none) and
`verify` (false: any certificate will do). Null stands for the default.

Which addresses may be asked is not said here: it is the workers' configuration and holds for what a name resolves to.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

from tasks_app.text import Text, encodable

METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
DEFAULTS: Final[Mapping[str, Any]] = {
    "method": "GET",
    "headers": {},
    "expect_status": ["200-299"],
    "retry_status": [429, "502-504"],
    "connect_timeout_seconds": 10,
    "read_timeout_seconds": 60,
    "response_bytes_max": 10 * 1024 * 1024,
    "follow_redirects": 0,
    "verify": True,
}
URL_LENGTH_MAX: Final = 8000
_KNOWN: Final = (
    "method", "url", "headers", "body", "json", "expect_status", "retry_status", "connect_timeout_seconds",
    "read_timeout_seconds", "response_bytes_max", "follow_redirects", "verify",
)  # fmt: skip
_WHOLE: Final = {"response_bytes_max": (1, 1024**3), "follow_redirects": (0, 10)}
_SECONDS: Final = {"connect_timeout_seconds": (0.1, 300), "read_timeout_seconds": (0.1, 86_400)}
#: What says where a message ends and whom it is for is not the user's: two opinions about it are a way to smuggle.
_OURS: Final = frozenset({
    "host", "content-length", "transfer-encoding", "connection", "keep-alive", "upgrade", "te", "trailer", "expect",
    "proxy-authorization", "proxy-connection",
})  # fmt: skip
_RESERVED: Final = "signalbox-"
_HEADER_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,200}")
_HEADER_VALUE: Final = re.compile(r"(?:[\x21-\x7e](?:[\t\x20-\x7e]*[\x21-\x7e])?)?")
#: What no URL holds as it is. Programs differ in what they make of it, and then in which host they see.
_NOT_IN_URL: Final = re.compile(r"[\x00-\x20\x7f\\]")
_RANGE: Final = re.compile(r"([1-5][0-9]{2})-([1-5][0-9]{2})")


def check_parameters(parameters: Mapping[str, Any]) -> list[str]:
    """What is wrong with a request's parameters; empty when nothing is. Says names, never values of headers."""
    problems: list[str] = [
        Text("unknown parameter %(given)s; known: %(known)s", given=repr(key)[:100], known=", ".join(_KNOWN))
        for key in parameters
        if key not in _KNOWN
    ]
    given = {key: value for key, value in parameters.items() if value is not None}
    method = given.get("method", "GET")
    if not isinstance(method, str) or method not in METHODS:
        problems.append(Text('"method" must be one of %(known)s', known=", ".join(METHODS)))
    problems += _url_problems(given.get("url"))
    problems += _header_problems(given.get("headers", {}))
    problems += _body_problems(given)
    for key in ("expect_status", "retry_status"):
        if key in given and _spans(given[key]) is None:
            problems.append(Text('"%(key)s" must be a list of codes (204) and ranges ("200-299")', key=key))
    for key, (low, high) in _WHOLE.items():
        value = given.get(key, low)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            problems.append(
                Text('"%(key)s" must be a whole number from %(low)s to %(high)s', key=key, low=low, high=high)
            )
    for key, (least, most) in _SECONDS.items():
        value = given.get(key, least)
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
            problems.append(Text('"%(key)s" must be a number from %(low)s to %(high)s', key=key, low=least, high=most))
    if not isinstance(given.get("verify", True), bool):
        problems.append(Text('"verify" must be true or false'))
    return problems


def completed(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters without problems, and the defaults for what is not given."""
    return {**DEFAULTS, **{key: value for key, value in parameters.items() if value is not None}}


def has_status(statuses: object, status: int) -> bool:
    """Whether a status is among those of `expect_status` or `retry_status`."""
    return any(low <= status <= high for low, high in _spans(statuses) or [])


def without_secrets(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters as tools that watch the broker may show them: no header's value, no query, no body."""
    shown = dict(parameters)
    if isinstance(shown.get("headers"), Mapping):
        shown["headers"] = dict.fromkeys(shown["headers"], "***")
    if isinstance(shown.get("url"), str):
        shown["url"] = shown["url"].partition("#")[0].partition("?")[0]
    return shown | {key: "***" for key in ("body", "json") if shown.get(key) is not None}


def _url_problems(url: object) -> list[str]:
    if not isinstance(url, str) or not url:
        return [Text('"url" must be a text that begins with http:// or https://')]
    if len(url) > URL_LENGTH_MAX:
        return [Text('"url" has at most %(limit)s characters, not %(length)s', limit=URL_LENGTH_MAX, length=len(url))]
    if _NOT_IN_URL.search(url) or not encodable(url):
        return [Text('"url" holds characters that must be percent-encoded')]
    parts = _split(url)
    if parts is None:
        return [Text('"url" is not a valid URL')]
    if parts.scheme not in ("http", "https"):
        return [Text('"url" must be a text that begins with http:// or https://')]
    if "@" in parts.netloc:
        return [Text('"url" must not hold a user or a password; use the header Authorization')]
    return [] if parts.hostname else [Text('"url" names no host')]


def _split(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        return parts if parts.port is None or parts.port > 0 else None
    except ValueError:
        return None


def _header_problems(headers: object) -> list[str]:
    if not isinstance(headers, Mapping) or not all(
        isinstance(name, str) and isinstance(value, str) for name, value in headers.items()
    ):
        return [Text('"headers" must be an object of texts')]
    problems: list[str] = []
    seen: set[str] = set()
    for name, value in headers.items():
        folded = name.lower()
        if not _HEADER_NAME.fullmatch(name):
            problems.append(Text("%(given)s cannot be the name of a header", given=repr(name)[:100]))
        elif folded in _OURS or folded.startswith(_RESERVED):
            problems.append(Text('the header "%(name)s" cannot be set', name=name))
        elif folded in seen:
            problems.append(Text('the header "%(name)s" is given twice', name=name))
        elif not _HEADER_VALUE.fullmatch(value):
            problems.append(
                Text('the value of the header "%(name)s" must be one line of ASCII, without spaces around', name=name)
            )
        seen.add(folded)
    return problems


def _body_problems(given: Mapping[str, Any]) -> list[str]:
    if "body" in given and "json" in given:
        return [Text('give either "body" (a text) or "json", not both')]
    body = given.get("body", "")
    if not isinstance(body, str):
        return [Text('"%(key)s" must be a text', key="body")]
    return [] if encodable(body) else [Text("not valid Unicode text")]


def _spans(statuses: object) -> list[tuple[int, int]] | None:
    """Statuses as pairs of first and last; None for what cannot be read."""
    items = statuses if isinstance(statuses, list) else [statuses]
    spans: list[tuple[int, int]] = []
    for item in items:
        match = _RANGE.fullmatch(item) if isinstance(item, str) else None
        if match:
            spans.append((int(match[1]), int(match[2])))
        elif isinstance(item, int) and not isinstance(item, bool):
            spans.append((item, item))
        else:
            return None
    return spans if all(100 <= low <= high <= 599 for low, high in spans) else None
