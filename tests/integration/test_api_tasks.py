"""`/api/v1/tasks`."""

import pytest
from django.test import override_settings

from scheduler_project.api import paging
from tasks_app import admission, services
from tasks_app.models import Task, TaskRun, TaskVersion
from tests.integration.faces import Api, a_task, ended, running, user

pytestmark = pytest.mark.django_db

SHELL = {"name": "backup", "task_type": "default", "executor": "shell", "parameters": {"argv": ["true"]},
         "timeout_seconds": 3600, "max_retries": 3}  # fmt: skip
ALL = tuple(
    f"tasks_app.{verb}_{model}" for verb in ("view", "add", "change", "delete") for model in ("task", "taskrun")
)


@pytest.fixture(autouse=True)
def fresh_backlog():
    admission.forget()


@pytest.fixture
def api():
    return Api(user(may=ALL))


def fields(response) -> set[str]:
    return {error["field"] for error in response.body["errors"]}


def test_a_task_is_created_and_read_back(api):
    made = api("POST", "tasks", SHELL)
    assert made.status_code == 201
    assert made.headers["Location"] == f"/api/v1/tasks/{made.body['id']}"
    assert isinstance(made.body["id"], int)
    read = api("GET", f"tasks/{made.body['id']}")
    assert read.status_code == 200
    assert read.body == made.body
    assert read.body["parameters"] == {"argv": ["true"]}
    assert read.body["created_by"] == "ada"
    assert read.headers["ETag"] == '"1"'


def test_a_slash_at_the_end_makes_no_difference(api):
    made = api("POST", "tasks/", SHELL)
    assert made.status_code == 201
    assert api("GET", f"tasks/{made.body['id']}/").status_code == 200


def test_an_http_task_is_created_and_its_runs_parameters_are_checked_too(api):
    parameters = {"url": "https://example.org/", "headers": {"X-A": "1"}}
    made = api("POST", "tasks", SHELL | {"executor": "http", "parameters": parameters})
    assert made.status_code == 201, made.body
    run = api("POST", f"tasks/{made.body['id']}/trigger", {"parameters": {"headers": {"X-B": "2"}, "body": "text"}})
    assert run.status_code == 201
    assert TaskRun.objects.get().parameters == parameters | {"headers": {"X-A": "1", "X-B": "2"}, "body": "text"}
    bad = api("POST", f"tasks/{made.body['id']}/trigger", {"parameters": {"url": "http://me:hush@example.org/"}})
    assert (bad.status_code, bad.body["code"]) == (400, "run.invalid_parameters")
    assert "hush" not in str(bad.body)


def test_what_is_wrong_with_a_request_is_told_in_chinese_to_who_asks_for_it(api):
    bad = {"executor": "http", "parameters": {"url": "https://example.org/", "headers": {"Host": "x"}}}
    response = api("POST", "tasks", SHELL | bad, Accept_Language="zh-hans")
    assert response.body["errors"][0]["message"] == "不能设置请求头“Host”"


def test_an_interval_is_a_schedule_with_a_next_fire(api):
    made = api("POST", "tasks", SHELL | {"every_seconds": 60})
    assert made.body["every_seconds"] == 60
    assert made.body["next_fire_at"].endswith("Z")


def test_a_one_off_time_is_kept_with_its_offset(api):
    made = api("POST", "tasks", SHELL | {"run_at": "2090-01-31T08:00:00+08:00"})
    assert made.status_code == 201, made.body
    assert made.body["run_at"] == "2090-01-31T00:00:00Z"
    assert made.body["next_fire_at"] == "2090-01-31T00:00:00Z"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "x" * 5000}, "name"),
        ({"name": "a\x00b"}, "name"),
        ({"name": 5}, "name"),
        ({"description": "a\ud800"}, "description"),
        ({"description": 7}, "description"),
        ({"executor": "https"}, "executor"),
        ({"executor": "http", "parameters": {"url": "ftp://example.org"}}, "parameters"),
        ({"executor": ["shell"]}, "executor"),
        ({"task_type": "Nope!"}, "task_type"),
        ({"timeout_seconds": -1}, "timeout_seconds"),
        ({"timeout_seconds": "60"}, "timeout_seconds"),
        ({"timeout_seconds": 10**40}, "timeout_seconds"),
        ({"max_retries": True}, "max_retries"),
        ({"keep_running": "yes"}, "keep_running"),
        ({"priority": 10}, "priority"),
        ({"parameters": []}, "parameters"),
        ({"parameters": {"argv": "true"}}, "parameters"),
        ({"parameters": {"argv": ["true"], "evn": {}}}, "parameters"),
        ({"parameters": {"argv": ["x" * 300_000]}}, "parameters"),
        ({"every_seconds": -5}, "every_seconds"),
        ({"every_seconds": 5000.5}, "every_seconds"),
        ({"run_at": "tomorrow"}, "run_at"),
        ({"run_at": "2030-01-01T00:00:00"}, "run_at"),
        ({"run_at": 5}, "run_at"),
        ({"schedule": "0 2 * * *"}, "schedule"),
        ({"dependencies": [1]}, "dependencies"),
        ({"timezone": "Asia/Shanghai"}, "timezone"),
        ({"timeout_second": 5}, "timeout_second"),
        ({"parameters": {"function": "demo.count_word"}, "executor": "python"}, "parameters"),
    ],
    ids=str,
)
def test_a_bad_value_names_its_field_and_nothing_is_saved(api, changes, field):
    response = api("POST", "tasks", SHELL | changes)
    assert response.status_code == 400, response.body
    assert fields(response) == {field}
    assert response.body["code"] == "task.invalid"
    assert not Task.objects.exists()


def test_what_is_missing_is_named(api):
    assert fields(api("POST", "tasks", {"description": "x"})) == {"name", "executor"}


def test_a_misspelt_field_is_refused_with_the_right_spelling(api):
    response = api("POST", "tasks", SHELL | {"timeout_second": 5})
    assert 'did you mean "timeout_seconds"?' in response.body["detail"]


def test_an_unregistered_function_is_refused_with_the_right_spelling(api):
    response = api("POST", "tasks", SHELL | {"executor": "python", "parameters": {"function": "demo.count_word"}})
    assert 'did you mean "demo.count_words"?' in response.body["detail"]


def test_a_registered_function_is_taken(api):
    python = SHELL | {"executor": "python", "parameters": {"function": "demo.count_words", "args": ["README.md"]}}
    assert api("POST", "tasks", python).status_code == 201


def test_a_function_that_a_worker_advertises_is_taken(api):
    from tests.integration.faces import a_worker

    worker = a_worker().worker
    worker.functions = ["elsewhere.job"]
    worker.save()
    python = SHELL | {"executor": "python", "parameters": {"function": "elsewhere.job"}}
    assert api("POST", "tasks", python).status_code == 201


def test_a_name_is_taken_once(api):
    api("POST", "tasks", SHELL)
    response = api("POST", "tasks", SHELL)
    assert response.status_code == 409
    assert response.body["code"] == "task.duplicate"


def test_an_edit_with_the_present_etag_makes_a_new_version(api):
    task = a_task()
    response = api("PATCH", f"tasks/{task.pk}", {"max_retries": 0}, If_Match='"1"')
    assert response.status_code == 200
    assert response.body["version"] == 2
    assert response.headers["ETag"] == '"2"'
    assert [v.definition["max_retries"] for v in TaskVersion.objects.order_by("number")] == [3, 0]


@pytest.mark.parametrize("tag", ['"7"', "nonsense"])
@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
def test_an_edit_with_another_etag_is_refused(api, method, tag):
    task = a_task()
    response = api(method, f"tasks/{task.pk}", SHELL if method != "DELETE" else None, If_Match=tag)
    assert response.status_code == 412
    assert response.body["code"] == "task.edit_conflict"
    assert Task.objects.get(pk=task.pk).version == 1


def test_replacing_sets_what_is_not_given_to_its_default(api):
    task = a_task(max_retries=9, every_seconds=60.0)
    response = api("PUT", f"tasks/{task.pk}", {k: v for k, v in SHELL.items() if k != "max_retries"})
    assert response.status_code == 200, response.body
    assert response.body["max_retries"] == 3
    assert response.body["every_seconds"] is None
    assert response.body["next_fire_at"] is None


def test_a_task_can_be_sent_back_as_it_came_and_stays_at_its_version(api):
    task = a_task(every_seconds=2.5)
    body = api("GET", f"tasks/{task.pk}").body
    response = api("PUT", f"tasks/{task.pk}", body)
    assert response.status_code == 200, response.body
    assert response.body["version"] == 1


def test_a_changed_interval_keeps_the_schedule_row_and_an_unchanged_one_its_next_fire(api):
    task = a_task(every_seconds=60.0)
    [before] = task.schedules.all()
    api("PATCH", f"tasks/{task.pk}", {"max_retries": 1})
    [same] = task.schedules.all()
    assert (same.pk, same.next_fire_at) == (before.pk, before.next_fire_at)
    api("PATCH", f"tasks/{task.pk}", {"every_seconds": 366 * 24 * 3600})
    [after] = task.schedules.all()
    assert after.pk == before.pk
    assert after.next_fire_at is not None
    assert before.next_fire_at is not None
    assert after.next_fire_at > before.next_fire_at


def test_a_deleted_task_is_gone_its_waiting_runs_are_cancelled_and_its_name_is_free(api):
    task = a_task(every_seconds=60.0)
    run, active = services.trigger(task), running(services.trigger(task))
    assert api("DELETE", f"tasks/{task.pk}").status_code == 204
    assert api("GET", f"tasks/{task.pk}").status_code == 404
    run.refresh_from_db()
    assert run.status == "CANCELLED"
    active.refresh_from_db()
    assert (active.status, active.cancel_requested_by) == ("RUNNING", "ada")  # and CANCELLED however it ends
    assert not task.schedules.filter(next_fire_at__isnull=False).exists()
    assert api("POST", "tasks", SHELL).status_code == 201


def test_triggering_makes_a_run_with_merged_parameters_and_the_callers_trace(api):
    task = a_task(parameters={"argv": ["true"], "env": {"A": "1"}})
    trace = "0af7651916cd43dd8448eb211c80319c"
    response = api(
        "POST",
        f"tasks/{task.pk}/trigger",
        {"parameters": {"env": {"B": "2"}}},
        traceparent=f"00-{trace}-b7ad6b7169203331-01",
    )
    assert response.status_code == 201
    assert response.headers["Location"] == f"/api/v1/runs/{response.body['id']}"
    assert response.body["status"] == "PENDING"
    assert response.body["parameters"] == {"argv": ["true"], "env": {"A": "1", "B": "2"}}
    assert response.body["trace_id"] == trace
    run = TaskRun.objects.get()
    _, run_trace, span, _ = run.traceparent.split("-")
    assert (run_trace, span != "b7ad6b7169203331") == (trace, True)
    assert response.headers["traceparent"].split("-")[1] == trace


@pytest.mark.parametrize(
    "body", [{"parameters": {"argv": []}}, {"parameters": "x"}, {"parameters": {"shel": True}}, {"parms": {}}]
)
def test_a_trigger_with_bad_parameters_is_refused(api, body):
    task = a_task()
    response = api("POST", f"tasks/{task.pk}/trigger", body)
    assert response.status_code == 400
    assert not TaskRun.objects.exists()


def test_a_full_backlog_answers_429_and_when_to_come_again(api, settings):
    task = a_task()
    settings.SIGNALBOX = settings.SIGNALBOX | {"tasks": settings.SIGNALBOX["tasks"] | {"backlog_max": 2}}
    admission.forget()
    answers = [api("POST", f"tasks/{task.pk}/trigger").status_code for _ in range(3)]
    assert answers == [201, 201, 429]
    response = api("POST", f"tasks/{task.pk}/trigger")
    assert response.headers["Retry-After"] == "5"
    assert response.body["code"] == "backlog.full"
    assert response.body["details"]["limit"] == 2
    assert TaskRun.objects.count() == 2


def test_a_paused_task_says_by_whom_and_resumes(api):
    task = a_task()
    paused = api("POST", f"tasks/{task.pk}/pause", {"reason": "disk"})
    assert (paused.status_code, paused.body["paused"], paused.body["pause_reason"]) == (200, True, "disk")
    assert paused.body["paused_by"] == "ada"
    assert api("POST", f"tasks/{task.pk}/resume").body["paused"] is False


def test_statistics_add_up_what_ended(api):
    from tasks_app.states import Outcome

    task = a_task()
    for duration in (10, 20, 30):
        ended(services.trigger(task), duration_ms=duration)
    ended(services.trigger(task), Outcome.FAILED)
    services.trigger(task)
    stats = api("GET", f"tasks/{task.pk}/stats?days=7").body
    assert (stats["total"], stats["successful"], stats["failed"], stats["active"]) == (5, 3, 1, 1)
    assert (stats["average_ms"], stats["p50_ms"], stats["p95_ms"]) == (20, 20, 30)
    assert stats["success_rate"] == 0.75
    assert stats["last_execution"]


@pytest.mark.parametrize("days", ["0", "-1", "x", "9999", "١"])
def test_statistics_of_a_strange_period_are_refused(api, days):
    assert api("GET", f"tasks/{a_task().pk}/stats?days={days}").status_code == 400


def test_lists_go_on_by_cursor_in_both_directions(api):
    tasks = [a_task(f"t{n}").pk for n in range(5)]
    first = api("GET", "tasks?limit=2&count=capped").body
    assert [t["id"] for t in first["results"]] == tasks[:2]
    assert (first["prev"], first["count"], first["capped"]) == (None, 5, False)
    second = api("GET", first["next"].split("/api/v1/")[1]).body
    assert [t["id"] for t in second["results"]] == tasks[2:4]
    third = api("GET", second["next"].split("/api/v1/")[1]).body
    assert ([t["id"] for t in third["results"]], third["next"]) == (tasks[4:], None)
    back = api("GET", third["prev"].split("/api/v1/")[1]).body
    assert [t["id"] for t in back["results"]] == tasks[2:4]
    back = api("GET", back["prev"].split("/api/v1/")[1]).body
    assert ([t["id"] for t in back["results"]], back["prev"]) == (tasks[:2], None)


def test_a_count_is_capped(api, monkeypatch):
    monkeypatch.setattr(paging, "COUNT_MAX", 2)
    for n in range(4):
        a_task(f"t{n}")
    body = api("GET", "tasks?count=capped").body
    assert (body["count"], body["capped"]) == (2, True)


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=501", "limit=x", "limit=١", "cursor=%21", "cursor=WyJuIiwgInhyIl0", "statsu=x", "paused=x"],
)
def test_a_query_that_cannot_be_meant_is_refused(api, query):
    assert api("GET", f"tasks?{query}").status_code == 400


def test_tasks_are_found_by_name_and_prefix(api):
    a_task("alpha")
    a_task("beta")
    assert [t["name"] for t in api("GET", "tasks?name=beta").body["results"]] == ["beta"]
    assert [t["name"] for t in api("GET", "tasks?prefix=al").body["results"]] == ["alpha"]


def test_a_list_of_tasks_takes_a_fixed_number_of_queries(api, django_assert_max_num_queries):
    for n in range(8):
        a_task(f"t{n}", every_seconds=60.0)
    with django_assert_max_num_queries(7):
        assert len(api("GET", "tasks").body["results"]) == 8


@override_settings(DATA_UPLOAD_MAX_MEMORY_SIZE=1000)
def test_a_body_beyond_the_limit_is_refused(api):
    response = api("POST", "tasks", SHELL | {"description": "x" * 2000})
    assert response.status_code == 413
    assert response.body["code"] == "request.too_large"


def test_the_number_of_a_task_that_no_database_could_hold_is_not_found(api):
    assert api("GET", f"tasks/{10**30}").status_code == 404
    assert api("POST", f"tasks/{10**30}/trigger").status_code == 404
