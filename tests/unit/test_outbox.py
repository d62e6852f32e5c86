import time
import uuid

from tasks_app.lifecycle.recede import Held
from workers_app.execution import outbox as module
from workers_app.execution.outbox import Outbox
from workers_app.metrics import TELEMETRY_DROPPED


def held(n: int) -> Held:
    return Held(n, 1, uuid.UUID(int=n), uuid.UUID(int=1000 + n))


def test_an_outcome_stays_until_it_is_settled_however_often_it_was_published():
    box = Outbox()
    assert box.put_outcome(held(1), b"one")
    nonces, payloads = box.batch(10, 10_000)
    assert payloads == [b"one"]
    box.published(nonces)
    assert [item.held for item in box.unsettled()] == [held(1)]
    assert box.batch(10, 10_000) == ([], [])
    box.settle({held(1).nonce})
    assert box.unsettled() == []


def test_the_same_attempt_enters_once():
    box = Outbox()
    assert box.put_outcome(held(1), b"one")
    assert not box.put_outcome(held(1), b"other")
    assert box.batch(10, 10_000)[1] == [b"one"]


def test_what_the_broker_did_not_confirm_goes_out_again_in_order():
    box = Outbox()
    box.put_telemetry(b"log")
    box.put_outcome(held(1), b"one")
    box.put_outcome(held(2), b"two")
    nonces, payloads = box.batch(2, 10_000)
    assert payloads == [b"log", b"one"]
    box.unpublished(nonces, payloads)
    assert box.batch(10, 10_000)[1] == [b"log", b"one", b"two"]


def test_output_goes_out_before_the_end_of_its_attempt():
    box = Outbox()
    box.put_outcome(held(1), b"end")
    box.put_telemetry(b"last words")
    assert box.batch(10, 10_000)[1] == [b"last words", b"end"]


def test_a_batch_is_cut_by_size():
    box = Outbox()
    for n in range(5):
        box.put_outcome(held(n), b"x" * 100)
    assert len(box.batch(10, 250)[1]) == 3


def test_logs_are_dropped_before_memory_runs_out_and_outcomes_never(monkeypatch, caplog):
    monkeypatch.setattr(module, "TELEMETRY_BYTES_MAX", 1000)
    box = Outbox()
    before = TELEMETRY_DROPPED._value.get()
    box.put_outcome(held(1), b"one")
    for _ in range(20):
        box.put_telemetry(b"x" * 100)
    assert TELEMETRY_DROPPED._value.get() == before + 10
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert b"one" in box.batch(100, 10**6)[1]


def test_each_time_that_logs_are_dropped_is_told_once(monkeypatch, caplog):
    monkeypatch.setattr(module, "TELEMETRY_BYTES_MAX", 100)
    box = Outbox()
    for told in (1, 2):
        for _ in range(3):
            box.put_telemetry(b"x" * 100)
        assert len(caplog.records) == told
        box.batch(100, 10**6)


def test_only_old_outcomes_are_late():
    box = Outbox()
    box.put_outcome(held(1), b"one")
    assert box.unsettled(older_than_seconds=60) == []
    deadline = time.monotonic() + 2
    while not box.unsettled(older_than_seconds=0.01):
        assert time.monotonic() < deadline
