"""Errors as application/problem+json (RFC 9457); the only place that knows which HTTP status an error becomes."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from django.core.exceptions import PermissionDenied, RequestDataTooBig, SuspiciousOperation
from django.db import InterfaceError, OperationalError
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.utils.translation import gettext, gettext_noop
from django.views import defaults
from rest_framework import exceptions
from rest_framework.response import Response
from rest_framework.views import set_rollback

from scheduler_project.access import errors as access
from scheduler_project.api.parsing import BodyTooLarge, LengthRequired, MalformedBody
from tasks_app import context as ids
from tasks_app import errors as domain
from tasks_app.text import Text

logger = logging.getLogger("signalbox.api")

CONTENT_TYPE: Final = "application/problem+json"

#: The most special class that an error belongs to decides.
STATUS: Final[Mapping[type[domain.SignalboxError], HTTPStatus]] = {
    domain.SignalboxError: HTTPStatus.BAD_REQUEST,
    domain.NotFound: HTTPStatus.NOT_FOUND,
    domain.InvalidTask: HTTPStatus.BAD_REQUEST,
    domain.DuplicateTask: HTTPStatus.CONFLICT,
    domain.EditConflict: HTTPStatus.PRECONDITION_FAILED,
    domain.BacklogFull: HTTPStatus.TOO_MANY_REQUESTS,
    domain.StaleTransition: HTTPStatus.CONFLICT,
    access.NotAuthenticated: HTTPStatus.UNAUTHORIZED,
    access.PermissionMissing: HTTPStatus.FORBIDDEN,
    MalformedBody: HTTPStatus.BAD_REQUEST,
    LengthRequired: HTTPStatus.LENGTH_REQUIRED,
    BodyTooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
}

#: Code and title of errors that are HTTP's own.
_PLAIN: Final[Mapping[int, tuple[str, str]]] = {
    400: ("request.malformed", gettext_noop("The request is not valid.")),
    401: ("auth.not_authenticated", gettext_noop("Sign in first: send Authorization: Bearer and an access token.")),
    403: ("permission.missing", gettext_noop("You are not allowed to do this.")),
    404: ("not_found", gettext_noop("There is nothing at this address.")),
    405: ("request.method_not_allowed", gettext_noop("This address does not take that method.")),
    406: ("request.not_acceptable", gettext_noop("Only application/json can be answered here.")),
    413: ("request.too_large", gettext_noop("The body is larger than this installation takes.")),
    415: ("request.unsupported_media_type", gettext_noop("Only application/json is taken here.")),
    429: ("request.throttled", gettext_noop("Too many requests; try again later.")),
    500: ("internal_error", gettext_noop("Something went wrong on our side; the log has it under this trace id.")),
    503: ("database.unavailable", gettext_noop("The database cannot be reached; try again later.")),
}
_RETRY_AFTER_SECONDS: Final = 5


def problem_response(error: Exception, context: dict[str, Any]) -> Response:
    """The answer for whatever a view of the API raised; what nobody foresaw is logged and told without internals."""
    request = context["request"]._request
    set_rollback()
    status, body, headers = describe(error, request)
    write_down(status, error, logger)
    return Response(body, status=status, headers=headers, content_type=CONTENT_TYPE)


def write_down(status: int, error: Exception, log: logging.Logger) -> None:
    """Log what is not the client's doing: a defect with its traceback, a database that is away in one line."""
    if status == HTTPStatus.INTERNAL_SERVER_ERROR:
        log.error("request failed", exc_info=error)
    elif status == HTTPStatus.SERVICE_UNAVAILABLE:
        log.warning("database unavailable: %s", error)


def describe(error: Exception, request: HttpRequest) -> tuple[int, dict[str, Any], dict[str, str]]:
    """Status, body and headers of the answer for an error."""
    if isinstance(error, domain.SignalboxError):
        return _domain_problem(error, request)
    if isinstance(error, exceptions.APIException):
        return _framework_problem(error, request)
    if isinstance(error, Http404):
        return 404, body(404, request), {}
    if isinstance(error, PermissionDenied):
        return 403, body(403, request), {}
    if isinstance(error, RequestDataTooBig):
        return 413, body(413, request), {}
    if isinstance(error, SuspiciousOperation):
        return 400, body(400, request), {}
    if isinstance(error, OperationalError | InterfaceError):
        return 503, body(503, request), {"Retry-After": str(_RETRY_AFTER_SECONDS)}
    return 500, body(500, request), {}


def body(
    status: int,
    request: HttpRequest,
    *,
    code: str | None = None,
    title: str | None = None,
    detail: str | None = None,
    errors: list[dict[str, str]] | None = None,
    details: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """A problem's body. `details` holds ids, names and limits for a machine."""
    plain_code, plain_title = _PLAIN.get(status, (f"http.{status}", HTTPStatus(status).phrase))
    code, title = code or plain_code, title or gettext(plain_title)
    problem: dict[str, Any] = {
        "type": f"urn:signalbox:problem:{code}",
        "title": title,
        "status": int(status),
        "detail": detail or title,
        "instance": request.path,
        "code": code,
        "trace_id": ids.current().get("trace_id", ""),
        "errors": errors or [],
    }
    if details:
        problem["details"] = dict(details)
    return problem


def said(text: str) -> str:
    """A text of the domain in the reader's language."""
    if isinstance(text, Text):
        return gettext(text.template) % text.values if text.values else gettext(text.template)
    return gettext(text) if text else ""


def _domain_problem(error: domain.SignalboxError, request: HttpRequest) -> tuple[int, dict[str, Any], dict[str, str]]:
    status = next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)
    headers: dict[str, str] = {}
    if isinstance(error, domain.BacklogFull):
        headers["Retry-After"] = str(error.retry_after_seconds)
    if status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = 'Bearer realm="signalbox"'
    problems: Mapping[str, list[str]] = getattr(error, "problems", {})
    errors = [{"field": field, "message": said(text)} for field, texts in problems.items() for text in texts]
    title = gettext(type(error).message) if type(error).message else None
    if isinstance(error, MalformedBody):
        title = None
    detail = ": ".join(filter(None, errors[0].values())) if errors else said(error.detail)
    return status, body(
        status, request, code=error.code, title=title, detail=detail, errors=errors, details=error.details
    ), headers  # fmt: skip


def _framework_problem(
    error: exceptions.APIException, request: HttpRequest
) -> tuple[int, dict[str, Any], dict[str, str]]:
    headers: dict[str, str] = {}
    status = error.status_code
    if isinstance(error, exceptions.NotAuthenticated | exceptions.AuthenticationFailed):
        status, headers["WWW-Authenticate"] = 401, 'Bearer realm="signalbox"'
    wait = getattr(error, "wait", None)
    if wait is not None:
        headers["Retry-After"] = str(max(1, int(wait)))
    if isinstance(error, exceptions.ValidationError):
        errors = _flat(error.detail)
        first = ": ".join(filter(None, errors[0].values())) if errors else None
        return status, body(status, request, detail=first, errors=errors), headers
    detail = str(error.detail) if isinstance(error, exceptions.ParseError) else None
    return status, body(status, request, detail=detail), headers


def _flat(detail: Any, field: str = "") -> list[dict[str, str]]:
    if isinstance(detail, Mapping):
        return [one for key, value in detail.items() for one in _flat(value, f"{field}.{key}" if field else str(key))]
    if isinstance(detail, list):
        return [one for value in detail for one in _flat(value, field)]
    return [{"field": field, "message": str(detail)}]


# --- what Django answers before or outside of a view of the API


def _is_api(request: HttpRequest) -> bool:
    return request.path.startswith("/api/")


def _answer(status: int, request: HttpRequest) -> HttpResponse:
    return JsonResponse(body(status, request), status=status, content_type=CONTENT_TYPE)


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """handler400."""
    return _answer(400, request) if _is_api(request) else defaults.bad_request(request, exception)


def permission_denied(request: HttpRequest, exception: Exception) -> HttpResponse:
    """handler403."""
    return _answer(403, request) if _is_api(request) else defaults.permission_denied(request, exception)


def page_not_found(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    """handler404, and the answer for every address under /api/ that is none."""
    if _is_api(request):
        return _answer(404, request)
    return defaults.page_not_found(request, exception or Http404())


def server_error(request: HttpRequest) -> HttpResponse:
    """handler500."""
    return _answer(500, request) if _is_api(request) else defaults.server_error(request)
