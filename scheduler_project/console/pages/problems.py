"""Errors of the console, in the words of the API's: what, the detail, and the trace id to find it in the log by."""

from __future__ import annotations

import logging
from typing import Final

from django.http import Http404, HttpRequest, HttpResponse
from django.utils.translation import gettext as _
from django.views.decorators.csrf import requires_csrf_token

from scheduler_project.api import errors
from scheduler_project.console.pages.frame import show

logger = logging.getLogger("signalbox.console")

#: From here on a page must do without the database: no user, no navigation.
_BARE_FROM: Final = 500


def problem(request: HttpRequest, error: Exception) -> HttpResponse:
    """The page for an error that a view raised."""
    status, body, headers = errors.describe(error, request)
    errors.write_down(status, error, logger)
    return _page(request, status, body, headers)


def _page(request: HttpRequest, status: int, body: dict[str, object], headers: dict[str, str]) -> HttpResponse:
    template = "problem_bare.html" if status >= _BARE_FROM else "problem.html"
    response = show(request, template, {"problem": body, "back": request.headers.get("Referer", "")}, status=status)
    for name, value in headers.items():
        response.headers[name] = value
    return response


def _is_console(request: HttpRequest) -> bool:
    return request.path.startswith("/console/")


def _plain(request: HttpRequest, status: int) -> HttpResponse:
    return _page(request, status, errors.body(status, request), {})


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """handler400."""
    return _plain(request, 400) if _is_console(request) else errors.bad_request(request, exception)


def permission_denied(request: HttpRequest, exception: Exception) -> HttpResponse:
    """handler403."""
    return _plain(request, 403) if _is_console(request) else errors.permission_denied(request, exception)


def page_not_found(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    """handler404."""
    if _is_console(request) and request.user.is_authenticated:
        return _plain(request, 404)
    return errors.page_not_found(request, exception or Http404())


def server_error(request: HttpRequest) -> HttpResponse:
    """handler500."""
    return _plain(request, 500) if _is_console(request) else errors.server_error(request)


@requires_csrf_token
def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    """A form without a good token: from another site, or from before a log-in."""
    from django.views.csrf import csrf_failure as stock

    if not _is_console(request):
        return stock(request, reason)
    body = errors.body(
        403,
        request,
        code="request.csrf",
        title=_("This form is not valid any more."),
        detail=_("Go back, load the page again and repeat it."),
    )
    return _page(request, 403, body, {})
