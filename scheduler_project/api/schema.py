"""The OpenAPI description: what every answer has in common, said once."""

from __future__ import annotations

from typing import Any, Literal

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.openapi import AutoSchema
from rest_framework import serializers


class ProblemError(serializers.Serializer[Any]):
    """One thing that is wrong; `field` is empty where it is about the whole body."""

    field = serializers.CharField()
    message = serializers.CharField()


class Problem(serializers.Serializer[Any]):
    """An error as RFC 9457 has it. `code` never changes; `detail` is for people."""

    type = serializers.CharField()
    title = serializers.CharField()
    status = serializers.IntegerField()
    detail = serializers.CharField()
    instance = serializers.CharField()
    code = serializers.CharField()
    trace_id = serializers.CharField()
    errors: Any = ProblemError(many=True)
    details = serializers.JSONField(required=False)


class Schema(AutoSchema):
    """Adds the problem as the answer to everything that fails, and a short operation id."""

    def _get_response_bodies(self, direction: Literal["request", "response"] = "response") -> Any:
        bodies = super()._get_response_bodies(direction)
        problem = self.resolve_serializer(Problem, "response")
        bodies["default"] = {
            "description": "An error",
            "content": {"application/problem+json": {"schema": problem.ref if problem else {}}},
        }
        return bodies

    def get_tags(self) -> list[str]:
        """The resource: the first word behind /api/v1/."""
        return [self.path.removeprefix("/api/v1/").split("/")[0]]


class BearerScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """How requests say who they are from."""

    target_class = "scheduler_project.access.authentication.BearerAuthentication"
    name = "bearer"

    def get_security_definition(self, _auto_schema: Any) -> dict[str, str]:
        """A JSON web token in the Authorization header."""
        return {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}


def without_slashes(endpoints: list[Any], **_: object) -> list[Any]:
    """Addresses are told without the slash at the end, which is taken as well."""
    return [endpoint for endpoint in endpoints if not endpoint[0].endswith("/")]
