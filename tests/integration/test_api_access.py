"""Signing in, permissions, and errors of `/api/v1/`."""

import json
import logging
from typing import Any

import pytest
from django.core.cache import cache
from django.db import OperationalError
from django.test import Client
from rest_framework.settings import api_settings

from scheduler_project.access import links, tokens
from scheduler_project.access.errors import LinkInvalid
from scheduler_project.access.models import LoginLink, TokenFamily
from tasks_app import services
from tasks_app.clock import clock
from tests.integration.faces import Api, a_task, user

pytestmark = pytest.mark.django_db

PROBLEM = {"type", "title", "status", "detail", "instance", "code", "trace_id", "errors"}


@pytest.fixture(autouse=True)
def fresh_throttle():
    cache.clear()


@pytest.fixture
def ada():
    return user(superuser=True)


def sign_in(api, password="correct horse battery"):
    return api("POST", "auth/login", {"username": "ada", "password": password})


def bearer(token):
    api = Api()
    api.headers["Authorization"] = f"Bearer {token}"
    return api


def test_signing_in_gives_the_pair_that_clients_rely_on(ada):
    response = sign_in(Api())
    assert response.status_code == 200
    assert set(response.body) == {"access_token", "refresh_token", "token_type", "expires_in"}
    assert (response.body["token_type"], response.body["expires_in"]) == ("Bearer", 600)
    assert bearer(response.body["access_token"])("GET", "tasks").status_code == 200


def test_a_wrong_password_is_told_and_nothing_more(ada):
    response = sign_in(Api(), "wrong")
    assert (response.status_code, response.body["code"]) == (401, "auth.invalid_credentials")
    unknown = Api()("POST", "auth/login", {"username": "nobody", "password": "wrong"})
    assert unknown.body["detail"] == response.body["detail"]


@pytest.mark.parametrize("body", [{}, {"username": "ada"}, {"username": 5, "password": "x"}, {"user": "ada"}, [],
    {"username": "\ud800", "password": "x"}, {"username": "ada", "password": "\ud800"}])  # fmt: skip
def test_signing_in_without_what_is_needed_is_refused(body):
    assert Api()("POST", "auth/login", body).status_code == 400


def test_guessing_passwords_is_slowed_down(ada):
    answers = {sign_in(Api(), "wrong").status_code for _ in range(25)}
    assert answers == {401, 429}
    assert int(sign_in(Api()).headers["Retry-After"]) > 0


def guesses(**headers):
    """What 25 wrong passwords are answered, each sent with headers made by its number."""
    made = [{name: each.format(n) for name, each in headers.items()} for n in range(25)]
    body = {"username": "ada", "password": "wrong"}
    return [Api()("POST", "auth/login", body, **some).status_code for some in made]


def test_who_guesses_is_nobody_else_for_saying_so(ada):
    assert guesses(X_Forwarded_For="192.0.2.{0}") == [401] * 20 + [429] * 5


def test_behind_a_gateway_each_client_has_its_own_bound_and_what_it_says_itself_does_not_count(ada, monkeypatch):
    monkeypatch.setattr(api_settings, "NUM_PROXIES", 1)
    assert guesses(X_Forwarded_For="192.0.2.{0}, 198.51.100.7")[20:] == [429] * 5
    assert guesses(X_Forwarded_For="192.0.2.{0}, 198.51.100.8")[:20] == [401] * 20


def test_a_refresh_token_works_once_and_a_second_use_ends_the_log_in(ada):
    api = Api()
    first = sign_in(api).body
    second = api("POST", "auth/refresh", {"refresh_token": first["refresh_token"]})
    assert set(second.body) == set(first)
    again = api("POST", "auth/refresh", {"refresh_token": first["refresh_token"]})
    assert (again.status_code, again.body["code"]) == (401, "auth.token_reused")
    assert api("POST", "auth/refresh", {"refresh_token": second.body["refresh_token"]}).status_code == 401
    assert bearer(second.body["access_token"])("GET", "tasks").status_code == 401
    assert TokenFamily.objects.get().revoked_because == "reuse"


def test_an_access_token_is_no_refresh_token(ada):
    access = sign_in(Api()).body["access_token"]
    assert Api()("POST", "auth/refresh", {"refresh_token": access}).status_code == 401


@pytest.mark.parametrize("way", ["header", "body"])
def test_signing_out_ends_access_and_refresh(ada, way):
    pair = sign_in(Api()).body
    api = bearer(pair["access_token"])
    body = {"refresh_token": pair["refresh_token"]} if way == "body" else None
    assert api("POST", "auth/logout", body).status_code == 204
    assert api("GET", "auth/validate").status_code == 401
    assert Api()("POST", "auth/refresh", {"refresh_token": pair["refresh_token"]}).status_code == 401


def test_a_token_says_whose_it_is_and_for_how_long(ada):
    body = Api(ada)("GET", "auth/validate").body
    assert (body["valid"], body["username"]) == (True, "ada")
    assert 590 < body["expires_in"] <= 600
    assert "tasks_app.add_taskrun" in body["permissions"]


def test_a_user_who_was_switched_off_is_out_at_once(ada):
    pair = sign_in(Api()).body
    ada.is_active = False
    ada.save()
    assert bearer(pair["access_token"])("GET", "tasks").status_code == 401
    assert Api()("POST", "auth/refresh", {"refresh_token": pair["refresh_token"]}).status_code == 401


@pytest.mark.parametrize("token", ["", "x", "a.b.c", "ey.ey.ey", "x" * 10_000])
def test_a_broken_token_is_refused(token):
    response = bearer(token)("GET", "tasks")
    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"].startswith("Bearer")
    assert response.headers["Content-Type"] == "application/problem+json"


def test_a_403_names_the_missing_permission():
    api = Api(user(may=("tasks_app.view_task",)))
    assert api("GET", "tasks").status_code == 200
    response = api("POST", "tasks", {})
    assert (response.status_code, response.body["code"]) == (403, "permission.missing")
    assert response.body["details"]["permission"] == "tasks_app.add_task"


def test_every_address_needs_a_permission_and_refuses_strangers(ada):
    from django.urls import get_resolver

    nobody = Api(user("nobody"))
    patterns = get_resolver("scheduler_project.api.urls").url_patterns
    seen = 0
    for pattern in patterns:
        path = (
            str(pattern.pattern).replace("<int:task_id>", "1").replace("<int:run_id>", "1").replace("<str:name>", "w")
        )
        if path.startswith("auth/"):
            continue
        actions: Any = getattr(pattern.callback, "actions", None)
        for method in sorted({"get", "post", "put", "patch", "delete"} & set(actions)):
            assert Api()(method.upper(), path).status_code == 401, (method, path)
            assert nobody(method.upper(), path).status_code == 403, (method, path)
            seen += 1
    assert seen > 40


@pytest.mark.parametrize(
    ("method", "path", "headers", "data", "status", "code"),
    [
        ("GET", "nowhere", {}, "", 404, "not_found"),
        ("POST", "nowhere", {}, "{}", 404, "not_found"),
        ("GET", "tasks/abc", {}, "", 404, "not_found"),
        ("DELETE", "tasks", {}, "", 405, "request.method_not_allowed"),
        ("OPTIONS", "tasks", {}, "", 405, "request.method_not_allowed"),
        ("OPTIONS", "runs/1/log", {}, "", 405, "request.method_not_allowed"),
        ("GET", "tasks", {"Accept": "text/html"}, "", 406, "request.not_acceptable"),
        ("POST", "tasks", {"Content-Type": "text/csv"}, "a,b", 415, "request.unsupported_media_type"),
        ("POST", "tasks", {}, "{", 400, "request.malformed"),
        ("POST", "tasks", {}, "[1]", 400, "request.malformed"),
        ("POST", "tasks", {}, '"x"', 400, "request.malformed"),
        ("POST", "tasks", {}, "[" * 100_000, 400, "request.malformed"),
        ("POST", "tasks", {}, '{"a": NaN}', 400, "request.malformed"),
        ("POST", "tasks", {}, b"\xff\xfe{}", 400, "request.malformed"),
        ("POST", "tasks", {}, '{"a": ' + "9" * 6000 + "}", 400, "request.malformed"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_every_error_is_a_problem(ada, method, path, headers, data, status, code):
    api = Api(ada)
    sent = {"Content-Type": "application/json"} | headers
    response = api.client.generic(
        method, f"/api/v1/{path}", data=data, content_type=sent.pop("Content-Type"), headers=api.headers | sent
    )
    assert response.status_code == status, response.content
    assert response.headers["Content-Type"] == "application/problem+json"
    body = json.loads(response.content)
    assert set(body) >= PROBLEM
    assert (body["status"], body["code"], body["instance"]) == (status, code, f"/api/v1/{path}")
    assert len(body["trace_id"]) == 32
    if status == 405:
        assert "GET" in response.headers["Allow"]


def test_what_nobody_foresaw_is_logged_and_told_without_internals(ada, monkeypatch, caplog):
    def broken(*_args, **_kwargs):
        raise RuntimeError("password=hunter2")

    monkeypatch.setattr(services, "find_task", broken)
    response = Api(ada)("GET", "tasks/1")
    assert (response.status_code, response.body["code"]) == (500, "internal_error")
    assert b"hunter2" not in response.content
    assert b"RuntimeError" not in response.content
    assert any("request failed" in record.getMessage() for record in caplog.records if record.levelno == logging.ERROR)


def test_a_database_that_is_away_is_told_as_503(ada, monkeypatch):
    def away(*_args, **_kwargs):
        raise OperationalError("connection refused to db.internal")

    monkeypatch.setattr(services, "find_task", away)
    response = Api(ada)("GET", "tasks/1")
    assert (response.status_code, response.body["code"]) == (503, "database.unavailable")
    assert response.headers["Retry-After"]
    assert b"db.internal" not in response.content


def test_errors_are_told_in_chinese_to_who_asks_for_it(ada):
    response = Api(ada)("GET", "runs/1", Accept_Language="zh-hans")
    assert response.body["code"] == "run.not_found"
    assert response.body["title"] != "There is no such run."
    refused = Api(ada)("POST", "tasks", {"name": "", "executor": "shell"}, Accept_Language="zh-hans")
    assert not refused.body["detail"].isascii()


def test_the_request_id_and_trace_come_back(ada):
    response = Api(ada)("GET", "tasks", X_Request_Id="abc-1")
    assert response.headers["X-Request-Id"] == "abc-1"
    assert Api(ada)("GET", "tasks", X_Request_Id="a b\t" * 9).headers["X-Request-Id"].isalnum()
    assert (
        Api(ada)("GET", "tasks", traceparent="00-" + "0" * 32 + "-" + "1" * 16 + "-01").headers["traceparent"][3:35]
        != "0" * 32
    )


# --- one-time log-in links


def test_a_link_signs_in_once_and_only_after_a_confirmation():
    token = links.create_link(links.operator(), now=clock.now())
    assert token not in str(LoginLink.objects.values())
    client = Client()
    for _ in range(2):  # previews only look
        page = client.get(f"/login/once/{token}/")
        assert page.status_code == 200
        assert "no-store" in page.headers["Cache-Control"]
    answer = client.post(f"/login/once/{token}/")
    assert (answer.status_code, answer.headers["Location"]) == (302, "/")
    assert client.get("/admin/").status_code == 200
    assert Client().post(f"/login/once/{token}/").status_code == 410
    assert Client().get(f"/login/once/{token}/").status_code == 410


def test_a_link_expires_and_belongs_to_an_active_user():
    admin = links.operator()
    token = links.create_link(admin, now=clock.now() - links.LIFETIME)
    with pytest.raises(LinkInvalid):
        links.use_link(token, now=clock.now())
    token = links.create_link(admin, now=clock.now())
    admin.is_active = False
    admin.save()
    with pytest.raises(LinkInvalid):
        links.use_link(token, now=clock.now())
    assert Client().get("/login/once/nonsense/").status_code == 410


def test_the_first_operator_has_no_password_that_anyone_could_use():
    admin = links.operator()
    assert admin.is_superuser
    assert not admin.has_usable_password()
    assert links.operator().pk == admin.pk


def test_a_token_pair_of_another_family_is_not_touched_by_signing_out(ada):
    one, two = tokens.issue(ada, now=clock.now()), tokens.issue(ada, now=clock.now())
    bearer(one.access_token)("POST", "auth/logout")
    assert bearer(two.access_token)("GET", "tasks").status_code == 200


def test_the_root_leads_to_the_console():
    assert Client().get("/").headers["Location"] == "/console/"


def test_liveness_and_readiness_name_what_they_looked_at():
    assert Client().get("/livez").json() == {"status": "ok"}
    ready = Client().get("/readyz")
    assert set(ready.json()["checks"]) == {"database", "broker", "cache"}
    assert ready.json()["checks"]["database"]["ok"] is True
    assert ready.status_code == 200  # a broker that is away is told and keeps nobody from submitting


def test_a_database_that_is_away_makes_it_not_ready(monkeypatch):
    from scheduler_project import health

    def away():
        raise OperationalError("gone")

    monkeypatch.setitem(health.CHECKS, "database", (away, True))
    ready = Client().get("/readyz")
    assert (ready.status_code, ready.json()["status"]) == (503, "failed")


def test_metrics_are_in_prometheus_format():
    Client().get("/livez")
    text = Client().get("/metrics").content.decode()
    assert 'signalbox_http_requests_total{method="GET",status="200"}' in text


def test_triggering_needs_the_permission_to_add_runs():
    task = a_task()
    api = Api(user(may=("tasks_app.view_task", "tasks_app.change_task")))
    assert api("POST", f"tasks/{task.pk}/trigger").body["details"]["permission"] == "tasks_app.add_taskrun"
