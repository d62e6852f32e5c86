"""Deliveries as facts, each checked. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

from dispatch.broker.port import Delivery
from tasks_app.lifecycle.facts import Finished, HandBack
from tasks_app.messages.parsing import BadReport, instant_of, parse_finish, parse_hand_back, storable, whole_number
from tasks_app.messages.reports import BadBatch, unpack
from tasks_app.messages.signing import KeyRing

CHUNK_BYTES_MAX: Final = 256 * 1024
_SEQ_MAX: Final = 2**31 - 1
_STREAMS: Final = frozenset({"stdout", "stderr", "system"})


class LogChunk(NamedTuple):
    """A piece of an attempt's output."""

    run_id: int
    attempt: int
    token: UUID
    seq: int
    stream: str
    text: str
    at: datetime


class Progress(NamedTuple):
    """How far an attempt is; the highest seq of a dispatch counts."""

    run_id: int
    attempt: int
    token: UUID
    seq: int
    percent: float | None
    message: str
    at: datetime


class Poison(NamedTuple):
    """What could not be used: who sent it, what it was, why not, and a word for the metric."""

    worker_id: str
    body: str
    error: str
    why: str


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes above which texts are cut."""

    result_bytes_max: int
    error_bytes_max: int


@dataclass
class Sorted:
    """A batch by kind. heartbeats: the newest of each worker, as sent."""

    finishes: list[Finished] = field(default_factory=list)
    hand_backs: list[HandBack] = field(default_factory=list)
    chunks: list[LogChunk] = field(default_factory=list)
    progress: list[Progress] = field(default_factory=list)
    heartbeats: dict[str, dict[str, Any]] = field(default_factory=dict)
    poison: list[Poison] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.finishes) + len(self.hand_backs) + len(self.chunks) + len(self.progress)

    def add_reports(self, delivery: Delivery, ring: KeyRing, limits: Limits, now: datetime) -> None:
        """Take a batch of reports apart; each bad one becomes poison and the others count."""
        try:
            batch = unpack(delivery.headers, delivery.body, ring)
        except BadBatch as error:
            self.poison.append(Poison("", delivery.body.decode("utf-8", "replace"), str(error), "batch"))
            return
        worker_id = storable(batch.worker_id, 200)[:200]
        incarnation_id = _uuid_or_none(batch.incarnation_id)
        for report in batch.reports:
            try:
                self._add_report(report, worker_id, incarnation_id, limits, now)
            except BadReport as error:
                self.poison.append(Poison(worker_id, json.dumps(report), str(error), "report"))

    def add_heartbeat(self, delivery: Delivery, ring: KeyRing) -> None:
        """A heartbeat; a bad one is dropped with a note, it is telemetry."""
        try:
            body = _signed_object(delivery, ring)
            worker_id = body.get("worker_id")
            if body.get("v") != 1 or not isinstance(worker_id, str):
                raise BadReport("heartbeat: unknown version or no worker")
        except (BadReport, ValueError) as error:
            self.poison.append(Poison("", delivery.body.decode("utf-8", "replace"), str(error), "heartbeat"))
            return
        self.heartbeats[worker_id] = body

    def _add_report(
        self, report: dict[str, Any], worker_id: str, incarnation_id: UUID | None, limits: Limits, now: datetime
    ) -> None:
        kind = report.get("kind")
        if kind == "finish":
            facts = parse_finish(
                report, result_bytes_max=limits.result_bytes_max, error_bytes_max=limits.error_bytes_max,
                worker_id=worker_id, incarnation_id=incarnation_id,
            )  # fmt: skip
            self.finishes.append(facts)
        elif kind == "log":
            self.chunks.append(_chunk(report, now))
        elif kind == "progress":
            self.progress.append(_progress(report, now))
        elif kind == "hand_back":
            self.hand_backs.append(parse_hand_back(report))
        else:
            raise BadReport(f"kind: {kind!r:.100}")


def _chunk(report: Mapping[str, Any], now: datetime) -> LogChunk:
    run_id, attempt, token, seq = _identity(report)
    text, stream = report.get("text"), report.get("stream")
    if not isinstance(text, str) or not isinstance(stream, str) or stream not in _STREAMS:
        raise BadReport(f"text or stream: {stream!r:.50}")
    at = instant_of(report.get("at")) or now
    return LogChunk(run_id, attempt, token, seq, stream, storable(text, CHUNK_BYTES_MAX), at)


def _progress(report: Mapping[str, Any], now: datetime) -> Progress:
    run_id, attempt, token, seq = _identity(report)
    percent, message = report.get("percent"), report.get("message")
    if percent is not None and (isinstance(percent, bool) or not isinstance(percent, int | float)):
        raise BadReport(f"percent: {percent!r:.50}")
    if percent is not None and not 0 <= percent <= 100:  # NaN too
        raise BadReport(f"percent: {percent!r:.50}")
    text = "" if message is None else message
    if not isinstance(text, str):
        raise BadReport(f"message: {message!r:.50}")
    return Progress(run_id, attempt, token, seq, percent, storable(text, 2000), instant_of(report.get("at")) or now)


def _identity(report: Mapping[str, Any]) -> tuple[int, int, UUID, int]:
    run_id = whole_number(report.get("run"), 2**63 - 1)
    attempt = whole_number(report.get("attempt"), 2**15 - 1)
    seq = whole_number(report.get("seq"), _SEQ_MAX)
    token = _uuid_or_none(report.get("token"))
    if run_id is None or attempt is None or seq is None or token is None:
        raise BadReport("run, attempt, token or seq")
    return run_id, attempt, token, seq


def _signed_object(delivery: Delivery, ring: KeyRing) -> dict[str, Any]:
    key_id, signature = delivery.headers.get("key_id"), delivery.headers.get("signature")
    if not isinstance(key_id, str) or not isinstance(signature, str):
        raise BadReport("unsigned")
    if not ring.verifies(key_id, delivery.body, signature):
        raise BadReport("signature does not match")
    body = json.loads(delivery.body)
    if not isinstance(body, dict):
        raise BadReport("not an object")
    return body


def _uuid_or_none(value: object) -> UUID | None:
    try:
        return UUID(value) if isinstance(value, str) else None
    except ValueError:
        return None
