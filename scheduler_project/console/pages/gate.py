"""Who may see a page and who may act: the same named permissions as in the API."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, Final
from urllib.parse import urlsplit

from django.contrib.auth.views import redirect_to_login
from django.db import Error as DatabaseError
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST, require_safe
from django_htmx.http import HttpResponseClientRedirect

from scheduler_project.access.errors import PermissionMissing
from scheduler_project.console.pages.problems import problem
from tasks_app.errors import SignalboxError

View = Callable[..., HttpResponseBase]

VIEW_RUN: Final = "tasks_app.view_taskrun"


def page(*permissions: str) -> Callable[[View], View]:
    """A page for signed-in users who have these permissions."""
    return lambda view: never_cache(require_safe(_guarded(view, permissions)))


def action(permission: str) -> Callable[[View], View]:
    """What a form does, for signed-in users who have the permission."""
    return lambda view: never_cache(require_POST(_guarded(view, (permission,))))


def _guarded(view: View, permissions: tuple[str, ...]) -> View:
    @wraps(view)
    def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        try:
            if not request.user.is_authenticated:
                return _to_login(request)
            for permission in permissions:
                if not request.user.has_perm(permission):
                    raise PermissionMissing(permission=permission)
            return view(request, *args, **kwargs)
        except (SignalboxError, DatabaseError) as error:
            return problem(request, error)

    return guarded


def _to_login(request: HttpRequest) -> HttpResponse:
    login = reverse("console:login")
    if request.htmx:  # type: ignore[attr-defined]
        # A part of a page that asked again after the session ended: the whole page goes to the log-in.
        shown = urlsplit(request.htmx.current_url or "")  # type: ignore[attr-defined]
        back = redirect_to_login(f"{shown.path}?{shown.query}" if shown.query else shown.path, login)
        return HttpResponseClientRedirect(back.url)
    return redirect_to_login(request.get_full_path() if request.method == "GET" else reverse("console:overview"), login)


def author(request: HttpRequest) -> str:
    """Who acts, for the record."""
    return request.user.get_username()
