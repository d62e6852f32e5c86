"""Logging in and out: Django's own views, with the API's bound on guessing before them."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.views import LoginView
from django.http import HttpRequest, HttpResponse
from django.utils.decorators import method_decorator
from django.views.decorators.cache import never_cache
from rest_framework.exceptions import Throttled
from rest_framework.parsers import FormParser, MultiPartParser
from rest_framework.request import Request

from scheduler_project.api.auth import SignInThrottle
from scheduler_project.console.pages.frame import THEMES
from scheduler_project.console.pages.problems import problem
from tasks_app.clock import clock


@method_decorator(never_cache, name="dispatch")
class Login(LoginView):
    """A form for user name and password."""

    template_name = "console/login.html"
    redirect_authenticated_user = True

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        """Log in, unless somebody guesses."""
        throttle = SignInThrottle()
        asked = Request(request, parsers=[FormParser(), MultiPartParser()])
        if not throttle.allow_request(asked, self):  # type: ignore[arg-type]
            return problem(request, Throttled(throttle.wait()))
        return super().post(request, *args, **kwargs)

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        """With the theme."""
        theme = self.request.COOKIES.get("theme", "auto")
        return super().get_context_data(theme=theme if theme in THEMES else "auto", now=clock.now(), **kwargs)
