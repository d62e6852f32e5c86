import json
import uuid
from datetime import UTC, datetime

import pytest

from tasks_app.messages import reports
from tasks_app.messages.execution import HEADER, SIGNATURE_HEADER, Execution, Refusal, body_of, build, celery_id, verify
from tasks_app.messages.signing import KeyRing

RING = KeyRing({"a": "k" * 40, "old": "o" * 40}, "a")
NOW = datetime(2027, 1, 2, 3, 4, 5, tzinfo=UTC)


def execution(**changes) -> Execution:
    values = {
        "run_id": 7, "task_id": 3, "task_name": "数据备份", "task_type": "backup", "executor": "python",
        "parameters": {"function": "shop.charge", "args": [1, "é"], "kwargs": {"deep": {"a": [1.5, None]}}},
        "attempt": 2, "token": uuid.UUID(int=5), "timeout_seconds": 60, "correlation_id": uuid.UUID(int=9),
        "traceparent": "00-" + "a" * 32 + "-" + "b" * 16 + "-01",
    }  # fmt: skip
    return Execution(**(values | changes))


def delivered(message, **changes):
    args, kwargs, _ = body_of(message)
    values = {"headers": message.headers, "function": message.headers["task"], "args": args, "kwargs": kwargs,
              "routing_key": message.queue, "ring": RING}  # fmt: skip
    return verify(**(values | changes))


def test_a_message_carries_the_real_name_and_verifies():
    message = build(execution(), RING, now=NOW)
    assert message.headers["task"] == "shop.charge"
    assert message.queue == "task.execution.backup"
    ticket = delivered(message)
    assert (ticket.run_id, ticket.attempt, ticket.token, ticket.task_name) == (
        7,
        2,
        uuid.UUID(int=5),
        "数据备份",
    )


def test_a_message_survives_the_wire_as_json():
    message = build(execution(), RING, now=NOW)
    headers = json.loads(json.dumps(message.headers))
    assert delivered(message, headers=headers).run_id == 7


def test_a_shell_run_is_a_call_of_the_shell_function():
    message = build(execution(executor="shell", parameters={"argv": ["true"]}), RING, now=NOW)
    assert message.headers["task"] == "signalbox.shell"
    assert body_of(message)[:2] == [[], {"argv": ["true"]}]


def test_an_http_run_is_a_call_of_the_http_function_and_shows_no_secret_to_those_who_watch():
    parameters = {"url": "https://example.org/a?key=hush", "headers": {"Authorization": "Bearer hush"}, "body": "hush"}
    message = build(execution(executor="http", parameters=parameters), RING, now=NOW)
    assert message.headers["task"] == "signalbox.http"
    assert body_of(message)[:2] == [[], parameters]
    assert "hush" not in json.dumps(message.headers)
    assert "example.org/a" in message.headers["kwargsrepr"]


def test_each_dispatch_has_its_own_celery_id_that_does_not_tell_its_token():
    first, second = (build(execution(token=uuid.UUID(int=n)), RING, now=NOW) for n in (1, 2))
    assert first.headers["id"] != second.headers["id"]
    assert first.headers["id"] == celery_id(uuid.UUID(int=1)) != str(uuid.UUID(int=1))


def test_the_envelope_has_the_documented_shape():
    envelope = json.loads(build(execution(), RING, now=NOW).headers[HEADER])
    assert envelope["message_type"] == {
        "type": "TaskExecution", "task_run_id": 7, "task_id": 3, "task_name": "数据备份", "task_type": "backup",
        "timeout_seconds": 60, "retry_count": 1,
    }  # fmt: skip
    assert envelope["timestamp"] == "2027-01-02T03:04:05Z"
    assert envelope["trace_headers"]["traceparent"].startswith("00-")
    assert envelope["retry_count"] == 1


def test_no_time_travels_with_the_message():
    headers = build(execution(), RING, now=NOW).headers
    assert headers["eta"] is None
    assert headers["expires"] is None


def refused(**changes) -> str:
    message = build(execution(), RING, now=NOW)
    with pytest.raises(Refusal) as caught:
        delivered(message, **changes)
    return caught.value.reason


def test_another_function_is_refused():
    assert refused(function="shop.refund") == "signature"


def test_other_arguments_are_refused():
    assert refused(args=[2, "é"]) == "signature"
    assert refused(kwargs={}) == "signature"


def test_another_queue_is_refused():
    assert refused(routing_key="task.execution.other") == "retargeted"


def test_an_unknown_key_is_refused():
    assert refused(ring=KeyRing({"b": "z" * 40}, "b")) == "signature"


def changed_envelope(**changes):
    message = build(execution(), RING, now=NOW)
    envelope = json.loads(message.headers[HEADER]) | changes
    return message, message.headers | {HEADER: json.dumps(envelope)}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"v": 2}, "version"),
        ({"v": None}, "version"),
        ({"payload": {}}, "malformed"),
        ({"message_type": None}, "malformed"),
        ({"payload": {"attempt": "x", "token": "y", "queue": "q", "arguments_sha256": ""}}, "malformed"),
        ({"timestamp": "2030-01-01T00:00:00Z"}, "signature"),
        ({"trace_headers": {}}, "signature"),
    ],
)
def test_a_changed_envelope_is_refused(changes, reason):
    message, headers = changed_envelope(**changes)
    with pytest.raises(Refusal) as caught:
        delivered(message, headers=headers)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("header", "value", "reason"),
    [
        (SIGNATURE_HEADER, None, "unsigned"),
        (SIGNATURE_HEADER, "", "signature"),
        (SIGNATURE_HEADER, "a:00", "signature"),
        (HEADER, None, "malformed"),
        (HEADER, {"v": 1}, "malformed"),
        (HEADER, "not JSON", "malformed"),
        (HEADER, "[]", "malformed"),
        (HEADER, "null", "malformed"),
    ],
)
def test_a_spoilt_header_is_refused(header, value, reason):
    message = build(execution(), RING, now=NOW)
    with pytest.raises(Refusal) as caught:
        delivered(message, headers=message.headers | {header: value})
    assert caught.value.reason == reason


def test_a_foreign_celery_id_is_refused():
    message = build(execution(), RING, now=NOW)
    with pytest.raises(Refusal):
        delivered(message, headers=message.headers | {"id": str(uuid.uuid4())})


def test_no_envelope_at_all_is_malformed():
    with pytest.raises(Refusal) as caught:
        verify({}, "f", [], {}, None, RING)
    assert caught.value.reason == "malformed"


def test_a_key_that_is_being_rotated_out_still_verifies():
    message = build(execution(), KeyRing(RING.keys, "old"), now=NOW)
    assert delivered(message).run_id == 7


def test_a_trace_parent_that_is_none_is_left_out():
    message = build(execution(traceparent="rubbish"), RING, now=NOW)
    assert json.loads(message.headers[HEADER])["trace_headers"] == {}
    assert "traceparent" not in message.headers


BATCH = reports.Batch("w-1", str(uuid.UUID(int=1)), [{"kind": "finish", "run": 1}])


def test_a_report_batch_survives_the_wire():
    headers, body = reports.pack(BATCH, RING)
    assert reports.unpack(headers, body, RING) == BATCH
    assert reports.unpack(headers, body.decode(), RING) == BATCH


def test_encoded_reports_make_the_same_batch():
    headers, body = reports.pack_encoded("w-1", str(uuid.UUID(int=1)), [b'{"kind":"finish","run":1}'], RING)
    assert reports.unpack(headers, body, RING) == BATCH


@pytest.mark.parametrize("spoil", ["body", "signature", "key", "unsigned"])
def test_a_spoilt_report_batch_is_refused(spoil):
    headers, body = reports.pack(BATCH, RING)
    if spoil == "body":
        body = body.replace(b"w-1", b"w-2")
    elif spoil == "signature":
        headers["signature"] = "0" * 64
    elif spoil == "key":
        headers["key_id"] = "nobody"
    else:
        headers = {}
    with pytest.raises(reports.BadBatch):
        reports.unpack(headers, body, RING)


def test_a_batch_of_a_future_version_is_refused():
    body = json.dumps({"v": 99, "reports": []}).encode()
    with pytest.raises(reports.BadBatch):
        reports.unpack({"key_id": "a", "signature": RING.sign(body)}, body, RING)
