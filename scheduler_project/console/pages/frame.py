"""What every page has around it, and the two preferences of its reader."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.http import require_POST

from tasks_app.clock import clock

THEMES: Final = ("auto", "light", "dark")
_COOKIE: Final = "theme"
_YEAR_SECONDS: Final = 365 * 24 * 3600


def show(
    request: HttpRequest, template: str, context: Mapping[str, Any] | None = None, *, status: int = 200
) -> HttpResponse:
    """A page of the console."""
    theme = request.COOKIES.get(_COOKIE, "auto")
    frame = {
        "theme": theme if theme in THEMES else "auto",
        "themes": THEMES,
        "languages": settings.LANGUAGES,
        "here": request.get_full_path(),
        "now": clock.now(),
    }
    return render(request, f"console/{template}", frame | dict(context or {}), status=status)


def number_in(request: HttpRequest, name: str) -> int | None:
    """A number from the query; None for what is none."""
    text = request.GET.get(name, "")
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else None


@require_POST
def set_theme(request: HttpRequest) -> HttpResponse:
    """Remember how the pages should look, and go back to where that was chosen."""
    target = request.POST.get("next", "")
    if not url_has_allowed_host_and_scheme(target, {request.get_host()}, request.is_secure()):
        target = reverse("console:overview")
    response = HttpResponseRedirect(target)
    theme = request.POST.get("theme", "")
    if theme in THEMES:
        response.set_cookie(
            _COOKIE, theme, max_age=_YEAR_SECONDS, samesite="Lax", httponly=True, secure=request.is_secure()
        )
    return response
