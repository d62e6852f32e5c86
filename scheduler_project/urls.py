"""Every address."""

from __future__ import annotations

from django.contrib import admin
from django.urls import URLPattern, URLResolver, include, path, re_path
from django.views.decorators.csrf import csrf_exempt
from django.views.generic import RedirectView
from drf_spectacular.views import SpectacularAPIView
from rest_framework.permissions import AllowAny

from scheduler_project import health
from scheduler_project.access.views import admin_login, login_once
from scheduler_project.api import errors

admin.autodiscover()

urlpatterns: list[URLPattern | URLResolver] = [
    path("", RedirectView.as_view(pattern_name="console:overview"), name="home"),
    path("livez", health.livez),
    path("readyz", health.readyz),
    path("metrics", health.metrics),
    path("login/once/<str:token>/", login_once, name="login-once"),
    path("console/", include("scheduler_project.console.pages.urls")),
    path("admin/login/", admin_login),
    path("admin/", admin.site.urls),
    path(
        "api/v1/openapi.yaml",
        SpectacularAPIView.as_view(permission_classes=[AllowAny], authentication_classes=[]),
        name="openapi",
    ),
    path("api/v1/", include("scheduler_project.api.urls")),
    re_path(r"^api/", csrf_exempt(errors.page_not_found)),
]

handler400 = "scheduler_project.console.pages.problems.bad_request"
handler403 = "scheduler_project.console.pages.problems.permission_denied"
handler404 = "scheduler_project.console.pages.problems.page_not_found"
handler500 = "scheduler_project.console.pages.problems.server_error"
