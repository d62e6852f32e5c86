"""What stopping and killing processes does to runs."""

from __future__ import annotations

import os
import re
import signal

import pytest

from tests.acceptance.installation import Installation, installation
from tests.acceptance.test_runs import make, running

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def small(tmp_path, valkey):
    """One of each role, on SQLite and the embedded broker."""
    with installation(
        tmp_path, f"sqlite:///{tmp_path / 'db.sqlite3'}", valkey.url.rsplit("/", 1)[0] + "/3",
        SIGNALBOX_IMPORTS="tests.acceptance.jobs_of_tests", SIGNALBOX_WORKERS__DRAIN_SECONDS="3",
    ) as made:  # fmt: skip
        made.start_all(workers=1)
        yield made


def children_of(pid: int) -> list[int]:
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(word) for word in file.read().split()]


def test_every_role_stops_cleanly_on_sigterm(small: Installation):
    for label in ("worker-0", "ingest-0", "dispatcher-0", "web"):
        assert small.stop(label) == 0, small.tail(label)


def test_a_body_without_memory_does_not_end_its_worker(small: Installation):
    neighbour = running(small, make(small, "tests.sleep", kwargs={"seconds": 3}))
    task = make(small, "tests.out_of_memory")
    failed = small.finished(small.api("POST", f"tasks/{task}/trigger", {}, expect=201)["id"])
    assert failed["status"] == "FAILED"
    assert "MemoryError: too much" in failed["error_message"]
    assert small.finished(neighbour)["status"] == "COMPLETED"
    assert small.roles["worker-0"].poll() is None
    assert "Unrecoverable" not in (small.folder / "worker-0.log").read_text()


def test_a_draining_worker_finishes_what_runs(small: Installation):
    run_id = running(small, make(small, "tests.sleep", kwargs={"seconds": 2}))
    assert small.stop("worker-0") == 0
    done = small.finished(run_id)
    assert (done["status"], done["retry_count"]) == ("COMPLETED", 0)


def test_a_body_that_outlasts_the_drain_is_ended_and_run_elsewhere(small: Installation):
    run_id = running(small, make(small, "tests.sleep", kwargs={"seconds": 600}, max_retries=3))
    small.stop("worker-0")
    small.wait_for(lambda: small.api("GET", f"runs/{run_id}")["status"] == "PENDING", "the run to wait again")
    assert small.api("GET", f"runs/{run_id}")["retry_count"] == 1


def test_what_was_only_prefetched_goes_back_without_using_up_an_attempt(small: Installation):
    task = make(small, "tests.sleep", kwargs={"seconds": 2})
    ids = [small.api("POST", f"tasks/{task}/trigger", {}, expect=201)["id"] for _ in range(8)]
    small.wait_for(lambda: small.api("GET", f"runs/{ids[0]}")["status"] == "RUNNING", "the first to start")
    small.stop("worker-0")
    small.start("worker-again", "run_worker", "--name", "w-again", "--slots", "4")
    runs = [small.finished(run_id, 90) for run_id in ids]
    assert {(found["status"], found["retry_count"]) for found in runs} == {("COMPLETED", 0)}


def test_a_worker_stopped_under_load_hands_back_what_it_was_permitted_and_did_not_begin(small: Installation):
    """With permits in hand ahead of its slots, and no ingest that could read what it says on its way out."""
    task = make(small, "tests.add", kwargs={"a": 1, "b": 2}, max_retries=0)

    def trigger(count: int) -> list[int]:
        return [small.api("POST", f"tasks/{task}/trigger", {}, expect=201)["id"] for _ in range(count)]

    for run_id in trigger(20):  # it is known to be short now
        small.finished(run_id)
    small.api("POST", f"tasks/{task}/pause")
    ids = trigger(400)
    # First: while it ends, a worker would carry out all the others.
    small.stop("ingest-0")
    small.api("POST", f"tasks/{task}/resume")
    small.wait_for(lambda: small.api("GET", f"runs/{ids[30]}")["status"] == "RUNNING", "a part of them to begin")
    small.stop("worker-0")
    small.start("ingest-again", "run_ingest")
    small.start("worker-again", "run_worker", "--name", "w-again", "--slots", "2")
    runs = [small.finished(run_id, 90) for run_id in ids]
    assert {(found["status"], found["retry_count"]) for found in runs} == {("COMPLETED", 0)}
    assert {found["worker_id"] for found in runs} == {"w-0", "w-again"}


def test_a_killed_worker_leaves_no_process_and_its_run_is_run_again(small: Installation):
    run_id = running(small, make(small, "tests.sleep", kwargs={"seconds": 3}, max_retries=2))
    process = small.roles.pop("worker-0")
    family = children_of(process.pid)
    assert family
    process.kill()
    process.wait()
    small.wait_for(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in family), "children to be gone", 5)
    small.start("worker-b", "run_worker", "--name", "w-b", "--slots", "2")
    done = small.finished(run_id, 60)
    assert (done["status"], done["retry_count"], done["worker_id"]) == ("COMPLETED", 1, "w-b")


def test_a_stopped_worker_loses_its_bodies_before_a_successor_starts(small: Installation):
    run_id = running(small, make(small, "tests.sleep", kwargs={"seconds": 40}, max_retries=2))
    process = small.roles["worker-0"]
    said = small.wait_for(lambda: re.search(r"in process (\d+)\.", small.log_text(run_id)), "the body's first words")
    body = int(said.group(1))
    assert body in children_of(process.pid)
    process.send_signal(signal.SIGSTOP)
    small.start("worker-b", "run_worker", "--name", "w-b", "--slots", "2")
    small.wait_for(lambda: small.api("GET", f"runs/{run_id}")["worker_id"] == "w-b", "a successor", 60)
    # A zombie, since its parent stands still and cannot take notice.
    assert _state(body) in {"Z", "gone"}
    process.send_signal(signal.SIGCONT)
    small.wait_for(lambda: "judged over" in (small.folder / "worker-0.log").read_text(), "the worker to notice", 60)
    small.raw("POST", f"/api/v1/runs/{run_id}/cancel")
    assert small.finished(run_id)["status"] == "CANCELLED"


def _state(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return "gone"


def test_a_worker_that_is_stopped_while_it_starts_leaves_no_lease_behind(small: Installation):
    process = small.start("worker-c", "run_worker", "--name", "w-c", "--slots", "1")
    small.wait_for(lambda: "worker registered" in (small.folder / "worker-c.log").read_text(), "the registration")
    process.terminate()
    process.wait(30)
    del small.roles["worker-c"]
    rows = {row["name"]: row["state"] for row in small.api("GET", "workers")["results"]}
    assert rows["w-c"] == "OFFLINE"


def test_pool_processes_may_ask_for_their_permits_themselves(tmp_path, valkey):
    with installation(
        tmp_path, f"sqlite:///{tmp_path / 'db.sqlite3'}", valkey.url.rsplit("/", 1)[0] + "/3",
        SIGNALBOX_IMPORTS="tests.acceptance.jobs_of_tests", SIGNALBOX_WORKERS__PERMITS="each",
    ) as made:  # fmt: skip
        made.start_all(workers=1)
        task = make(made, "tests.add", kwargs={"a": 1, "b": 2})
        ids = [made.api("POST", f"tasks/{task}/trigger", {}, expect=201)["id"] for _ in range(20)]
        assert {(run["status"], run["retry_count"]) for run in map(made.finished, ids)} == {("COMPLETED", 0)}
        stopped = running(made, make(made, "tests.sleep", kwargs={"seconds": 60}))
        assert made.raw("POST", f"/api/v1/runs/{stopped}/cancel").status == 202
        assert made.finished(stopped)["status"] == "CANCELLED"
