"""The way of a run through real processes, the same on every combination of database and broker."""

from __future__ import annotations

import itertools
import time
from contextlib import suppress

import pytest
from celery import Celery

from tests.acceptance.installation import Installation

pytestmark = pytest.mark.timeout(180)
_names = itertools.count()


def make(installed: Installation, function: str | None = None, *, executor: str = "python", **changes) -> int:
    parameters = changes.pop("parameters", {"function": function, "kwargs": changes.pop("kwargs", {})})
    body = {
        "name": f"{function or executor}-{next(_names)}", "executor": executor, "parameters": parameters,
        "max_retries": 0, "retry_delay_seconds": 0.1, "retry_delay_cap_seconds": 0.5, "timeout_seconds": 60,
    }  # fmt: skip
    return installed.api("POST", "tasks", body | changes, expect=201)["id"]


def run(installed: Installation, task_id: int, **body) -> dict:
    triggered = installed.api("POST", f"tasks/{task_id}/trigger", body, expect=201)
    return installed.finished(triggered["id"])


def test_a_run_completes_with_its_result_and_its_log(installed):
    task = make(installed, "tests.add", kwargs={"a": 1})
    done = run(installed, task, parameters={"kwargs": {"b": 2}})
    assert (done["status"], done["result"], done["retry_count"]) == ("COMPLETED", 3, 0)
    assert done["worker_id"].startswith("w-")
    assert done["execution_duration_ms"] >= 0
    installed.wait_for(lambda: "adding 1 and 2" in installed.log_text(done["id"]), "the log")


def test_many_runs_complete_each_once(installed):
    task = make(installed, "tests.add", kwargs={"a": 1, "b": 1})
    ids = [installed.api("POST", f"tasks/{task}/trigger", {})["id"] for _ in range(60)]
    runs = [installed.finished(run_id) for run_id in ids]
    assert {found["status"] for found in runs} == {"COMPLETED"}
    assert {found["retry_count"] for found in runs} == {0}
    assert {found["worker_id"] for found in runs} == {"w-0", "w-1"}


def test_a_failure_is_recorded_with_its_traceback(installed):
    done = run(installed, make(installed, "tests.fail", kwargs={"message": "out of paper"}))
    assert done["status"] == "FAILED"
    assert done["error_message"].startswith("RuntimeError: out of paper")
    assert "Traceback" in done["error_message"]


def test_a_failing_run_is_retried_and_every_attempt_is_kept(installed):
    done = run(installed, make(installed, "tests.fail", max_retries=2))
    assert (done["status"], done["retry_count"]) == ("FAILED", 2)
    attempts = installed.api("GET", f"runs/{done['id']}/attempts")
    rows = attempts["results"] if isinstance(attempts, dict) else attempts
    assert [row["status"] for row in rows] == ["FAILED"] * 3


def test_self_retry_becomes_a_retry_of_the_run(installed):
    done = run(installed, make(installed, "tests.retry_twice", max_retries=3))
    assert (done["status"], done["retry_count"]) == ("COMPLETED", 2)
    assert done["result"] == {"attempt": 3, "celery_retries": 2}


def test_autoretry_becomes_a_retry_of_the_run(installed):
    done = run(installed, make(installed, "tests.autoretry", max_retries=3))
    assert (done["status"], done["retry_count"], done["result"]) == ("COMPLETED", 1, 2)


def test_a_task_with_its_own_call_runs_under_a_permit(installed):
    assert run(installed, make(installed, "tests.own_call", kwargs={"value": 4}))["result"] == ["called", 4]


def test_replace_is_refused_with_an_error(installed):
    done = run(installed, make(installed, "tests.replaces"))
    assert done["status"] == "FAILED"
    assert "cannot replace itself" in done["error_message"]


def test_a_late_acknowledging_task_runs_once(installed):
    done = run(installed, make(installed, "tests.late"))
    assert (done["status"], done["result"]) == ("COMPLETED", "late")


def test_the_job_interface_tells_the_keys(installed):
    done = run(installed, make(installed, "tests.keys"))
    assert done["result"]["key"] == f"{done['id']}:1"
    assert done["result"]["run_key"] == str(done["id"])
    assert 0 < done["result"]["remaining"] <= 60
    installed.wait_for(lambda: "hello from the logger" in installed.log_text(done["id"]), "the log")


@pytest.mark.parametrize("kind", ["set", "nul", "surrogate", "large", "nan"])
def test_a_result_that_is_hard_to_keep_does_not_lose_the_run(installed, kind):
    done = run(installed, make(installed, "tests.odd_result", kwargs={"kind": kind}))
    assert done["status"] == "COMPLETED"
    if kind == "large":
        assert done["result"]["truncated"] is True


def test_a_python_body_is_ended_at_its_timeout(installed):
    done = run(installed, make(installed, "tests.sleep", kwargs={"seconds": 60}, timeout_seconds=1))
    assert done["status"] == "TIMEOUT"
    assert 900 <= done["execution_duration_ms"] < 5000


def test_a_shell_body_is_ended_at_its_timeout(installed):
    task = make(installed, executor="shell", parameters={"argv": ["sleep", "60"]}, timeout_seconds=1)
    assert run(installed, task)["status"] == "TIMEOUT"


def running(installed: Installation, task_id: int) -> int:
    run_id = installed.api("POST", f"tasks/{task_id}/trigger", {}, expect=201)["id"]
    installed.wait_for(lambda: installed.api("GET", f"runs/{run_id}")["status"] == "RUNNING", "the run to start")
    return run_id


@pytest.mark.parametrize("function", ["tests.sleep", "tests.polite_sleep"])
def test_a_running_python_body_is_cancelled_within_two_seconds(installed, function):
    run_id = running(installed, make(installed, function, kwargs={"seconds": 60}, max_retries=3))
    asked = time.monotonic()
    answer = installed.raw("POST", f"/api/v1/runs/{run_id}/cancel")
    assert (answer.status, answer.body["status"]) == (202, "requested")
    done = installed.finished(run_id)
    assert done["status"] == "CANCELLED"
    assert time.monotonic() - asked < 10


def test_a_running_shell_command_is_cancelled_with_all_its_children(installed, tmp_path):
    mark = tmp_path / "mark"
    script = f"trap '' TERM; (setsid sh -c 'while true; do date +%s.%N > {mark}; sleep 0.1; done' &) ; sleep 60"
    task = make(installed, executor="shell", parameters={"command": script, "shell": True})
    run_id = running(installed, task)
    installed.wait_for(mark.exists, "the command to start")
    installed.raw("POST", f"/api/v1/runs/{run_id}/cancel")
    assert installed.finished(run_id)["status"] == "CANCELLED"
    last = mark.read_text()
    time.sleep(0.5)
    assert mark.read_text() == last


def test_a_waiting_run_is_cancelled_at_once(installed):
    task = make(installed, "tests.add", kwargs={"a": 1, "b": 2}, task_type="nobody")
    run_id = installed.api("POST", f"tasks/{task}/trigger", {}, expect=201)["id"]
    answer = installed.raw("POST", f"/api/v1/runs/{run_id}/cancel")
    assert answer.status == 200
    assert installed.api("GET", f"runs/{run_id}")["status"] == "CANCELLED"
    assert installed.raw("POST", f"/api/v1/runs/{run_id}/cancel").status == 409


def test_a_run_whose_pool_process_dies_is_run_again(installed):
    done = run(installed, make(installed, "tests.dies", max_retries=2))
    assert (done["status"], done["retry_count"], done["result"]) == ("COMPLETED", 1, 2)


def test_a_run_without_retries_whose_pool_process_dies_is_lost(installed):
    done = run(installed, make(installed, "tests.dies", kwargs={"only_first": False}))
    assert (done["status"], done["retry_count"]) == ("LOST", 0)


def test_a_run_that_keeps_killing_its_pool_process_is_quarantined_and_can_be_released(installed):
    task = make(installed, "tests.dies", kwargs={"only_first": False}, max_retries=10, quarantine_after=2)
    done = run(installed, task)
    assert done["status"] == "QUARANTINED"
    installed.api("POST", f"runs/{done['id']}/release", {})
    installed.wait_for(
        lambda: installed.api("GET", f"runs/{done['id']}")["retry_count"] > done["retry_count"],
        "another attempt",
    )


def test_shell_output_and_exit_codes_are_kept(installed):
    task = make(installed, executor="shell", parameters={"command": "echo out; echo err >&2; exit 3", "shell": True})
    done = run(installed, task)
    assert done["status"] == "FAILED"
    assert "3" in done["error_message"]
    installed.wait_for(lambda: "out" in installed.log_text(done["id"]), "the log")
    chunks = installed.api("GET", f"runs/{done['id']}/log")["chunks"]
    assert {chunk["stream"] for chunk in chunks} >= {"stdout", "stderr"}


def test_much_output_is_cut_with_a_visible_mark(installed):
    task = make(
        installed,
        executor="shell",
        parameters={"command": "yes 0123456789 | head -c 20000000", "shell": True},
    )
    done = run(installed, task)
    assert done["status"] == "COMPLETED"
    installed.wait_for(lambda: "truncated" in _all_log(installed, done["id"]), "the mark")


def _all_log(installed: Installation, run_id: int) -> str:
    text, after = "", 0
    while True:
        page = installed.api("GET", f"runs/{run_id}/log?after={after}")
        if not page["chunks"]:
            return text
        text += "".join(chunk["text"] for chunk in page["chunks"])
        after = page["next"]


def test_binary_output_is_kept_as_text(installed):
    task = make(installed, executor="shell", parameters={"command": r"printf 'a\000b\377c'", "shell": True})
    done = run(installed, task)
    assert done["status"] == "COMPLETED"
    installed.wait_for(lambda: "a\ufffdb\ufffdc" in installed.log_text(done["id"]), "the log")


def test_output_can_be_read_while_the_command_runs(installed):
    task = make(installed, executor="shell", parameters={"command": "echo first; sleep 20", "shell": True})
    run_id = running(installed, task)
    installed.wait_for(lambda: "first" in installed.log_text(run_id), "the first line", seconds=5)
    installed.raw("POST", f"/api/v1/runs/{run_id}/cancel")
    installed.finished(run_id)


def test_progress_can_be_seen_while_it_runs(installed):
    run_id = running(installed, make(installed, "tests.polite_sleep", kwargs={"seconds": 20}))
    installed.wait_for(lambda: installed.api("GET", f"runs/{run_id}").get("progress"), "progress", seconds=10)
    installed.raw("POST", f"/api/v1/runs/{run_id}/cancel")
    installed.finished(run_id)


def test_a_paused_task_starts_nothing_until_it_is_resumed(installed):
    task = make(installed, "tests.add", kwargs={"a": 1, "b": 2})
    installed.api("POST", f"tasks/{task}/pause", {"reason": "a test"})
    run_id = installed.api("POST", f"tasks/{task}/trigger", {}, expect=201)["id"]
    why = installed.api("GET", f"runs/{run_id}/why")
    assert "paused" in str(why).lower()
    time.sleep(1)
    assert installed.api("GET", f"runs/{run_id}")["status"] == "PENDING"
    installed.api("POST", f"tasks/{task}/resume", {})
    assert installed.finished(run_id)["status"] == "COMPLETED"


def test_an_interval_fires_runs(installed):
    task = make(installed, "tests.add", kwargs={"a": 1, "b": 2}, every_seconds=1)
    installed.wait_for(lambda: len(installed.api("GET", f"tasks/{task}/runs")["results"]) >= 3, "three fires")
    runs = installed.api("GET", f"tasks/{task}/runs")["results"]
    assert len({found["scheduled_at"] for found in runs}) == len(runs)
    installed.api("DELETE", f"tasks/{task}", expect=204)


def test_both_workers_are_online_and_say_what_they_can_do(installed):
    def both() -> list[dict]:
        rows = installed.api("GET", "workers")["results"]
        online = [row for row in rows if row["state"] == "ONLINE" and row["cpu_percent"] is not None]
        return online if len(online) == 2 else []

    for row in installed.wait_for(both, "two workers online"):
        assert row["supported_task_types"] == ["default"]
        assert row["max_concurrent_tasks"] == 2


def test_task_events_are_sent_from_when_somebody_asks_for_them(installed):
    task = make(installed, "tests.add", kwargs={"a": 1, "b": 1})
    app = Celery(broker=installed.broker_url, set_as_current=False)
    nodes = ["signalbox@w-0", "signalbox@w-1"]
    succeeded: list[str] = []
    with app.connection_for_read() as connection:
        handlers = {"task-succeeded": lambda event: succeeded.append(event["uuid"])}
        receiver = app.events.Receiver(connection, handlers=handlers)
        with receiver.consumer_context(wakeup=False) as (live, _channel, _consumers):

            def heard() -> bool:
                with suppress(TimeoutError):
                    live.drain_events(timeout=0.2)
                return bool(succeeded)

            heard()  # on Redis only who listens already hears an event
            unseen = run(installed, task)
            try:
                assert len(app.control.enable_events(nodes, reply=True, timeout=10)) == 2
                seen = run(installed, task)
                installed.wait_for(heard, "an event")
            finally:
                app.control.disable_events(nodes, reply=True, timeout=10)
    assert unseen["status"] == seen["status"] == "COMPLETED"
    assert len(succeeded) == 1, "none of the run before anybody asked"
