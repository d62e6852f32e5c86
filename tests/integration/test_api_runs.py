"""`/api/v1/runs`."""

from datetime import timedelta

import pytest

from tasks_app import admission, lifecycle, services
from tasks_app.clock import clock
from tasks_app.models import RunLogChunk, TaskRun
from tasks_app.states import Outcome
from tests.integration.faces import Api, a_task, a_worker, dispatched, ended, running, user
from workers_app.models import Worker

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def fresh_backlog():
    admission.forget()


@pytest.fixture
def api():
    return Api(user(superuser=True))


@pytest.fixture
def run():
    return services.trigger(a_task())


def chunk(run, attempt, seq, text="x", *, at=None):
    return RunLogChunk.objects.create(
        run=run, attempt=attempt, seq=seq, stream="stdout", text=text, token=run.correlation_id, at=at or clock.now()
    )


def test_a_run_has_the_shape_that_clients_rely_on(api, run):
    body = api("GET", f"runs/{run.pk}").body
    assert {
        "id", "task_id", "task_name", "status", "worker_id", "retry_count", "scheduled_at", "started_at",
        "completed_at", "result", "error_message", "execution_duration_ms", "created_at",
    } <= set(body)  # fmt: skip
    assert (body["id"], body["status"], body["retry_count"]) == (run.pk, "PENDING", 0)


def test_a_run_that_is_not_there_is_a_problem(api):
    response = api("GET", "runs/999999")
    assert (response.status_code, response.body["code"]) == (404, "run.not_found")


@pytest.mark.parametrize("make", [lambda run: run, dispatched], ids=["waiting", "dispatched"])
def test_what_waits_is_cancelled_at_once(api, run, make):
    make(run)
    response = api("POST", f"runs/{run.pk}/cancel")
    assert (response.status_code, response.body) == (200, {"status": "cancelled"})
    run.refresh_from_db()
    assert (run.status, run.cancel_requested_by) == ("CANCELLED", "ada")


def test_what_runs_is_asked_to_stop(api, run):
    running(run)
    for _ in range(2):  # asking again is answered the same
        response = api("POST", f"runs/{run.pk}/cancel")
        assert (response.status_code, response.body) == (202, {"status": "requested"})
    run.refresh_from_db()
    assert run.status == "RUNNING"
    assert run.cancel_requested_at


def test_what_has_ended_cannot_be_cancelled(api, run):
    ended(run)
    response = api("POST", f"runs/{run.pk}/cancel")
    assert (response.status_code, response.body["code"]) == (409, "run.stale_transition")
    assert response.body["details"]["status"] == "COMPLETED"


def test_a_final_run_is_retried_as_a_new_one_in_the_same_trace(api, run):
    ended(run, Outcome.FAILED)
    response = api("POST", f"runs/{run.pk}/retry", {"parameters": {"env": {"A": "1"}}})
    assert response.status_code == 201
    assert response.body["retry_of_id"] == run.pk
    assert response.body["parameters"]["env"] == {"A": "1"}
    assert response.body["trace_id"] == run.traceparent.split("-")[1]
    assert response.body["correlation_id"] == str(run.correlation_id)


def test_a_run_under_way_is_not_retried(api, run):
    assert api("POST", f"runs/{run.pk}/retry").status_code == 409


def test_a_run_of_a_deleted_task_is_not_retried(api, run):
    ended(run)
    services.delete_task(run.task_id)
    response = api("POST", f"runs/{run.pk}/retry")
    assert (response.status_code, response.body["code"]) == (404, "task.not_found")


def test_a_quarantined_run_is_released(api):
    run = services.trigger(a_task(quarantine_after=1))
    ended(run, Outcome.LOST, retryable=True)
    run.refresh_from_db()
    assert run.status == "QUARANTINED"
    response = api("POST", f"runs/{run.pk}/release")
    assert (response.status_code, response.body["status"]) == (200, "PENDING")
    assert api("POST", f"runs/{run.pk}/release").status_code == 409


def test_attempts_and_events_tell_what_happened(api, run):
    ended(run, Outcome.FAILED, retryable=True, error_type="ValueError", error_message="no")
    [attempt] = api("GET", f"runs/{run.pk}/attempts").body
    assert (attempt["number"], attempt["status"], attempt["error_message"]) == (1, "FAILED", "no")
    events = api("GET", f"runs/{run.pk}/events").body
    assert events
    assert events[-1]["detail"]["next"] == "PENDING"


def test_why_names_what_is_in_the_way(api, run):
    services.pause_task(run.task_id, by="bob", reason="disk")
    reasons = {reason["code"]: reason for reason in api("GET", f"runs/{run.pk}/why").body}
    assert reasons["task_paused"]["holder"] == "bob"
    assert reasons["task_paused"]["remedy"]
    assert "no_worker" in reasons


def test_nothing_is_in_the_way_of_a_run_that_ended(api, run):
    ended(run)
    assert api("GET", f"runs/{run.pk}/why").body == []


def test_lists_are_newest_first_and_filtered(api):
    task, other = a_task("a"), a_task("b", task_type="other")
    runs = [services.trigger(task) for _ in range(3)]
    strange = services.trigger(other)
    ended(runs[0])

    def ids(query):
        return [row["id"] for row in api("GET", f"runs?{query}").body["results"]]

    newest_first = [strange.pk, *(run.pk for run in reversed(runs))]
    assert ids("") == newest_first
    assert ids("status=completed") == [runs[0].pk]
    assert ids("status=PENDING,COMPLETED") == newest_first
    assert ids("task=b") == ids(f"task={other.pk}") == ids("task_type=other") == [strange.pk]
    assert ids("worker=w1") == [runs[0].pk]
    later = (clock.now() + timedelta(hours=1)).isoformat()
    assert ids(f"created_after={later}") == []
    assert ids(f"created_before={later}") == newest_first
    assert [r["id"] for r in api("GET", f"tasks/{task.pk}/runs?limit=2").body["results"]] == [r.pk for r in runs[:0:-1]]


@pytest.mark.parametrize(
    "query", ["status=DONE", "status=", "created_after=x", "created_after=2030-01-01T00:00:00", "q=1"]
)
def test_a_filter_that_cannot_be_meant_is_refused(api, query):
    assert api("GET", f"runs?{query}").status_code == 400


def test_a_list_of_runs_takes_a_fixed_number_of_queries(api, django_assert_max_num_queries):
    task = a_task()
    services.trigger_many(task, [{}] * 20)
    with django_assert_max_num_queries(4):
        assert len(api("GET", "runs").body["results"]) == 20


def test_a_log_is_read_piece_by_piece(api, run):
    for seq, text in enumerate(("one\n", "two\n"), start=1):
        chunk(run, 1, seq, text)
    first = api("GET", f"runs/{run.pk}/log?after=0").body
    assert [c["text"] for c in first["chunks"]] == ["one\n", "two\n"]
    assert set(first["chunks"][0]) >= {"offset", "stream", "text", "at"}
    assert first["complete"] is False
    chunk(run, 1, 3, "three\n")
    chunk(run, 2, 1, "again\n")
    second = api("GET", f"runs/{run.pk}/log?after={first['next']}").body
    assert [c["text"] for c in second["chunks"]] == ["three\n", "again\n"]
    third = api("GET", f"runs/{run.pk}/log?after={second['next']}").body
    assert (third["chunks"], third["next"]) == ([], second["next"])


def test_a_log_waits_at_a_gap_and_not_for_ever(api, run):
    chunk(run, 1, 1, "one")
    late = chunk(run, 1, 3, "three")
    first = api("GET", f"runs/{run.pk}/log").body
    assert [c["text"] for c in first["chunks"]] == ["one"]
    RunLogChunk.objects.filter(pk=late.pk).update(at=clock.now() - timedelta(minutes=1))
    second = api("GET", f"runs/{run.pk}/log?after={first['next']}").body
    assert [c["text"] for c in second["chunks"]] == ["three"]


def test_a_log_is_complete_when_the_run_has_ended_and_the_tail_had_time(api, run):
    ended(run)
    chunk(run, 1, 1, "one")
    assert api("GET", f"runs/{run.pk}/log").body["complete"] is False
    TaskRun.objects.filter(pk=run.pk).update(completed_at=clock.now() - timedelta(seconds=5))
    assert api("GET", f"runs/{run.pk}/log").body["complete"] is True


def test_a_long_log_comes_in_pages(api, run, monkeypatch):
    for seq in range(1, 6):
        chunk(run, 1, seq, str(seq))
    now = clock.now()
    run.refresh_from_db()
    from tasks_app.logs import read_log

    first = read_log(run, after=0, now=now, limit=2)
    assert [c.text for c in first.chunks] == ["1", "2"]
    assert not first.complete
    assert [c.text for c in read_log(run, after=first.next, now=now, limit=2).chunks] == ["3", "4"]


@pytest.mark.parametrize("after", ["-1", "x", "9" * 30])
def test_an_offset_that_is_none_is_refused(api, run, after):
    assert api("GET", f"runs/{run.pk}/log?after={after}").status_code == 400


def test_the_workers_view_shows_what_it_holds_and_drains(api, run):
    held = a_worker("w1")
    running(run, held)
    listed = api("GET", "workers").body["results"]
    assert [(w["id"], w["state"]) for w in listed] == [("w1", "ONLINE")]
    stats = api("GET", "workers/w1/stats").body
    assert (stats["running"], stats["run_ids"], stats["slots"]) == (1, [run.pk], 2)
    drained = api("POST", "workers/w1/drain")
    assert (drained.status_code, drained.body["state"], drained.body["drain_requested_by"]) == (200, "DRAINING", "ada")
    assert api("POST", "workers/w1/resume").body["state"] == "ONLINE"
    assert api("GET", "workers/w1").body["pool_can_end"] == {"python": "ALWAYS", "shell": "ALWAYS", "http": "ALWAYS"}
    Worker.objects.update(pool="a-later-one")
    assert api("GET", "workers/w1").body["pool_can_end"] is None
    assert api("GET", "workers/none").status_code == 404
    assert api("POST", "workers/none/drain").status_code == 404


def test_a_deletion_waits_for_no_run_that_was_never_submitted():
    task = a_task()
    services.delete_task(task.pk)
    from tasks_app.errors import TaskNotFound

    with pytest.raises(TaskNotFound):
        services.trigger(task)  # the caller read it before it was deleted
    assert not TaskRun.objects.exists()
    assert lifecycle.cancel([], by="", now=clock.now()).cancelled == []


@pytest.mark.parametrize(
    "asked",
    [
        "created_after=0001-01-01T00:00:00%2B14:00",
        "created_before=9999-12-31T23:59:59-14:00",
        "created_after=2030-01-01",
        "created_after=x",
    ],
)
def test_a_time_that_cannot_be_compared_with_is_refused(api, asked):
    answer = api("GET", f"runs?{asked}")
    assert (answer.status_code, answer.body["code"]) == (400, "request.malformed")
