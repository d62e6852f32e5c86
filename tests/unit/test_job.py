"""The job that a body sees, and what belongs to it."""

from __future__ import annotations

import contextlib
import io
import sys
import threading
from typing import Any

import pytest

from workers_app import job
from workers_app.job import Job, StreamOfThreads, StreamToJob, current_job, set_current_job


def a_job(run_id: int, sent: list[dict[str, Any]]) -> Job:
    return Job(
        run_id=run_id, attempt=1, token="t", task_name="x", send=sent.append, stop_reason=lambda: None,
        deadline_monotonic=None, log_bytes_max=None, now=lambda: 0.0,
    )  # fmt: skip


@pytest.fixture(autouse=True)
def no_job_afterwards():
    yield
    set_current_job(None)


def in_a_thread(act) -> None:
    thread = threading.Thread(target=act)
    thread.start()
    thread.join(10)


def test_what_a_bodys_threads_print_is_in_its_log():
    sent: list[dict[str, Any]] = []
    job = a_job(1, sent)
    set_current_job(job)
    with contextlib.redirect_stdout(StreamToJob("stdout")):
        in_a_thread(lambda: print("from a thread"))
    job.close()
    assert "".join(report["text"] for report in sent) == "from a thread\n"


def test_a_thread_that_outlives_its_body_never_writes_into_the_next_runs_log():
    first: list[dict[str, Any]] = []
    second: list[dict[str, Any]] = []
    go_on, asked = threading.Event(), threading.Event()
    seen = []

    def lingers() -> None:
        seen.append(current_job().run_id)
        asked.set()
        go_on.wait(10)
        seen.append(current_job().run_id)

    set_current_job(a_job(1, first))
    thread = threading.Thread(target=lingers)
    thread.start()
    asked.wait(10)
    set_current_job(a_job(2, second))
    go_on.set()
    thread.join(10)
    assert seen == [1, 1]


def test_outside_of_a_run_there_is_a_job_that_does_nothing():
    set_current_job(None)
    assert not current_job().managed
    in_a_thread(lambda: current_job().progress(1, "x"))


def test_progress_without_words_is_progress():
    sent: list[dict[str, Any]] = []
    a_job(1, sent).progress(10, None)
    assert (sent[0]["percent"], sent[0]["message"]) == (10, "")


def test_where_bodies_share_a_process_each_ones_output_is_its_own(monkeypatch):
    monkeypatch.setattr(job, "_shared", False)
    job.share_process()
    elsewhere = io.StringIO()
    monkeypatch.setattr(sys, "stdout", StreamOfThreads("stdout", elsewhere))
    sent: dict[int, list[dict[str, Any]]] = {1: [], 2: []}
    both = threading.Barrier(2)

    def body(run_id: int) -> None:
        one = a_job(run_id, sent[run_id])
        set_current_job(one)
        for _ in range(20):
            both.wait(10)
            print(run_id)
        in_a_thread(lambda: print("nobody's"))
        one.close()
        set_current_job(None)

    threads = [threading.Thread(target=body, args=(run_id,)) for run_id in sent]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    print("the worker's")
    for run_id, reports in sent.items():
        assert "".join(report["text"] for report in reports) == f"{run_id}\n" * 20
    assert sorted(elsewhere.getvalue().splitlines()) == ["nobody's", "nobody's", "the worker's"]
