"""What workers send, taken apart: nothing bad gets through, and nothing bad stops the rest."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatch.broker.port import Delivery
from dispatch.ingest.sorting import Limits, Sorted
from tasks_app.messages.parsing import BadReport, parse_finish, parse_hand_back, storable
from tasks_app.messages.reports import Batch, pack
from tasks_app.messages.signing import KeyRing
from tasks_app.states import Outcome

NOW = datetime(2030, 1, 1, tzinfo=UTC)
RING = KeyRing({"k": "s" * 40}, "k")
LIMITS = Limits(1000, 1000)
TOKEN, NONCE = str(uuid4()), str(uuid4())


def finish(**changes: Any) -> dict[str, Any]:
    return {
        "kind": "finish", "run": 7, "attempt": 1, "token": TOKEN, "nonce": NONCE, "outcome": "COMPLETED",
        "started_at": 1893456000.25, "ended_at": 1893456001, "duration_ms": 750, "result": '{"n":1}', "error_type": "",
        "error_message": "", "retryable": True, "retry_after": None, "counts_as_crash": False,
    } | changes  # fmt: skip


def parsed(**changes: Any) -> Any:
    return parse_finish(finish(**changes), result_bytes_max=1000, error_bytes_max=100)


def delivery(*reports: dict[str, Any], ring: KeyRing = RING) -> Delivery:
    headers, body = pack(Batch("w1", str(uuid4()), list(reports)), ring)
    return Delivery("status.update", headers, body, None)


def sorted_from(*deliveries: Delivery) -> Sorted:
    batch = Sorted()
    for one in deliveries:
        batch.add_reports(one, RING, LIMITS, NOW)
    return batch


def test_a_finish_is_read_in_full():
    facts = parsed()
    assert (facts.run_id, facts.attempt, str(facts.token), str(facts.nonce)) == (7, 1, TOKEN, NONCE)
    assert facts.outcome is Outcome.COMPLETED
    assert facts.started_at == datetime(2030, 1, 1, 0, 0, 0, 250000, UTC)
    assert (facts.result_json, facts.duration_ms, facts.counts_as_crash) == ('{"n":1}', 750, False)


def test_unknown_keys_of_a_newer_worker_are_ignored():
    assert parsed(mood="good") == parsed()


@pytest.mark.parametrize(
    "changes",
    [
        {"run": "7"}, {"run": -1}, {"run": True}, {"run": 2**63}, {"run": None}, {"attempt": 0.5}, {"attempt": 40000},
        {"token": "x"}, {"token": 5}, {"nonce": "x"}, {"outcome": "DONE"}, {"outcome": ["COMPLETED"]},
        {"outcome": None},
        {"started_at": "now"}, {"started_at": -5}, {"ended_at": 1e300}, {"ended_at": float("nan")}, {"duration_ms": -1},
        {"duration_ms": 1.5}, {"result": {"n": 1}}, {"result": "{"}, {"result": "NaN"}, {"error_type": 5},
        {"error_message": []}, {"retryable": "yes"}, {"retry_after": "soon"}, {"retry_after": float("inf")},
    ],
    ids=str,
)  # fmt: skip
def test_a_finish_with_a_wrong_field_is_refused(changes: dict[str, Any]):
    with pytest.raises(BadReport):
        parsed(**changes)


def test_a_result_that_is_too_large_is_replaced_by_a_note():
    assert json.loads(parsed(result=json.dumps("x" * 2000)).result_json) == {"truncated": True, "bytes": 2002}


def test_what_a_jsonb_column_cannot_hold_is_replaced():
    assert json.loads(parsed(result='{"a\\u0000b": "\\u0000", "s": ["\\ud800"]}').result_json) == {
        "a\ufffdb": "\ufffd",
        "s": ["\ufffd\ufffd\ufffd"],
    }
    assert json.loads(parsed(result=json.dumps("naïve ✓")).result_json) == "naïve ✓"


def test_a_result_is_kept_as_long_as_it_was_sent():
    text = '{"列车":"naïve ✓ 🚂"}'
    assert parsed(result=text).result_json == text


def test_texts_are_cut_with_a_mark_and_hold_no_nul():
    facts = parsed(error_message="x" * 500, error_type="T" * 500)
    assert facts.error_message == "x" * 100 + " [cut: 100 of 500 bytes]"
    assert len(facts.error_type) == 200
    assert storable("a\x00b", 10) == "a\ufffdb"
    assert storable("\ud800", 100).encode()
    assert storable("€" * 10, 10) == "€" * 3 + " [cut: 10 of 30 bytes]"


def test_a_long_wait_before_a_retry_cannot_overflow_a_date():
    assert parsed(retry_after=1e18).retry_after_seconds == 366 * 86400
    assert parsed(retry_after=10**400).retry_after_seconds == 366 * 86400
    assert parsed(retry_after=-5).retry_after_seconds == 0


_NASTY = [
    None,
    True,
    0,
    -1,
    2**70,
    1.5,
    float("nan"),
    float("inf"),
    "",
    "\x00",
    "\ud800",
    "COMPLETED",
    "[",
    [],
    [[]],
    {},
    {"a": []},
]


@given(st.dictionaries(st.sampled_from([*sorted(finish()), "reason"]), st.sampled_from(_NASTY), max_size=4))
def test_no_report_whatever_its_content_raises_anything_but_bad_report(changes: dict[str, Any]):
    with suppress(BadReport):
        parsed(**changes)
    with suppress(BadReport):
        parse_hand_back(finish(**changes))


def test_reports_are_sorted_by_kind():
    identity = {"run": 7, "attempt": 1, "token": TOKEN}
    batch = sorted_from(
        delivery(
            finish(),
            identity | {"kind": "log", "seq": 1, "stream": "stdout", "text": "a\x00", "at": 1893456000},
            identity | {"kind": "progress", "seq": 1, "percent": 40, "message": "copying"},
            identity | {"kind": "hand_back", "nonce": None, "reason": "drain"},
        )
    )
    assert (len(batch.finishes), len(batch.chunks), len(batch.progress), len(batch.hand_backs)) == (1, 1, 1, 1)
    assert batch.finishes[0].worker_id == "w1"
    assert batch.chunks[0].text == "a\ufffd"
    assert batch.progress[0].at == NOW
    assert batch.poison == []


def test_one_bad_report_is_set_aside_and_the_others_of_its_batch_count():
    batch = sorted_from(delivery(finish(), finish(run="x"), {"kind": "dance"}, {"kind": "log"}, finish(run=8)))
    assert [facts.run_id for facts in batch.finishes] == [7, 8]
    assert [poison.why for poison in batch.poison] == ["report"] * 3
    assert {poison.worker_id for poison in batch.poison} == {"w1"}


def unsigned() -> Delivery:
    return Delivery("status.update", {}, delivery(finish()).body, None)


def signed_by_somebody_else() -> Delivery:
    return delivery(finish(), ring=KeyRing({"k": "z" * 40}, "k"))


def of_the_future() -> Delivery:
    body = json.dumps({"v": 99, "reports": []}).encode()
    return Delivery("status.update", {"key_id": "k", "signature": RING.sign(body)}, body, None)


def changed_on_the_way() -> Delivery:
    good = delivery(finish())
    return Delivery("status.update", good.headers, good.body.replace(b'"run":7', b'"run":8'), None)


def not_json() -> Delivery:
    return Delivery("status.update", {"key_id": "k", "signature": RING.sign(b"\xff\x00")}, b"\xff\x00", None)


@pytest.mark.parametrize("bad", [unsigned, signed_by_somebody_else, of_the_future, changed_on_the_way, not_json])
def test_a_batch_that_cannot_be_trusted_is_set_aside_as_a_whole(bad: Any):
    batch = sorted_from(bad(), delivery(finish()))
    assert [poison.why for poison in batch.poison] == ["batch"]
    assert len(batch.finishes) == 1


@pytest.mark.parametrize("percent", [-1, 101, "40", True, float("nan")])
def test_progress_outside_of_0_to_100_is_refused(percent: Any):
    report = {"kind": "progress", "run": 1, "attempt": 1, "token": TOKEN, "seq": 1, "percent": percent}
    assert len(sorted_from(delivery(report)).poison) == 1
