"""Errors as application/problem+json (RFC 9457); the only place that knows which HTTP status an error becomes."""

from __future__ import annotations

from typing import Any

from rest_framework.response import Response
from rest_framework.views import exception_handler


def problem_response(error: Exception, context: dict[str, Any]) -> Response | None:
    """The answer for an error that a view raised."""
    return exception_handler(error, context)
