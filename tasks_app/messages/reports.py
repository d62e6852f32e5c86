"""What a worker says about attempts, in batches: `finish`, `progress`, `log` and `hand_back`.

A batch is one message on `status.update.{worker_id}`: body `{"v": 1, "worker_id", "incarnation_id", "reports": […]}`,
headers `{"key_id", "signature"}` over the body's bytes. Each report is a small object:

    {"kind": "finish", "run", "attempt", "token", "nonce", "outcome", "started_at", "ended_at", "duration_ms",
     "result", "error_type", "error_message", "retryable", "retry_after", "counts_as_crash"}
    {"kind": "log", "run", "attempt", "token", "seq", "stream", "text", "at"}
    {"kind": "progress", "run", "attempt", "token", "seq", "percent", "message", "at"}
    {"kind": "hand_back", "run", "token", "nonce", "reason"}

Times are epoch seconds on the database's clock: a worker knows its offset from the permits' answers, so a skewed host
clock does not show. `result` is JSON text, so that nobody on the way parses it.

On Redis reports go over a stream also where tasks go over lists: an ingest reads and acknowledges many at once, what a
dead one held is not kept back for an hour, and the queue of heartbeats keeps its bound (`broker_url`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from tasks_app.messages.signing import KeyRing
from tasks_app.states import Outcome

VERSION: Final = 1
ROUTING_PREFIX: Final = "status.update."
QUEUE: Final = "status.update"


class BadBatch(ValueError):
    """A batch that cannot be read or trusted as a whole."""


def broker_url(url: str) -> str:
    """Where reports go, given the broker of the tasks: workers and ingest must agree on it."""
    scheme, separator, rest = url.partition("://")
    return f"{scheme}-stream{separator}{rest}" if scheme in {"redis", "rediss"} else url


@dataclass(frozen=True, slots=True)
class Batch:
    """Reports of one worker incarnation, each still a plain object."""

    worker_id: str
    incarnation_id: str
    reports: list[dict[str, Any]]


def pack(batch: Batch, ring: KeyRing) -> tuple[dict[str, Any], bytes]:
    """Headers and body of a batch."""
    body = json.dumps(
        {
            "v": VERSION,
            "worker_id": batch.worker_id,
            "incarnation_id": batch.incarnation_id,
            "reports": batch.reports,
        },
        separators=(",", ":"),
    ).encode()
    return {"key_id": ring.active, "signature": ring.sign(body)}, body


def pack_encoded(
    worker_id: str, incarnation_id: str, reports: Sequence[bytes], ring: KeyRing
) -> tuple[dict[str, Any], bytes]:
    """The same for reports that are JSON text already: a worker's main process only passes on what children wrote."""
    head = json.dumps({"v": VERSION, "worker_id": worker_id, "incarnation_id": incarnation_id}, separators=(",", ":"))
    body = head[:-1].encode() + b',"reports":[' + b",".join(reports) + b"]}"
    return {"key_id": ring.active, "signature": ring.sign(body)}, body


def unpack(headers: dict[str, Any], body: bytes | str, ring: KeyRing) -> Batch:
    """The batch, after its signature and form were checked. Raises BadBatch."""
    data = body.encode() if isinstance(body, str) else body
    key_id, signature = headers.get("key_id"), headers.get("signature")
    if not isinstance(key_id, str) or not isinstance(signature, str):
        raise BadBatch("unsigned")
    if not ring.verifies(key_id, data, signature):
        raise BadBatch(f"signature does not match under key {key_id!r}")
    try:
        content = json.loads(data)
    except ValueError as error:
        raise BadBatch(f"not JSON: {error}") from error
    if not isinstance(content, dict) or content.get("v") != VERSION:
        raise BadBatch("unknown version")
    reports = content.get("reports")
    if not isinstance(reports, list) or not all(isinstance(report, dict) for report in reports):
        raise BadBatch("no list of reports")
    return Batch(str(content.get("worker_id", "")), str(content.get("incarnation_id", "")), reports)


def finish_report(
    *,
    run_id: int,
    attempt: int,
    token: UUID,
    nonce: UUID | None,
    outcome: Outcome,
    started_at: float,
    duration_seconds: float,
    result: str | None = None,
    error_type: str = "",
    error_message: str = "",
    retryable: bool = True,
    retry_after_seconds: float | None = None,
    counts_as_crash: bool = False,
) -> dict[str, Any]:
    """How an attempt ended. started_at: epoch seconds; result: JSON text. `parsing.parse_finish` reads it."""
    return {
        "kind": "finish", "run": run_id, "attempt": attempt, "token": str(token),
        "nonce": None if nonce is None else str(nonce), "outcome": outcome.value, "started_at": started_at,
        "ended_at": started_at + duration_seconds, "duration_ms": round(duration_seconds * 1000), "result": result,
        "error_type": error_type, "error_message": error_message, "retryable": retryable,
        "retry_after": retry_after_seconds, "counts_as_crash": counts_as_crash,
    }  # fmt: skip


def hand_back_report(run_id: int, token: UUID, nonce: UUID | None, reason: str) -> dict[str, Any]:
    """A delivery that was given up before its body began. `parsing.parse_hand_back` reads it."""
    return {
        "kind": "hand_back", "run": run_id, "token": str(token), "nonce": None if nonce is None else str(nonce),
        "reason": reason,
    }  # fmt: skip


def routing_key(worker_id: str) -> str:
    """Routing key of a worker's reports."""
    return ROUTING_PREFIX + worker_id
