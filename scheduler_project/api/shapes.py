"""Pieces of request and answer shapes that resources share."""

from __future__ import annotations

from functools import cache
from typing import Any

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, inline_serializer
from rest_framework import serializers
from rest_framework.request import Request

from scheduler_project.api.paging import COUNT_MAX, LIMIT, LIMIT_MAX

PAGING = [
    OpenApiParameter("limit", OpenApiTypes.INT, description=f"1 to {LIMIT_MAX}, default {LIMIT}"),
    OpenApiParameter("cursor", OpenApiTypes.STR, description="Opaque; from `next` or `prev`"),
    OpenApiParameter("count", OpenApiTypes.STR, enum=["capped"], description=f"Also count, up to {COUNT_MAX}"),
]


@cache
def page_of(name: str, item: type[serializers.BaseSerializer[Any]]) -> Any:
    """The shape of a page of items."""
    return inline_serializer(
        f"{name}Page",
        {
            "results": item(many=True),
            "next": serializers.URLField(allow_null=True),
            "prev": serializers.URLField(allow_null=True),
            "count": serializers.IntegerField(required=False),
            "capped": serializers.BooleanField(required=False),
        },
    )


class ParametersOver(serializers.Serializer[Any]):
    """Parameters that are merged over the ones there are."""

    parameters = serializers.DictField(required=False)


def author(request: Request) -> str:
    """Who asks, for the record."""
    return str(request.user.get_username())
