"""The admin site: every table can be looked at, what the lifecycle owns cannot be edited, actions call services."""

from datetime import timedelta

import pytest
from django.contrib import admin
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from scheduler_project import urls
from scheduler_project.access import links, tokens
from scheduler_project.console import listing
from tasks_app import admission, services
from tasks_app.clock import clock
from tasks_app.models import PoisonReport, RunLogChunk, ScheduleFire, Task, TaskRun
from tasks_app.states import Outcome
from tests.integration.faces import a_task, a_worker, ended, running, user
from workers_app.models import Worker

pytestmark = pytest.mark.django_db

assert urls.urlpatterns  # registers the admin's classes
OURS = [model for model in admin.site._registry if model._meta.app_label != "auth"]
READ_ONLY = [model for model in OURS if isinstance(admin.site._registry[model], listing.ReadOnlyAdmin)]


@pytest.fixture
def client():
    admission.forget()
    someone = user("root", superuser=True)
    someone.is_staff = True
    someone.save()
    client = Client()
    client.force_login(someone)
    return client


@pytest.fixture
def rows():
    """At least one row in each table that a run touches."""
    task = a_task(every_seconds=60.0)
    run = services.trigger(task)
    ended(run, Outcome.FAILED, retryable=True)
    now = clock.now()
    RunLogChunk.objects.create(
        run=run, attempt=1, seq=1, stream="stdout", text="x" * 500, token=run.correlation_id, at=now
    )
    [schedule] = task.schedules.all()
    ScheduleFire.objects.create(schedule=schedule, instant=now, decision="fired", run=run, at=now)
    PoisonReport.objects.create(received_at=now, body="{", error="not JSON")
    admin_user = links.operator()
    links.create_link(admin_user, now=now)
    tokens.issue(admin_user, now=now)
    return run


def url(model, page, *args):
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_{page}", args=args)


def act(client, model, action, ids):
    response = client.post(
        url(model, "changelist"), {"action": action, "_selected_action": [str(pk) for pk in ids]}, follow=True
    )
    assert response.status_code == 200
    return response.content.decode()


@pytest.mark.parametrize("model", OURS, ids=lambda model: model._meta.label)
def test_every_table_has_a_list_and_pages_and_a_search(client, rows, model):
    assert client.get(url(model, "changelist")).status_code == 200
    if admin.site._registry[model].search_fields:
        for term in ("1", "back", "9" * 40, "a'b", "\x00"):
            assert client.get(url(model, "changelist"), {"q": term}).status_code == 200
    first = model._default_manager.first()
    if first is not None:
        assert client.get(url(model, "change", first.pk)).status_code == 200


@pytest.mark.parametrize("model", READ_ONLY, ids=lambda model: model._meta.label)
def test_what_is_only_shown_cannot_be_added_changed_or_deleted(client, rows, model):
    assert client.get(url(model, "add")).status_code == 403
    first = model._default_manager.first()
    if first is not None:
        assert client.post(url(model, "change", first.pk), {}).status_code == 403
        assert client.post(url(model, "delete", first.pk), {"post": "yes"}).status_code == 403


def test_what_the_lifecycle_owns_is_only_shown():
    labels = {model._meta.label for model in READ_ONLY}
    assert {
        "tasks_app.TaskRun", "tasks_app.TaskRunAttempt", "tasks_app.RunEvent", "tasks_app.RunLogChunk",
        "workers_app.Worker", "workers_app.WorkerIncarnation", "tasks_app.ScheduleFire",
        "django_celery_beat.PeriodicTask",
    } <= labels  # fmt: skip


def test_every_table_of_the_project_is_in_the_admin():
    from django.apps import apps

    ours = {"tasks_app", "workers_app", "access", "dispatch"}
    models = {model for model in apps.get_models() if model._meta.app_label in ours}
    assert models <= set(admin.site._registry)


def test_a_list_counts_no_more_than_it_must(client, monkeypatch):
    monkeypatch.setattr(listing, "ROWS_MAX", 60)
    services.trigger_many(a_task(), [{}] * 80)
    with CaptureQueriesContext(
        connection,
    ) as queries:
        page = client.get(url(TaskRun, "changelist"))
    assert "60 runs" in page.content.decode()
    counts = [query["sql"] for query in queries if "COUNT(" in query["sql"] and "taskrun" in query["sql"]]
    assert counts
    assert all("LIMIT" in sql for sql in counts)
    assert len(queries) < 12


def test_runs_are_found_by_number_and_by_their_tasks_name(client):
    one, two = services.trigger(a_task("alpha")), services.trigger(a_task("beta"))
    by_number = client.get(url(TaskRun, "changelist"), {"q": str(one.pk)}).context["cl"].result_list
    by_name = client.get(url(TaskRun, "changelist"), {"q": "bet"}).context["cl"].result_list
    assert [run.pk for run in by_number] == [one.pk]
    assert [run.pk for run in by_name] == [two.pk]


def form(**changes):
    return {
        "name": "backup", "executor": "shell", "task_type": "default", "parameters": '{"argv": ["true"]}',
        "timeout_seconds": "60", "max_retries": "3", "retry_delay_seconds": "5", "retry_delay_cap_seconds": "60",
        "priority": "5", "quarantine_after": "3", "description": "", "every_seconds": "", "run_at_0": "",
        "run_at_1": "", "seen_version": "",
    } | changes  # fmt: skip


def test_a_task_is_made_by_the_service(client):
    response = client.post(url(Task, "add"), form(every_seconds="90"))
    assert response.status_code == 302, response.context["adminform"].form.errors
    task = Task.objects.get()
    assert (task.version, task.created_by) == (1, "root")
    assert task.versions.count() == 1
    assert task.schedules.get().next_fire_at


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"parameters": '{"argv": []}'}, "parameters"),
        ({"parameters": '{"function": "demo.count_word"}', "executor": "python"}, "parameters"),
        ({"parameters": '{"url": "ftp://example.org"}', "executor": "http"}, "parameters"),
        ({"every_seconds": "0.1"}, "every_seconds"),
        ({"every_seconds": "60", "run_at_0": "2090-01-01", "run_at_1": "00:00"}, "run_at"),
        ({"task_type": "No!"}, "task_type"),
        ({"retry_delay_cap_seconds": "1"}, None),
        ({"priority": "99"}, "priority"),
    ],
    ids=str,
)
def test_a_task_that_is_wrong_is_told_at_its_field(client, changes, field):
    response = client.post(url(Task, "add"), form(**changes))
    assert response.status_code == 200
    errors = response.context["adminform"].form.errors
    assert errors
    if field:
        assert field in errors
    assert not Task.objects.exists()


def test_editing_a_task_makes_a_version_and_keeps_what_was_not_changed(client):
    task = a_task(every_seconds=90.0)
    shown = client.get(url(Task, "change", task.pk)).context["adminform"].form
    assert shown.initial["every_seconds"] == 90
    response = client.post(url(Task, "change", task.pk), form(max_retries="0", every_seconds="90", seen_version="1"))
    assert response.status_code == 302
    task.refresh_from_db()
    assert (task.version, task.max_retries) == (2, 0)


def test_an_edit_of_what_somebody_else_changed_is_refused(client):
    task = a_task()
    services.change_task(task.pk, {"max_retries": 1})
    response = client.post(url(Task, "change", task.pk), form(max_retries="9", seen_version="1"), follow=True)
    assert "Somebody else changed this" in response.content.decode()
    task.refresh_from_db()
    assert task.max_retries == 1


def test_deleting_a_task_leaves_its_history(client):
    task = a_task()
    run = services.trigger(task)
    page = client.get(url(Task, "delete", task.pk))
    assert page.status_code == 200
    assert client.post(url(Task, "delete", task.pk), {"post": "yes"}).status_code == 302
    task.refresh_from_db()
    run.refresh_from_db()
    assert task.deleted_at
    assert run.status == "CANCELLED"
    other = a_task("other")
    act_ids = [other.pk]
    response = client.post(
        url(Task, "changelist"),
        {"action": "delete_selected", "_selected_action": act_ids, "post": "yes"},
        follow=True,
    )
    assert response.status_code == 200
    other.refresh_from_db()
    assert other.deleted_at


def test_tasks_are_run_paused_and_resumed(client):
    task = a_task()
    act(client, Task, "trigger", [task.pk])
    assert TaskRun.objects.get().triggered_by == "admin"
    act(client, Task, "pause", [task.pk])
    task.refresh_from_db()
    assert task.paused_by == "root"
    act(client, Task, "resume", [task.pk])
    task.refresh_from_db()
    assert task.paused_at is None


def test_runs_are_cancelled_retried_and_released(client):
    task = a_task(quarantine_after=1)
    waiting, over = services.trigger(task), ended(services.trigger(task))
    page = act(client, TaskRun, "cancel", [waiting.pk, over.pk])
    assert "Not done for 1" in page
    waiting.refresh_from_db()
    assert waiting.status == "CANCELLED"
    act(client, TaskRun, "retry", [over.pk])
    assert TaskRun.objects.latest("pk").retry_of_id == over.pk
    held = ended(services.trigger(task), Outcome.LOST, retryable=True)
    assert held.status == "QUARANTINED"
    act(client, TaskRun, "release", [held.pk])
    held.refresh_from_db()
    assert held.status == "PENDING"


def test_a_running_run_is_asked_to_stop(client):
    run = running(services.trigger(a_task()))
    act(client, TaskRun, "cancel", [run.pk])
    run.refresh_from_db()
    assert (run.status, run.cancel_requested_by) == ("RUNNING", "root")


def test_workers_are_drained_and_resumed(client):
    a_worker()
    act(client, Worker, "drain", ["w1"])
    assert Worker.objects.get().drain_requested_by == "root"
    assert "DRAINING" in client.get(url(Worker, "changelist")).content.decode()
    act(client, Worker, "resume", ["w1"])
    assert Worker.objects.get().draining_since is None


def test_a_worker_says_what_its_pool_can_end(client):
    a_worker()
    Worker.objects.update(pool="solo")
    assert "Python code it can only interrupt" in client.get(url(Worker, "change", "w1")).content.decode()


def test_who_may_only_look_has_no_actions():
    viewer = user("viewer", may=("tasks_app.view_taskrun", "tasks_app.view_task", "workers_app.view_worker"))
    viewer.is_staff = True
    viewer.save()
    run = services.trigger(a_task())
    client = Client()
    client.force_login(viewer)
    page = client.get(url(TaskRun, "changelist"))
    assert page.status_code == 200
    assert "Cancel" not in page.content.decode()
    act(client, TaskRun, "cancel", [run.pk])
    run.refresh_from_db()
    assert run.status == "PENDING"


def test_pages_allow_nothing_from_elsewhere_and_nothing_inline(client):
    for page in (client.get("/admin/"), Client().get("/login/once/x/")):
        assert "default-src 'self'" in page.headers["Content-Security-Policy"]
        text = page.content.decode()
        assert "<script>" not in text
        assert " style=" not in text
        assert " onclick=" not in text


def test_the_detail_of_a_run_leads_to_what_belongs_to_it(client, rows):
    page = client.get(url(TaskRun, "change", rows.pk)).content.decode()
    assert f"/admin/tasks_app/taskrunattempt/?run__id__exact={rows.pk}" in page
    assert client.get(f"/admin/tasks_app/runlogchunk/?run__id__exact={rows.pk}").status_code == 200


def test_the_state_of_a_silent_worker_is_suspect(client):
    a_worker()
    Worker.objects.update(last_heartbeat=clock.now() - timedelta(minutes=5))
    assert "SUSPECT" in client.get(url(Worker, "changelist")).content.decode()


# --- the way in


def test_passwords_are_asked_for_by_the_console_alone():
    wanted = reverse("admin:tasks_app_task_changelist")
    asked = Client().get(wanted, follow=True)
    assert asked.redirect_chain[-1][0] == f"/console/login/?next={wanted}"
    someone = user("root", superuser=True)
    someone.is_staff = True
    someone.save()
    right = {"username": "root", "password": "correct horse battery"}
    client = Client()
    assert client.post("/admin/login/", right).headers["Location"] == "/console/login/?next=/admin/"
    assert client.get("/admin/").status_code == 302
    entered = client.post("/console/login/", right | {"next": wanted}, follow=True)
    assert (entered.status_code, entered.redirect_chain) == (200, [(wanted, 302)])


def test_the_way_in_does_not_go_on_to_another_site(client):
    for elsewhere in ("https://elsewhere.example/", "//elsewhere.example/", "javascript:alert(1)"):
        assert Client().get("/admin/login/", {"next": elsewhere}).headers["Location"] == "/console/login/?next=/admin/"
        assert client.get("/admin/login/", {"next": elsewhere}).headers["Location"] == "/admin/"


def test_who_is_signed_in_and_may_not_look_is_told_so_and_not_sent_around():
    client = Client()
    client.force_login(user("ada"))
    assert client.get("/admin/", follow=True).status_code == 403
