"""What becomes of bodies in threads when their worker ends, and of runs when Celery's own tools have a hand in it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.acceptance.installation import ROOT, Installation
from tests.acceptance.pools import begun, cancelled, standing_still, start_workers, triggered, with_pools
from tests.acceptance.test_runs import make, running
from tests.processes import alive, of_run

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, valkey) -> Iterator[Installation]:
    """On SQLite and the embedded broker."""
    folder = tmp_path_factory.mktemp("ends")
    with with_pools(folder, f"sqlite:///{folder / 'db.sqlite3'}", valkey.url.rsplit("/", 1)[0] + "/8") as made:
        yield made


def both(made: Installation, word: str) -> tuple[str, str]:
    """A worker of each pool for one test."""
    names = (f"threads-{word}", f"solo-{word}")
    start_workers(made, {name: name.partition("-")[0] for name in names})
    return names


def waits_again(made: Installation, *run_ids: int) -> None:
    """They were tried once and wait."""
    for run_id in run_ids:
        found = made.wait_for(
            lambda run_id=run_id: (
                (run := made.api("GET", f"runs/{run_id}"))["status"] in ("PENDING", "DISPATCHED") and run
            ),
            f"run {run_id} to wait again",
        )
        assert found["retry_count"] == 1
    cancelled(made, *run_ids)


def test_a_drain_interrupts_bodies_and_what_cannot_be_ended_ends_with_its_process(made: Installation):
    drained, stuck = both(made, "drained"), both(made, "stuck")
    short = begun(made, drained[0], "tests.sleep", kwargs={"seconds": 1})
    long = [begun(made, name, "tests.sleep", kwargs={"seconds": 600}, max_retries=3) for name in drained]
    held = [begun(made, name, "tests.blocks", kwargs={"seconds": 600}, max_retries=1) for name in stuck]
    for name in (*drained, *stuck):
        made.roles[name].terminate()
    # Told once: with solo, a second signal would reach into the blocked call, and the exception with it.
    assert [made.roles.pop(name).wait(40) for name in (*drained, *stuck)] == [0, 0, 1, 1]
    assert [made.api("GET", f"runs/{run_id}")["status"] for run_id in held] == ["RUNNING"] * 2, "until the lease ends"
    assert all("bodies that cannot be ended" in made.tail(name) for name in stuck)
    done = made.finished(short)
    assert (done["status"], done["retry_count"]) == ("COMPLETED", 0)
    waits_again(made, *long, *held)


def test_a_cold_shutdown_gives_bodies_no_time(made: Installation):
    names = both(made, "cold")
    runs = [begun(made, name, "tests.sleep", kwargs={"seconds": 600}, max_retries=3) for name in names]
    for name in names:
        made.roles[name].send_signal(signal.SIGQUIT)
    for name in names:
        made.roles.pop(name).wait(20)
    waits_again(made, *runs)
    for run_id in runs:
        [attempt] = made.api("GET", f"runs/{run_id}/attempts")
        assert (attempt["status"], attempt["error_type"]) == ("LOST", "WorkerDrained")


def test_a_worker_that_is_killed_or_stands_still_takes_its_bodies_along_before_a_successor_may_start(
    made: Installation,
):
    names = both(made, "still")
    start_workers(made, {"killed": "threads"})
    command = {"executor": "shell", "parameters": {"argv": ["sleep", "600"]}, "max_retries": 1}
    bodies = [begun(made, name, "tests.sleep", kwargs={"seconds": 600}, max_retries=1) for name in names]
    run_id = running(made, make(made, task_type="killed", **command))
    made.wait_for(lambda: of_run(run_id), "the command to start")
    with standing_still(made, *(made.roles[name] for name in names)):
        killed = made.roles.pop("killed")
        killed.kill()
        killed.wait()
        made.wait_for(lambda: not of_run(run_id), "the command to be gone", 5)
        for body in bodies:
            made.wait_for(lambda body=body: made.api("GET", f"runs/{body}")["retry_count"] == 1, "the verdict")
    for name in names:
        process = made.roles.pop(name)
        assert not alive(process.pid)
        assert process.wait(5) == -signal.SIGKILL
    waits_again(made, run_id, *bodies)


# -- pool processes that are replaced, and Celery's own tools -------------------------------------------------------


@pytest.fixture(scope="module")
def recycling(made: Installation) -> str:
    """A worker whose processes are replaced after four bodies, or above 250 MiB; and one of threads."""
    options = ("--max-tasks-per-child", "4", "--max-memory-per-child-kib", str(250 * 1024))
    start_workers(made, {"recycling": "prefork"}, *options)
    start_workers(made, {"tooled": "threads"})
    return "recycling"


def told(made: Installation, *words: str) -> Any:
    """What `celery_tools` says."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.acceptance.celery_tools", *words], cwd=ROOT, env=made.environment,
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_process_that_is_replaced_takes_no_run_with_it(made: Installation, recycling: str):
    task = make(made, "tests.process", task_type=recycling)
    ids = [made.api("POST", f"tasks/{task}/trigger", {}, expect=201)["id"] for _ in range(40)]
    runs = [made.finished(run_id) for run_id in ids]
    assert {(run["status"], run["retry_count"]) for run in runs} == {("COMPLETED", 0)}
    pids = [run["result"] for run in runs]
    assert max(pids.count(pid) for pid in pids) <= 4
    assert len(set(pids)) >= 10


def test_a_process_that_has_grown_is_replaced_and_its_run_is_kept(made: Installation, recycling: str):
    task = make(made, "tests.grows", kwargs={"mebibytes": 300}, task_type=recycling)
    runs = [made.finished(made.api("POST", f"tasks/{task}/trigger", {})["id"]) for _ in range(3)]
    assert {(run["status"], run["retry_count"]) for run in runs} == {("COMPLETED", 0)}
    assert len({run["result"] for run in runs}) == 3


@pytest.mark.usefixtures("recycling")
def test_a_revoke_is_no_cancel(made: Installation):
    """Of what runs it changes nothing; what waits is sent again under another id, and nothing is used up."""
    task = make(made, "tests.sleep", task_type="tooled")
    made.api("POST", f"tasks/{task}/pause", {})
    ids = [
        made.api("POST", f"tasks/{task}/trigger", {"parameters": {"kwargs": {"seconds": seconds}}}, expect=201)["id"]
        for seconds in (7, 7, 7, 0)
    ]
    made.api("POST", f"tasks/{task}/resume", {})
    told(made, "revoke", "tooled", "active")
    told(made, "revoke", "tooled", "reserved")
    runs = [made.finished(run_id) for run_id in ids]
    assert {(run["status"], run["retry_count"]) for run in runs} == {("COMPLETED", 0)}
    assert [run["dispatch_count"] for run in runs] == [1, 1, 1, 2]


def test_a_revoke_with_terminate_kills_the_process_and_the_run_is_run_again(made: Installation, recycling: str):
    run_id = begun(made, recycling, "tests.sleeps_first", kwargs={"seconds": 60}, max_retries=1)
    told(made, "revoke", recycling, "active", "terminate")
    done = made.finished(run_id)
    assert (done["status"], done["retry_count"]) == ("COMPLETED", 1)


@pytest.mark.usefixtures("recycling")
def test_a_revoke_with_terminate_is_refused_where_bodies_are_threads(made: Installation):
    run_id = begun(made, "tooled", "tests.sleep", kwargs={"seconds": 60})
    assert "cancel its run instead" in str(told(made, "revoke", "tooled", "active", "terminate"))
    assert made.api("GET", f"runs/{run_id}")["status"] == "RUNNING"
    cancelled(made, run_id)
    assert made.finished(run_id)["status"] == "CANCELLED"


@pytest.mark.usefixtures("recycling")
def test_a_purge_loses_no_run_and_uses_up_nothing(made: Installation):
    with standing_still(made, made.roles["tooled"]):
        ids = [triggered(made, "tooled", "tests.add", kwargs={"a": 1, "b": 2}) for _ in range(3)]
        for run_id in ids:
            made.wait_for(
                lambda run_id=run_id: made.api("GET", f"runs/{run_id}")["status"] == "DISPATCHED",
                "it to be at the broker",
            )
        purged = told(made, "purge", "task.execution.tooled")
    assert purged >= 2, "one may be on its way to the worker already"
    runs = [made.finished(run_id) for run_id in ids]
    assert {(run["status"], run["retry_count"]) for run in runs} == {("COMPLETED", 0)}


def test_the_number_of_slots_is_not_changed_from_outside(made: Installation, recycling: str):
    answers = told(made, "slots", recycling)
    assert [str(answer).count("slots are fixed") for answer in answers] == [1, 1, 1]
    assert made.api("GET", f"workers/{recycling}")["max_concurrent_tasks"] == 3


# -- workers that cannot be ----------------------------------------------------------------------------------------


def test_celerys_own_command_is_refused_as_well(made: Installation):
    script = """
from scheduler_project.celery import app
for options in ({"pool": "eventlet"}, {"pool": "prefork", "autoscale": (4, 1)}):
    try:
        app.Worker(hostname="signalbox@no", **options)
    except SystemExit as refused:
        print(refused)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=made.environment, capture_output=True, text=True, timeout=60
    )
    first, second = done.stdout.splitlines()
    assert "the pool eventlet is not supported" in first
    assert "slots are fixed" in second
