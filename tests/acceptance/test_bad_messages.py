"""Messages that nobody of ours sent: nothing of them runs, the worker lives, and other runs go on."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime

import pytest
from kombu import Connection

from tasks_app.messages.execution import HEADER, SIGNATURE_HEADER, Execution, WireMessage, body_of, build
from tasks_app.messages.signing import KeyRing
from tests.acceptance.installation import Installation
from tests.acceptance.test_runs import make, run
from workers_app.execution.grant import GRANT, Grant

pytestmark = pytest.mark.timeout(120)
#: As in `Installation`: whoever holds the key can sign, and still gets no permit.
RING = KeyRing({"default": "k" * 50}, "default")
FOREIGN = KeyRing({"default": "x" * 50}, "default")


def touching(path, ring: KeyRing = RING, run_id: int = 2**40) -> WireMessage:
    return build(
        Execution(
            run_id=run_id, task_id=1, task_name="bad", task_type="default", executor="shell",
            parameters={"argv": ["touch", str(path)]}, attempt=1, token=uuid.uuid4(), timeout_seconds=60,
            correlation_id=uuid.uuid4(),
        ),
        ring,
        now=datetime.now(UTC),
    )  # fmt: skip


def send(installed: Installation, message: WireMessage, headers: dict | None = None, body: list | None = None) -> None:
    with Connection(installed.broker_url) as connection, connection.Producer() as producer:
        producer.publish(
            body if body is not None else body_of(message),
            routing_key=message.queue,
            headers=message.headers if headers is None else headers,
            serializer="json",
            correlation_id=message.properties["correlation_id"],
            reply_to="",
        )


def without(headers: dict, *names: str) -> dict:
    return {name: value for name, value in headers.items() if name not in names}


def future(headers: dict) -> dict:
    text = json.dumps(json.loads(headers[HEADER]) | {"v": 2}, sort_keys=True, separators=(",", ":"))
    return headers | {HEADER: text}


CASES = {
    "a signed message for a run that does not exist": lambda m: {},
    "a plain message without any envelope": lambda m: {"headers": without(m.headers, HEADER, SIGNATURE_HEADER)},
    "an envelope without a signature": lambda m: {"headers": without(m.headers, SIGNATURE_HEADER)},
    "an envelope that is no JSON": lambda m: {"headers": m.headers | {HEADER: "{"}},
    "an envelope of a future version": lambda m: {"headers": future(m.headers)},
    "another function under the same signature": lambda m: {"headers": m.headers | {"task": "tests.add"}},
    "other arguments under the same signature": lambda m: {"body": [[], {"argv": ["touch", "/nowhere/x"]}, {}]},
}


@pytest.mark.parametrize("case", CASES)
def test_a_message_that_nobody_of_ours_sent_starts_nothing(installed: Installation, tmp_path, case):
    mark = tmp_path / "mark"
    message = touching(mark)
    send(installed, message, **CASES[case](message))
    _goes_on(installed)
    assert not mark.exists()


def test_a_message_signed_with_a_foreign_key_starts_nothing(installed: Installation, tmp_path):
    mark = tmp_path / "mark"
    send(installed, touching(mark, FOREIGN))
    _goes_on(installed)
    assert not mark.exists()


@pytest.mark.parametrize("place", ["headers", "body"])
def test_a_grant_that_a_message_brings_starts_nothing(installed: Installation, tmp_path, place):
    """Celery mixes the third part of a message's body into the request, past everything that is signed."""
    mark = tmp_path / "mark"
    message = touching(mark)
    args, kwargs, embed = body_of(message)
    plain = without(message.headers, HEADER, SIGNATURE_HEADER)
    for incarnation in live_incarnations(installed):
        grant = Grant(
            1, 1, uuid.uuid4().bytes, uuid.uuid4().bytes, 1, "bad", "shell", kwargs, 60, False, "", incarnation, 2**62
        )
        forged = {HEADER: "x", GRANT: list(grant)}
        for _ in range(4):
            if place == "headers":
                # What is read there is no bytes, so it could not even be refused by its type.
                send(installed, message, headers=plain | {HEADER: "x", GRANT: [str(part) for part in grant]})
            else:
                send(installed, message, headers=plain, body=[args, kwargs, embed | forged])
    _goes_on(installed)
    assert not mark.exists()


def live_incarnations(installed: Installation) -> list[bytes]:
    code = (
        "from workers_app.models import WorkerIncarnation as W\n"
        "print('live', *W.objects.filter(over_at=None).values_list('pk', flat=True))"
    )
    told = installed.manage("shell", "--no-imports", "-c", code).stdout
    [line] = [line for line in told.splitlines() if line.startswith("live ")]
    return [uuid.UUID(word).bytes for word in line.split()[1:]]


def test_a_message_for_a_run_that_ended_starts_nothing(installed: Installation, tmp_path):
    done = run(installed, make(installed, "tests.add", kwargs={"a": 1, "b": 2}))
    mark = tmp_path / "mark"
    send(installed, touching(mark, run_id=done["id"]))
    _goes_on(installed)
    assert not mark.exists()
    assert installed.api("GET", f"runs/{done['id']}")["status"] == "COMPLETED"


def _goes_on(installed: Installation) -> None:
    """Both workers still run things: four runs, one after the other behind the bad message, complete."""
    task = make(installed, "tests.add", kwargs={"a": 1, "b": 1})
    for _ in range(4):
        assert run(installed, task)["status"] == "COMPLETED"
