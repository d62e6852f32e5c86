"""Reads what a worker says about an attempt, strictly: nothing of a wrong type or size gets past here.

Texts are made storable instead of being refused (NUL and broken UTF-8 become U+FFFD, what is too long is cut with a
mark), because a report that is refused leaves its run without an end. What identifies the attempt must be exact.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from tasks_app.lifecycle.facts import Finished, HandBack
from tasks_app.states import Outcome

_BIGINT_MAX: Final = 2**63 - 1
_ATTEMPT_MAX: Final = 2**15 - 1
_OUTCOMES: Final = {outcome.value: outcome for outcome in Outcome}
#: 2000-01-01 to 2200-01-01: an instant outside says that the sender's clock, or the sender, is broken.
_EARLIEST: Final = 946_684_800.0
_LATEST: Final = 7_258_118_400.0
_REPLACEMENT: Final = "\ufffd"


class BadReport(ValueError):
    """A report that cannot be understood; the text says which field."""


def parse_finish(
    report: Mapping[str, Any],
    *,
    result_bytes_max: int,
    error_bytes_max: int,
    worker_id: str = "",
    incarnation_id: UUID | None = None,
) -> Finished:
    """How an attempt ended. Raises BadReport.

    worker_id and incarnation_id come from the batch; they matter only where the database forgot the permit. A result
    larger than result_bytes_max (as JSON text in UTF-8) is replaced by `{"truncated": true, "bytes": n}`.
    """
    outcome = _OUTCOMES.get(_text(report, "outcome"))
    if outcome is None:
        raise BadReport(f"outcome: {_shown(report.get('outcome'))}")
    duration = report.get("duration_ms")
    if duration is not None:
        duration = _whole(report, "duration_ms", _BIGINT_MAX)
    return Finished(
        run_id=_whole(report, "run", _BIGINT_MAX),
        attempt=_whole(report, "attempt", _ATTEMPT_MAX),
        token=_uuid(report, "token"),
        nonce=None if report.get("nonce") is None else _uuid(report, "nonce"),
        outcome=outcome,
        worker_id=worker_id,
        incarnation_id=incarnation_id,
        started_at=_instant(report, "started_at"),
        ended_at=_instant(report, "ended_at"),
        duration_ms=duration,
        result_json=_result(report.get("result"), result_bytes_max),
        error_type=storable(_text(report, "error_type"), 800)[:200],
        error_message=storable(_text(report, "error_message"), error_bytes_max),
        retryable=_flag(report, "retryable", True),
        retry_after_seconds=_seconds(report, "retry_after"),
        counts_as_crash=_flag(report, "counts_as_crash", True),
    )


def parse_hand_back(report: Mapping[str, Any]) -> HandBack:
    """A delivery that was given up. Raises BadReport."""
    return HandBack(
        run_id=_whole(report, "run", _BIGINT_MAX),
        token=_uuid(report, "token"),
        nonce=None if report.get("nonce") is None else _uuid(report, "nonce"),
        reason=storable(_text(report, "reason"), 200),
    )


def storable(text: str, bytes_max: int) -> str:
    """Text that any database holds: no NUL, no lone surrogates, at most bytes_max and a mark where it was cut."""
    if len(text) * 4 <= bytes_max and text.isascii() and "\x00" not in text:
        return text
    data = text.replace("\x00", _REPLACEMENT).encode("utf-8", "surrogatepass").decode("utf-8", "replace").encode()
    if len(data) <= bytes_max:
        return data.decode()
    return data[:bytes_max].decode("utf-8", "ignore") + f" [cut: {bytes_max} of {len(data)} bytes]"


def instant_of(value: object) -> datetime | None:
    """Epoch seconds as an instant in UTC; None for anything that cannot be one."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not _EARLIEST <= value <= _LATEST:
        return None
    return datetime.fromtimestamp(value, UTC)


def whole_number(value: object, largest: int) -> int | None:
    """The value if it is a whole number from 0 to `largest`, else None; True and False are not numbers."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= largest:
        return None
    return value


def _result(text: object, bytes_max: int) -> str | None:
    if text is None:
        return None
    if not isinstance(text, str):
        raise BadReport("result: JSON text is wanted")
    size = len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
    if size > bytes_max:
        return json.dumps({"truncated": True, "bytes": size})
    try:
        value = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise BadReport(f"result: not JSON: {error}") from error
    if "\\u0000" in text or "\\ud" in text or "\\uD" in text or not text.isascii():
        # PostgreSQL's jsonb holds neither NUL nor half a surrogate pair.
        return json.dumps(_storable_json(value), separators=(",", ":"), ensure_ascii=False)
    return text


def _storable_json(value: Any) -> Any:
    if isinstance(value, str):
        return storable(value, _BIGINT_MAX)
    if isinstance(value, dict):
        return {storable(key, _BIGINT_MAX): _storable_json(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_storable_json(inner) for inner in value]
    return value


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _whole(report: Mapping[str, Any], key: str, largest: int) -> int:
    number = whole_number(report.get(key), largest)
    if number is None:
        raise BadReport(f"{key}: {_shown(report.get(key))}")
    return number


def _uuid(report: Mapping[str, Any], key: str) -> UUID:
    value = report.get(key)
    if not isinstance(value, str):
        raise BadReport(f"{key}: {_shown(value)}")
    try:
        return UUID(value)
    except ValueError as error:
        raise BadReport(f"{key}: {_shown(value)}") from error


def _text(report: Mapping[str, Any], key: str) -> str:
    value = report.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise BadReport(f"{key}: {_shown(value)}")
    return value


def _flag(report: Mapping[str, Any], key: str, default: bool) -> bool:
    value = report.get(key, default)
    if not isinstance(value, bool):
        raise BadReport(f"{key}: {_shown(value)}")
    return value


def _seconds(report: Mapping[str, Any], key: str) -> float | None:
    value = report.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not -math.inf < value < math.inf:
        raise BadReport(f"{key}: {_shown(value)}")
    # A year is as good as any larger number, and cannot overflow an instant. Whole numbers need not fit a float.
    return float(min(max(0, value), 366 * 86400))


def _instant(report: Mapping[str, Any], key: str) -> datetime | None:
    value = report.get(key)
    if value is None:
        return None
    instant = instant_of(value)
    if instant is None:
        raise BadReport(f"{key}: {_shown(value)}")
    return instant


def _shown(value: object) -> str:
    return repr(value)[:100]
