"""Addresses under /console/."""

from __future__ import annotations

from django.contrib.auth.views import LogoutView
from django.urls import path
from django.views.i18n import set_language

from scheduler_project.console.pages import frame, log, overview, runs, session, tasks, workers

app_name = "console"

urlpatterns = [
    path("", overview.overview, name="overview"),
    path("login/", session.Login.as_view(), name="login"),
    path("logout/", LogoutView.as_view(next_page="console:login"), name="logout"),
    path("theme/", frame.set_theme, name="theme"),
    path("language/", set_language, name="language"),
    path("runs/", runs.listed, name="runs"),
    path("runs/<int:run_id>/", runs.detail, name="run"),
    path("runs/<int:run_id>/log/", log.part, name="run-log"),
    path("runs/<int:run_id>/result/", runs.result, name="run-result"),
    path("runs/<int:run_id>/retry/", runs.retry, name="run-retry"),
    path("runs/<int:run_id>/cancel/", runs.cancel, name="run-cancel"),
    path("runs/<int:run_id>/release/", runs.release, name="run-release"),
    path("tasks/", tasks.listed, name="tasks"),
    path("tasks/<int:task_id>/", tasks.detail, name="task"),
    path("tasks/<int:task_id>/trigger/", tasks.trigger, name="task-trigger"),
    path("tasks/<int:task_id>/pause/", tasks.pause, name="task-pause"),
    path("tasks/<int:task_id>/resume/", tasks.resume, name="task-resume"),
    path("workers/", workers.listed, name="workers"),
    path("workers/<str:name>/", workers.detail, name="worker"),
    path("workers/<str:name>/drain/", workers.drain, name="worker-drain"),
    path("workers/<str:name>/resume/", workers.resume, name="worker-resume"),
]
