"""Addresses under /api/v1/. Each is taken with and without a slash at the end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.urls import URLPattern, path

from scheduler_project.api.auth import Refresh, Session, SignIn
from scheduler_project.api.runs import Runs
from scheduler_project.api.tasks import Tasks
from scheduler_project.api.workers import Workers

Address = tuple[str, Callable[..., Any]]

_ADDRESSES: list[Address] = [
    ("auth/login", SignIn.as_view({"post": "login"})),
    ("auth/refresh", Refresh.as_view({"post": "refresh"})),
    ("auth/logout", Session.as_view({"post": "logout"})),
    ("auth/validate", Session.as_view({"get": "validate"})),
    ("tasks", Tasks.as_view({"get": "list", "post": "create"})),
    (
        "tasks/<int:task_id>",
        Tasks.as_view({"get": "retrieve", "put": "update", "patch": "partial_update", "delete": "destroy"}),
    ),
    ("tasks/<int:task_id>/trigger", Tasks.as_view({"post": "trigger"})),
    ("tasks/<int:task_id>/pause", Tasks.as_view({"post": "pause"})),
    ("tasks/<int:task_id>/resume", Tasks.as_view({"post": "resume"})),
    ("tasks/<int:task_id>/runs", Tasks.as_view({"get": "runs"})),
    ("tasks/<int:task_id>/stats", Tasks.as_view({"get": "stats"})),
    ("runs", Runs.as_view({"get": "list"})),
    ("runs/<int:run_id>", Runs.as_view({"get": "retrieve"})),
    ("runs/<int:run_id>/cancel", Runs.as_view({"post": "cancel"})),
    ("runs/<int:run_id>/retry", Runs.as_view({"post": "retry"})),
    ("runs/<int:run_id>/release", Runs.as_view({"post": "release"})),
    ("runs/<int:run_id>/log", Runs.as_view({"get": "log"})),
    ("runs/<int:run_id>/result", Runs.as_view({"get": "result"})),
    ("runs/<int:run_id>/attempts", Runs.as_view({"get": "attempts"})),
    ("runs/<int:run_id>/events", Runs.as_view({"get": "events"})),
    ("runs/<int:run_id>/why", Runs.as_view({"get": "why"})),
    ("workers", Workers.as_view({"get": "list"})),
    ("workers/<str:name>", Workers.as_view({"get": "retrieve"})),
    ("workers/<str:name>/stats", Workers.as_view({"get": "stats"})),
    ("workers/<str:name>/drain", Workers.as_view({"post": "drain"})),
    ("workers/<str:name>/resume", Workers.as_view({"post": "resume"})),
]

urlpatterns: list[URLPattern] = [path(address + slash, view) for address, view in _ADDRESSES for slash in ("", "/")]
