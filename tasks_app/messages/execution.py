"""The message that starts a run.

Wire form: Celery's message protocol 2 (documented in Celery's "Message Protocol" page): headers with `task`, `id`,
`retries` …, body `[args, kwargs, embed]` as JSON. Our header `signalbox` is the envelope as JSON text (a nested AMQP
table costs ten times as much to read), and `signalbox_signature` is `key id:HMAC` over the function's name and that
very text. The envelope:

    {"v": 1, "id": <celery id>, "message_type": {"type": "TaskExecution", "task_run_id", "task_id", "task_name",
     "task_type", "timeout_seconds", "retry_count"}, "payload": {"attempt", "token", "queue", "arguments_sha256"},
     "timestamp", "retry_count", "correlation_id", "trace_headers": {"traceparent": …}}
"""

from __future__ import annotations

import hashlib
import json
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from tasks_app.http_parameters import without_secrets
from tasks_app.messages.signing import KeyRing
from tasks_app.parameters import canonical_json

VERSION: Final = 1
HEADER: Final = "signalbox"
SIGNATURE_HEADER: Final = "signalbox_signature"
QUEUE_PREFIX: Final = "task.execution."
SHELL_FUNCTION: Final = "signalbox.shell"
HTTP_FUNCTION: Final = "signalbox.http"

_ORIGIN: Final = f"signalbox@{socket.gethostname()}"
_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_REPR_LENGTH_MAX: Final = 512


class Refusal(ValueError):
    """The message must not start anything; `reason` is one of a few words, for metrics.

    `unsigned`, `malformed`, `version`, `signature`, `retargeted`.
    """

    def __init__(self, reason: str, detail: str) -> None:
        """Keep the reason apart from the detail, which goes to the log."""
        self.reason = reason
        super().__init__(f"{reason}: {detail}")


@dataclass(frozen=True, slots=True)
class Execution:
    """One dispatch of a run, before it becomes a message."""

    run_id: int
    task_id: int
    task_name: str
    task_type: str
    executor: str
    parameters: Mapping[str, Any]
    attempt: int
    token: UUID
    timeout_seconds: int
    correlation_id: UUID
    traceparent: str = ""


@dataclass(frozen=True, slots=True)
class Ticket:
    """What a verified message says; the permit decides whether it is still true."""

    run_id: int
    task_id: int
    task_name: str
    attempt: int
    token: UUID
    correlation_id: str
    traceparent: str

    @property
    def trace_id(self) -> str:
        """Of the trace in which the run was submitted; empty without one."""
        parts = self.traceparent.split("-")
        return parts[1] if len(parts) == 4 else ""


@dataclass(frozen=True, slots=True)
class WireMessage:
    """A message ready to publish: queue, Celery headers, AMQP properties, body text."""

    run_id: int
    token: UUID
    queue: str
    headers: dict[str, Any]
    properties: dict[str, Any]
    body: str


def queue_for(task_type: str) -> str:
    """Name of the shared queue of a task type; also its routing key."""
    return QUEUE_PREFIX + task_type


def celery_id(token: UUID) -> str:
    """Celery task id of a dispatch. Derived from the token one way, so that whoever sees ids cannot make tokens."""
    return str(UUID(bytes=hashlib.sha256(b"signalbox celery id" + token.bytes).digest()[:16], version=4))


def call_for(executor: str, parameters: Mapping[str, Any]) -> tuple[str, list[Any], dict[str, Any]]:
    """Registered function name, positional and keyword arguments. Raises ValueError for an unknown executor."""
    if executor == "python":
        return parameters["function"], list(parameters.get("args", [])), dict(parameters.get("kwargs", {}))
    if executor == "shell":
        return SHELL_FUNCTION, [], dict(parameters)
    if executor == "http":
        return HTTP_FUNCTION, [], dict(parameters)
    raise ValueError(f"unknown executor {executor!r}")


def build(run: Execution, ring: KeyRing, *, now: datetime, queue: str | None = None) -> WireMessage:
    """The signed message for one dispatch, aimed at the task type's shared queue unless another is named."""
    function, args, kwargs = call_for(run.executor, run.parameters)
    target = queue or queue_for(run.task_type)
    message_id = celery_id(run.token)
    trace_headers = {"traceparent": run.traceparent} if _TRACEPARENT.fullmatch(run.traceparent) else {}
    retry_count = run.attempt - 1
    correlation_id = str(run.correlation_id)
    arguments = canonical_json([args, kwargs])
    envelope: dict[str, Any] = {
        "v": VERSION,
        "id": message_id,
        "message_type": {
            "type": "TaskExecution",
            "task_run_id": run.run_id,
            "task_id": run.task_id,
            "task_name": run.task_name,
            "task_type": run.task_type,
            "timeout_seconds": run.timeout_seconds,
            "retry_count": retry_count,
        },
        "payload": {
            "attempt": run.attempt,
            "token": str(run.token),
            "queue": target,
            "arguments_sha256": hashlib.sha256(arguments.encode()).hexdigest(),
        },
        "timestamp": now.astimezone(UTC).isoformat().replace("+00:00", "Z"),
        "retry_count": retry_count,
        "correlation_id": correlation_id,
        "trace_headers": trace_headers,
    }
    text = canonical_json(envelope)
    headers: dict[str, Any] = {
        "lang": "py",
        "task": function,
        "id": message_id,
        "shadow": None,
        "eta": None,
        "expires": None,
        "group": None,
        "group_index": None,
        "retries": retry_count,
        "timelimit": [None, None],
        "root_id": message_id,
        "parent_id": None,
        "argsrepr": _shortened(repr(tuple(args))),
        # Flower and whoever else listens to Celery's events sees these.
        "kwargsrepr": _shortened(repr(without_secrets(kwargs) if run.executor == "http" else kwargs)),
        "origin": _ORIGIN,
        "ignore_result": True,
        "replaced_task_nesting": 0,
        "stamped_headers": None,
        "stamps": {},
        HEADER: text,
        SIGNATURE_HEADER: f"{ring.active}:{ring.sign(_signed_bytes(function, text))}",
        **trace_headers,
    }
    properties = {"correlation_id": message_id, "reply_to": "", "delivery_mode": 2, "priority": 0}
    embed = '{"callbacks":null,"errbacks":null,"chain":null,"chord":null}'
    return WireMessage(
        run_id=run.run_id, token=run.token, queue=target, headers=headers, properties=properties,
        body=f"{arguments[:-1]},{embed}]",
    )  # fmt: skip


def verify(
    headers: Mapping[str, Any], function: str, args: Any, kwargs: Any, routing_key: str | None, ring: KeyRing
) -> Ticket:
    """Check a delivered message against its signature and return what it says.

    headers: the message's headers with our envelope. function, args, kwargs: what Celery is about to run. routing_key:
    where the delivery came from, None where the transport does not tell. Raises Refusal.
    """
    text, signature = headers.get(HEADER), headers.get(SIGNATURE_HEADER)
    if not isinstance(text, str):
        raise Refusal("malformed", "no envelope")
    if not isinstance(signature, str):
        raise Refusal("unsigned", "no signature")
    key_id, _, mac = signature.rpartition(":")
    try:
        envelope = json.loads(text)
        if envelope["v"] != VERSION:
            raise Refusal("version", f"version {envelope['v']!r}, this worker knows {VERSION}")
        said, payload = envelope["message_type"], envelope["payload"]
        ticket = Ticket(
            run_id=int(said["task_run_id"]),
            task_id=int(said["task_id"]),
            task_name=str(said["task_name"]),
            attempt=int(payload["attempt"]),
            token=UUID(payload["token"]),
            correlation_id=str(envelope["correlation_id"]),
            traceparent=str(envelope.get("trace_headers", {}).get("traceparent", "")),
        )
        digest = hashlib.sha256(canonical_json([list(args), dict(kwargs)]).encode()).hexdigest()
        queue, expected_digest = payload["queue"], payload["arguments_sha256"]
    except Refusal:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Refusal("malformed", f"{type(error).__name__}: {error}") from error
    if not ring.verifies(key_id, _signed_bytes(function, text), mac):
        raise Refusal("signature", f"does not match under key {key_id!r}")
    if digest != expected_digest:
        raise Refusal("signature", "the arguments are not the ones that were signed")
    if headers.get("id") != celery_id(ticket.token):
        raise Refusal("signature", "the Celery id is not the one of this dispatch")
    if routing_key is not None and routing_key != queue:
        raise Refusal("retargeted", f"made for queue {queue!r}, delivered from {routing_key!r}")
    return ticket


def body_of(message: WireMessage) -> list[Any]:
    """The body as Celery will decode it: [args, kwargs, embed]."""
    decoded: list[Any] = json.loads(message.body)
    return decoded


def _signed_bytes(function: str, text: str) -> bytes:
    # A name with a line break could otherwise stand for another name and the beginning of another text.
    return canonical_json([function, text]).encode()


def _shortened(text: str) -> str:
    return text if len(text) <= _REPR_LENGTH_MAX else text[: _REPR_LENGTH_MAX - 1] + "…"
