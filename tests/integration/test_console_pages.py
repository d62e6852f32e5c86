"""The console's pages, asked for by a client without JavaScript: what they show, who may, and what they cost."""

import re
from datetime import timedelta
from html import unescape

import pytest
from django.contrib.auth.models import User
from django.db import DataError, OperationalError, ProgrammingError, connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from tasks_app import admission, services
from tasks_app.clock import clock
from tasks_app.models import RunLogChunk, Schedule, TaskRun
from tasks_app.states import Outcome
from tests.integration.faces import a_task, a_worker, ended, running, user
from workers_app.models import Worker, WorkerIncarnation

pytestmark = pytest.mark.django_db

VIEWS = ("tasks_app.view_taskrun", "tasks_app.view_task", "workers_app.view_worker")


@pytest.fixture(autouse=True)
def fresh_backlog():
    admission.forget()


@pytest.fixture
def ada():
    """A client of somebody who may do everything."""
    return signed_in(user("ada", superuser=True))


@pytest.fixture
def eve():
    """A client of somebody who may only look."""
    return signed_in(user("eve", may=VIEWS))


def signed_in(someone, **options):
    client = Client(raise_request_exception=False, **options)
    client.force_login(someone)
    return client


def text_of(response):
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", response.content.decode())))


def chunk(run, seq, text, stream="stdout", attempt=1):
    return RunLogChunk.objects.create(
        run=run, attempt=attempt, seq=seq, stream=stream, text=text, token=run.correlation_id, at=clock.now()
    )


@pytest.fixture
def scene():
    """A task, a worker, and a run in each of some states; addresses of every page."""
    a_worker("w1")
    task = a_task("etl.orders", every_seconds=60.0)
    failed = ended(services.trigger(task), Outcome.FAILED, error_message="Traceback\n  x\nValueError: boom")
    active = running(services.trigger(task), a_worker("w2"))
    waiting = services.trigger(task)
    addresses = ["", "runs/", "runs/?q=is:failed", f"runs/{failed.pk}/", f"runs/{active.pk}/", f"runs/{waiting.pk}/",
                 "tasks/", f"tasks/{task.pk}/", "workers/", "workers/w1/"]  # fmt: skip
    return {"task": task, "failed": failed, "active": active, "waiting": waiting, "addresses": addresses}


# --- who may


def test_nobody_sees_a_page_before_logging_in(scene):
    for address in scene["addresses"]:
        response = Client().get(f"/console/{address}")
        assert response.status_code == 302
        assert response.headers["Location"].startswith("/console/login/?next=/console/")


def test_a_part_that_asks_again_after_the_session_ended_sends_the_page_to_the_login():
    response = Client().get(
        "/console/runs/", headers={"HX-Request": "true", "HX-Current-URL": "http://testserver/console/runs/?q=x"}
    )
    assert response.headers["HX-Redirect"] == "/console/login/?next=/console/runs/%3Fq%3Dx"


@pytest.mark.parametrize(
    ("address", "permission"),
    [
        ("runs/", VIEWS[0]),
        ("tasks/", VIEWS[1]),
        ("workers/", VIEWS[2]),
        ("runs/1/", VIEWS[0]),
        ("runs/1/log/", VIEWS[0]),
    ],
)
def test_a_page_that_one_may_not_see_names_the_permission_and_a_trace(address, permission):
    response = signed_in(user("bob")).get(
        f"/console/{address}", headers={"traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}
    )
    assert response.status_code == 403
    assert permission in text_of(response)
    assert "a" * 32 in text_of(response)


def test_the_overview_shows_what_one_may_see_and_says_what_is_missing():
    response = signed_in(user("bob", may=VIEWS[1:2])).get("/console/")
    assert response.status_code == 200
    assert "missing: tasks_app.view_taskrun workers_app.view_worker " in text_of(response)


ACTIONS = [
    ("runs/{failed}/retry/", "tasks_app.add_taskrun"), ("runs/{waiting}/cancel/", "tasks_app.change_taskrun"),
    ("runs/{waiting}/release/", "tasks_app.change_taskrun"), ("tasks/{task}/trigger/", "tasks_app.add_taskrun"),
    ("tasks/{task}/pause/", "tasks_app.change_task"), ("tasks/{task}/resume/", "tasks_app.change_task"),
    ("workers/w1/drain/", "workers_app.change_worker"), ("workers/w1/resume/", "workers_app.change_worker"),
]  # fmt: skip


@pytest.mark.parametrize(("address", "permission"), ACTIONS)
def test_an_action_needs_its_permission_a_form_of_ours_and_post(scene, ada, eve, address, permission):
    path = "/console/" + address.format(**{name: row.pk for name, row in scene.items() if hasattr(row, "pk")})
    before = (TaskRun.objects.count(), services.find_task(scene["task"].pk).paused_at)
    refused = eve.post(path)
    assert refused.status_code == 403
    assert permission in text_of(refused)
    assert ada.get(path).status_code == 405
    forged = signed_in(User.objects.get(username="ada"), enforce_csrf_checks=True).post(path)
    assert forged.status_code == 403
    assert "request.csrf" in text_of(forged)
    assert (TaskRun.objects.count(), services.find_task(scene["task"].pk).paused_at) == before
    assert not Worker.objects.filter(draining_since__isnull=False).exists()


@pytest.mark.parametrize(
    "page", ["runs/{failed}/", "runs/{waiting}/", "tasks/", "tasks/{task}/", "workers/", "workers/w1/"]
)
def test_buttons_that_one_may_not_use_are_disabled_and_name_the_permission(scene, ada, eve, page):
    path = "/console/" + page.format(**{name: row.pk for name, row in scene.items() if hasattr(row, "pk")})
    theirs = eve.get(path).content.decode()
    buttons = re.findall(r'<form method="post" action="/console/(?:runs|tasks|workers)/.*?</form>', theirs, re.DOTALL)
    assert buttons
    assert all(re.search(r"<button[^>]* disabled", form) for form in buttons)
    assert all(re.search(r"needs (tasks_app|workers_app)\.\w+", form) for form in buttons)
    assert " disabled" not in ada.get(path).content.decode()


# --- logging in


def test_a_password_logs_in_and_goes_on_to_where_one_wanted():
    user("ada")
    client = Client()
    assert client.get("/console/login/").status_code == 200
    wrong = client.post("/console/login/", {"username": "ada", "password": "guess"})
    assert "The user name or the password is wrong." in text_of(wrong)
    right = {"username": "ada", "password": "correct horse battery", "next": "/console/runs/?q=is:failed"}
    assert client.post("/console/login/", right).headers["Location"] == "/console/runs/?q=is:failed"
    assert client.get("/console/").status_code == 200
    assert client.post("/console/logout/").headers["Location"] == "/console/login/"
    assert client.get("/console/").status_code == 302


def test_a_login_does_not_go_on_to_another_site():
    user("ada")
    form = {"username": "ada", "password": "correct horse battery", "next": "https://elsewhere.example/"}
    assert Client().post("/console/login/", form).headers["Location"] == "/console/"


def test_passwords_are_not_guessed_here():
    from django.core.cache import cache

    cache.clear()
    client = Client()
    answers = [client.post("/console/login/", {"username": "mallory", "password": str(n)}) for n in range(21)]
    assert {answer.status_code for answer in answers[:20]} == {200}
    assert answers[20].status_code == 429
    assert int(answers[20].headers["Retry-After"]) > 0
    cache.clear()


def test_who_guesses_is_nobody_else_for_another_header_or_another_spelling_of_the_name():
    from django.core.cache import cache

    cache.clear()
    names = ["mallory", " mallory", "mallory" + " " * 200, "\uff4dallory"]
    answers = [
        Client().post(
            "/console/login/",
            {"username": names[n % 4], "password": str(n)},
            headers={"X-Forwarded-For": f"192.0.2.{n}"},
        )
        for n in range(21)
    ]
    assert [answer.status_code for answer in answers] == [200] * 20 + [429]
    cache.clear()


# --- every page


@pytest.mark.parametrize("language", ["en", "zh-hans"])
def test_every_page_is_there_in_both_languages_with_nothing_inline(scene, ada, language):
    ada.cookies["django_language"] = language
    words = {"en": ("Runs", "Workers"), "zh-hans": ("运行", "工作节点")}[language]
    for address in scene["addresses"]:
        response = ada.get(f"/console/{address}")
        page = response.content.decode()
        assert response.status_code == 200, address
        assert all(word in page for word in words)
        assert f'lang="{language}"' in page
        assert not re.search(
            r"<script(?![^>]* src=)|<style| style=| on\w+=|javascript:|https?://(?!testserver)", page
        ), address
        policy = response.headers["Content-Security-Policy"]
        assert "script-src 'self'" in policy
        assert "style-src 'self'" in policy
        assert "unsafe" not in policy
        assert response.headers["Cache-Control"].startswith("max-age=0")


def test_every_page_asks_a_bounded_number_of_questions_and_counts_none_without_a_limit(scene, ada):
    for _ in range(3):
        other = a_task(f"other.{TaskRun.objects.count()}")
        services.trigger_many(other, [{}] * 30)
        ended(services.trigger(other))
    for address in scene["addresses"]:
        with CaptureQueriesContext(connection) as queries:
            assert ada.get(f"/console/{address}").status_code == 200
        statements = [query["sql"] for query in queries if "tasks_app_taskrun" in query["sql"]]
        assert len(queries) <= 40, (address, len(queries))
        for sql in statements:
            # By number, with a limit, or of what is in flight, which is no more than the slots allow.
            assert re.search(r"""LIMIT|"id" IN \(|"id" = |"run_id" = |head|" = '(DISPATCHED|RUNNING)'""", sql), (
                address,
                sql,
            )
            assert not re.search(r"task_name.{0,12}LIKE", sql), sql


def test_the_theme_and_the_language_are_chosen_and_lead_back(ada):
    assert 'data-theme="auto"' in ada.get("/console/").content.decode()
    response = ada.post("/console/theme/", {"theme": "dark", "next": "/console/runs/?q=x"})
    assert response.headers["Location"] == "/console/runs/?q=x"
    assert 'data-theme="dark"' in ada.get("/console/").content.decode()
    assert (
        ada.post("/console/theme/", {"theme": "pink", "next": "//elsewhere.example/"}).headers["Location"]
        == "/console/"
    )
    assert 'data-theme="dark"' in ada.get("/console/").content.decode()
    assert ada.post("/console/language/", {"language": "zh-hans", "next": "/console/"}).status_code == 302
    assert "总览" in ada.get("/console/").content.decode()


def test_an_address_that_is_none_is_a_page_with_a_way_back(ada):
    response = ada.get("/console/nothing/")
    assert response.status_code == 404
    assert "To the overview" in text_of(response)
    assert Client().get("/console/nothing/").status_code == 404


def test_a_database_that_is_away_is_told_without_asking_it_again(ada, monkeypatch):
    from scheduler_project.console.pages import runs

    def away(*_args, **_options):
        raise OperationalError("could not connect to postgresql://user:secret@host")

    monkeypatch.setattr(runs.pages, "page", away)
    response = ada.get("/console/runs/")
    assert (response.status_code, "database.unavailable" in text_of(response)) == (503, True)
    assert "secret" not in response.content.decode()


@pytest.mark.parametrize(
    ("kind", "status", "said"),
    [
        (ProgrammingError, 500, "request failed"),
        (DataError, 500, "request failed"),
        (OperationalError, 503, "database unavailable"),
    ],
)
def test_an_error_of_the_database_is_in_the_log_as_what_it_is(ada, monkeypatch, caplog, kind, status, said):
    from scheduler_project.console.pages import runs

    def broken(*_args, **_options):
        raise kind("as the database says it")

    monkeypatch.setattr(runs.pages, "page", broken)
    assert ada.get("/console/runs/").status_code == status
    [logged] = [record for record in caplog.records if record.name == "signalbox.console"]
    assert (logged.getMessage().startswith(said), bool(logged.exc_info)) == (True, status == 500)


def test_an_error_that_nobody_foresaw_is_told_by_its_trace_id_alone(ada, monkeypatch):
    from scheduler_project.console.pages import runs

    monkeypatch.setattr(runs.pages, "page", lambda *_args, **_options: 1 / 0)
    response = ada.get("/console/runs/", headers={"traceparent": f"00-{'c' * 32}-{'b' * 16}-01"})
    assert response.status_code == 500
    assert "c" * 32 in text_of(response)
    assert "division" not in response.content.decode()


def test_pages_go_out_compressed_and_the_api_does_not(ada):
    sent = {"Accept-Encoding": "gzip"}
    assert ada.get("/console/", headers=sent).headers["Content-Encoding"] == "gzip"
    assert "Content-Encoding" not in ada.get("/api/v1/openapi.yaml", headers=sent).headers


# --- runs


def test_the_list_shows_runs_with_what_went_wrong(scene, ada):
    page = text_of(ada.get("/console/runs/"))
    assert "ValueError: boom" in page
    assert all(str(scene[name].pk) in page for name in ("failed", "active", "waiting"))
    assert str(scene["waiting"].pk) not in re.findall(
        r'id="run-(\d+)"', ada.get("/console/runs/?q=is:failed").content.decode()
    )


def test_a_search_that_cannot_be_understood_says_what_and_suggests(ada):
    response = ada.get(
        "/console/runs/", {"q": "worker:w1 iss:failed"}, headers={"traceparent": f"00-{'d' * 32}-{'b' * 16}-01"}
    )
    page = text_of(response)
    assert response.status_code == 400
    assert 'unknown word "iss"; did you mean "is"?' in page
    assert "?q=worker%3Aw1%20is%3Afailed" in response.content.decode()
    assert "d" * 32 in page
    ada.cookies["django_language"] = "zh-hans"
    assert "是否想写“is”" in text_of(ada.get("/console/runs/", {"q": "iss:failed"}))


def test_pages_of_the_list_follow_each_other_by_address(ada):
    services.trigger_many(a_task(), [{}] * 70)
    first = ada.get("/console/runs/", {"q": "is:pending"}).content.decode()
    [older] = re.findall(r'<a href="(\?[^"]+)" rel="next"', first)
    second = ada.get("/console/runs/" + unescape(older)).content.decode()
    shown = [re.findall(r'id="run-(\d+)"', page) for page in (first, second)]
    assert [len(ids) for ids in shown] == [50, 20]
    assert len({*shown[0], *shown[1]}) == 70
    assert "70" in text_of(ada.get("/console/runs/"))
    assert 'rel="next"' not in second


def test_a_search_that_finds_nothing_offers_to_leave_out_each_term(ada):
    page = ada.get("/console/runs/", {"q": "is:failed type:x"}).content.decode()
    assert 'href="/console/runs/?q=type%3Ax"' in page
    assert 'href="/console/runs/?q=is%3Afailed"' in page


def test_a_list_asked_again_keeps_its_rows_and_counts_the_new_ones(scene, ada):
    asked = re.search(r'hx-get="([^"]+)"', ada.get("/console/runs/").content.decode())[1]
    services.trigger_many(scene["task"], [{}] * 2)
    services.cancel_run(scene["waiting"].pk)
    part = ada.get(unescape(asked), headers={"HX-Request": "true"}).content.decode()
    assert re.findall(r'id="run-(\d+)"', part) == [str(scene[name].pk) for name in ("waiting", "active", "failed")]
    assert "Cancelled" in part
    assert "<b>2</b>" in part
    assert "<html" not in part


@pytest.mark.parametrize(
    "query", ["before=x", "before=99999999999999999999", "rows=1,x,99999999999999999999", "q=%00", "q=" + "a" * 600]
)
def test_nonsense_in_the_address_of_the_list_is_harmless(ada, query):
    for headers in ({}, {"HX-Request": "true"}):
        assert ada.get(f"/console/runs/?{query}", headers=headers).status_code in {200, 400}


def test_a_waiting_run_says_what_holds_it_back(ada):
    task = a_task()
    services.pause_task(task.pk, by="ada", reason="migration")
    run = services.trigger(task)
    page = text_of(ada.get(f"/console/runs/{run.pk}/"))
    assert "The task is paused: migration" in page
    assert "Resume the task." in page
    assert "No live worker takes the task type" in page


def test_a_failed_run_says_why_and_shows_its_attempts(ada):
    run = ended(services.trigger(a_task(max_retries=1)), Outcome.FAILED, retryable=True, error_message="first")
    TaskRun.objects.filter(pk=run.pk).update(due_at=clock.now())
    run = ended(run, Outcome.FAILED, error_message="Traceback (most recent call last):\n  x\nValueError: second")
    response = ada.get(f"/console/runs/{run.pk}/")
    page = text_of(response)
    assert "Attempt 2 of at most 2 failed: ValueError: second" in page
    assert "first" in page
    assert response.content.decode().count('class="waited"') == 2


def test_what_a_run_wrote_is_escaped_and_without_the_terminals_codes(ada):
    run = running(services.trigger(a_task()))
    chunk(run, 1, "\x1b[31mred\x1b[0m <script>alert(1)</script>\n")
    page = ada.get(f"/console/runs/{run.pk}/").content.decode()
    assert "red &lt;script&gt;" in page
    assert "\x1b" not in page


def test_the_log_goes_on_where_it_was_left_until_it_is_complete(ada):
    run = running(services.trigger(a_task()))
    chunk(run, 1, "one")
    page = ada.get(f"/console/runs/{run.pk}/").content.decode()
    [more] = re.findall(r'id="log-more"[^>]*hx-get="([^"]+)"', page)
    chunk(run, 2, "two", "stderr")
    part = ada.get(more, headers={"HX-Request": "true"}).content.decode()
    assert ("one" in part, '<span class="stderr">two</span>' in part) == (False, True)
    assert 'id="log-more"' in part
    assert run.token
    TaskRun.objects.filter(pk=run.pk).update(status="COMPLETED", completed_at=clock.now() - timedelta(minutes=1))
    [more] = re.findall(r'id="log-more"[^>]*hx-get="([^"]+)"', part)
    assert "log-more" not in ada.get(more, headers={"HX-Request": "true"}).content.decode()


def test_a_long_log_comes_in_parts_by_link(ada, monkeypatch):
    from tasks_app import logs

    monkeypatch.setattr(logs, "CHUNKS_MAX", 2)
    monkeypatch.setattr(logs.read_log, "__kwdefaults__", {"limit": 2})
    run = ended(services.trigger(a_task()))
    for seq in (1, 2, 3):
        chunk(run, seq, f"part {seq};")
    TaskRun.objects.filter(pk=run.pk).update(completed_at=clock.now() - timedelta(minutes=1))
    page = ada.get(f"/console/runs/{run.pk}/").content.decode()
    [link] = re.findall(r'<a href="([^"]+\?after=\d+)" hx-get', page)
    assert ("part 2;" in page, "part 3;" in page) == (True, False)
    rest = ada.get(link).content.decode()
    assert ("part 2;" in rest, "part 3;" in rest, "log-more" in rest) == (False, True, False)


def test_the_live_part_of_a_run_brings_its_facts_along(scene, ada):
    part = ada.get(f"/console/runs/{scene['active'].pk}/", headers={"HX-Request": "true"}).content.decode()
    assert 'id="live" data-live="busy"' in part
    assert 'id="facts" hx-swap-oob="true"' in part
    assert "<html" not in part
    over = ada.get(f"/console/runs/{scene['failed'].pk}/", headers={"HX-Request": "true"}).content.decode()
    assert 'data-live="idle"' in over


def test_a_run_is_retried_cancelled_and_released(scene, ada):
    response = ada.post(f"/console/runs/{scene['failed'].pk}/retry/")
    new = TaskRun.objects.latest("pk")
    assert (new.retry_of_id, new.created_by) == (scene["failed"].pk, "ada")
    assert response.headers["Location"] == f"/console/runs/{new.pk}/"
    assert str(new.pk) in text_of(ada.get(f"/console/runs/{scene['failed'].pk}/"))
    ada.post(f"/console/runs/{scene['active'].pk}/cancel/")
    page = text_of(ada.get(f"/console/runs/{scene['active'].pk}/"))
    assert "It was asked to stop and still runs on w2." in page
    held = ended(services.trigger(a_task("killer", quarantine_after=1)), Outcome.LOST, retryable=True)
    assert "Release" in text_of(ada.get(f"/console/runs/{held.pk}/"))
    ada.post(f"/console/runs/{held.pk}/release/")
    held.refresh_from_db()
    assert held.status == "PENDING"


def test_an_action_that_comes_too_late_says_so_with_a_trace_id(scene, ada):
    response = ada.post(f"/console/runs/{scene['failed'].pk}/cancel/", headers={"Referer": "/console/runs/1/"})
    page = text_of(response)
    assert response.status_code == 409
    assert "The run is no longer in a state that allows this." in page
    assert "run.stale_transition" in page
    assert "FAILED" in page
    assert re.search(r"Trace id for the log: [0-9a-f]{32}", page)


def test_every_action_can_be_copied_as_a_request_and_as_a_command(scene, ada):
    page = text_of(ada.get(f"/console/runs/{scene['failed'].pk}/"))
    assert (
        f'curl -X POST http://testserver/api/v1/runs/{scene["failed"].pk}/retry -H "Authorization: Bearer $TOKEN"'
        in page
    )
    assert f"manage.py run retry {scene['failed'].pk}" in page


# --- tasks, workers, overview


def test_tasks_are_listed_by_name_with_schedule_and_last_run(scene, ada):
    services.pause_task(a_task("alpha").pk, by="eve", reason="quiet")
    page = text_of(ada.get("/console/tasks/"))
    assert page.index("alpha") < page.index("etl.orders")
    assert "every 1 min" in page
    assert "eve: quiet" in page
    assert "alpha" not in text_of(ada.get("/console/tasks/?q=etl"))


def test_pages_of_tasks_follow_each_other(ada):
    for number in range(53):
        a_task(f"task {number:02d}")
    first = ada.get("/console/tasks/").content.decode()
    [link] = re.findall(r'href="(\?[^"]+)" rel="next"', first)
    second = ada.get("/console/tasks/" + unescape(link)).content.decode()
    assert [len(re.findall(r'class="row"', page)) for page in (first, second)] == [50, 3]


def test_a_task_is_run_with_parameters_paused_with_a_reason_and_resumed(ada):
    task = a_task()
    path = f"/console/tasks/{task.pk}/"
    ada.post(path + "trigger/", {"parameters": '{"env": {"DAY": "1"}}'})
    run = TaskRun.objects.get()
    assert (run.parameters["env"], run.triggered_by, run.created_by) == ({"DAY": "1"}, "console", "ada")
    ada.post(path + "pause/", {"reason": "too loud"})
    assert "too loud" in text_of(ada.get(path))
    ada.post(path + "resume/")
    assert services.find_task(task.pk).paused_at is None


@pytest.mark.parametrize("given", ["{", "[1]", "[" * 100_000, '{"nothing": 1}'])
def test_parameters_that_are_wrong_are_told(ada, given):
    task = a_task()
    response = ada.post(f"/console/tasks/{task.pk}/trigger/", {"parameters": given})
    assert response.status_code == 400
    assert "parameters:" in text_of(response)
    assert not TaskRun.objects.exists()


def test_a_full_backlog_is_told_with_when_to_come_again(ada, settings):
    settings.SIGNALBOX = settings.SIGNALBOX | {"tasks": settings.SIGNALBOX["tasks"] | {"backlog_max": 1}}
    task = a_task()
    assert ada.post(f"/console/tasks/{task.pk}/trigger/").status_code == 302
    response = ada.post(f"/console/tasks/{task.pk}/trigger/")
    assert (response.status_code, response.headers["Retry-After"]) == (429, "5")


def test_a_worker_shows_its_state_its_starts_and_what_it_runs(scene, ada):
    page = text_of(ada.get("/console/workers/w2/"))
    assert str(scene["active"].pk) in page
    assert "lives" in page
    assert "It ends every body" in page
    Worker.objects.update(pool="threads")
    assert "Python code it can only interrupt" in text_of(ada.get("/console/workers/w2/"))
    ada.post("/console/workers/w2/drain/")
    assert "It takes no more work" in text_of(ada.get("/console/workers/w2/"))
    assert "Draining" in text_of(ada.get("/console/workers/"))
    ada.post("/console/workers/w2/resume/")
    assert not Worker.objects.filter(draining_since__isnull=False).exists()
    assert ada.get("/console/workers/nobody/").status_code == 404
    assert ada.post("/console/workers/nobody/drain/").status_code == 404


def test_the_overview_counts_and_leads_to_the_lists(scene, ada):
    WorkerIncarnation.objects.filter(worker="w1").update(over_at=clock.now())
    Schedule.objects.update(next_fire_at=clock.now() + timedelta(minutes=5))
    response = ada.get("/console/")
    figures = {
        label: (value, unescape(address))
        for address, label, value in re.findall(
            r'<a href="([^"]+)" id="figure-\d"><span class="label">([^<]+)</span><b>([^<]+)</b>',
            response.content.decode(),
        )
    }
    assert {label: value for label, (value, _) in figures.items()} == {
        "Running": "1", "Waiting": "1", "Failed in 24 h": "1", "Quarantined": "0", "Sick workers": "1",
    }  # fmt: skip
    for label, (value, address) in figures.items():
        listed = ada.get(address).content.decode()
        if address.startswith("/console/runs/"):
            assert len(re.findall(r'id="run-\d+"', listed)) == int(value), label
    page = text_of(response)
    assert "ValueError: boom" in page
    assert "in 5 min" in page


def test_an_empty_installation_is_told_how_to_begin(ada):
    page = text_of(ada.get("/console/"))
    assert "To begin with" in page
    assert "manage.py task create hello" in page
    for path, command in (
        ("runs", "manage.py run trigger"),
        ("tasks", "manage.py task create"),
        ("workers", "manage.py run_worker"),
    ):
        assert command in text_of(ada.get(f"/console/{path}/"))
    a_worker()
    ended(services.trigger(a_task()))
    page = text_of(ada.get("/console/"))
    assert "All clear" in page
    assert "To begin with" not in page
