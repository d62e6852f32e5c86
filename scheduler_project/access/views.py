"""The page of a one-time log-in link. Opening it uses nothing up: link previews only look."""

from __future__ import annotations

from django.contrib.auth import login
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from scheduler_project.access import links
from scheduler_project.access.errors import LinkInvalid
from tasks_app.clock import clock


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def login_once(request: HttpRequest, token: str) -> HttpResponse:
    """GET asks for a confirmation, POST signs in and goes to the start page."""
    usable = links.is_usable(token, now=clock.now())
    if request.method == "POST" and usable:
        try:
            user = links.use_link(token, now=clock.now())
        except LinkInvalid:
            usable = False
        else:
            login(request, user, backend="django.contrib.auth.backends.ModelBackend")
            return HttpResponseRedirect(reverse("home"))
    response = render(request, "access/login_once.html", {"usable": usable}, status=200 if usable else 410)
    response.headers["Referrer-Policy"] = "same-origin"
    return response
