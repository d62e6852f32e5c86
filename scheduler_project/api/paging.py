"""The one way to page: an opaque keyset cursor, never a total.

`?limit=&cursor=` answers `{"results", "next", "prev"}`, where next and prev are addresses or null. `?count=capped`
adds `{"count", "capped"}`: it looks at 1000 rows at most, whatever there is.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Iterable
from typing import Any, Final, TypeVar

from django.db.models import Model, QuerySet
from rest_framework.request import Request
from rest_framework.response import Response

from scheduler_project.api.parsing import MalformedBody, refuse_unknown
from tasks_app.text import Text

M = TypeVar("M", bound=Model)

LIMIT: Final = 50
LIMIT_MAX: Final = 500
COUNT_MAX: Final = 1000
PARAMETERS: Final = frozenset({"limit", "cursor", "count"})


def page(
    request: Request,
    rows: QuerySet[M],
    show: Callable[[M], Any],
    *,
    key: str,
    key_type: type,
    descending: bool,
) -> Response:
    """One page of `rows`, ordered by the unique column `key`."""
    limit = _limit(request)
    backwards, position = _cursor(request, key_type)
    if position is not None:
        rows_here = rows.filter(**{f"{key}__{'lt' if descending != backwards else 'gt'}": position})
    else:
        rows_here = rows
    found = list(rows_here.order_by(f"-{key}" if descending != backwards else key)[: limit + 1])
    more = len(found) > limit
    found = found[:limit]
    if backwards:
        found.reverse()
    before = more if backwards else position is not None
    after = True if backwards else more
    body: dict[str, Any] = {
        "results": [show(row) for row in found],
        "next": _address(request, False, getattr(found[-1], key)) if found and after else None,
        "prev": _address(request, True, getattr(found[0], key)) if found and before else None,
    }
    if "count" in request.query_params:
        seen = rows.order_by()[: COUNT_MAX + 1].count()
        body |= {"count": min(seen, COUNT_MAX), "capped": seen > COUNT_MAX}
    return Response(body)


def check_parameters(request: Request, known: Iterable[str] = ()) -> None:
    """Refuse a filter that is not known: it would be taken for one that finds everything."""
    refuse_unknown(request.query_params, PARAMETERS | set(known))


def _limit(request: Request) -> int:
    text = request.query_params.get("limit", str(LIMIT))
    if not (text.isascii() and text.isdecimal() and len(text) < 10 and 1 <= int(text) <= LIMIT_MAX):
        raise MalformedBody(
            {
                "limit": [
                    Text(
                        "a whole number from %(low)s to %(high)s, not %(given)s", low=1, high=LIMIT_MAX, given=text[:60]
                    )
                ]
            }
        )
    return int(text)


def _cursor(request: Request, key_type: type) -> tuple[bool, Any]:
    text = request.query_params.get("cursor")
    if not text:
        return False, None
    try:
        way, position = json.loads(base64.urlsafe_b64decode(text.encode() + b"=" * (-len(text) % 4)))
        if way not in {"n", "p"} or isinstance(position, bool) or not isinstance(position, key_type):
            raise ValueError("not one of ours")
    except (ValueError, TypeError, binascii.Error, RecursionError) as error:
        raise MalformedBody({"cursor": [Text("is not a cursor of this list")]}) from error
    return way == "p", position


def _address(request: Request, backwards: bool, position: Any) -> str:
    content = json.dumps(["p" if backwards else "n", position], separators=(",", ":"))
    query = request.query_params.copy()
    query["cursor"] = base64.urlsafe_b64encode(content.encode()).decode().rstrip("=")
    return request.build_absolute_uri(f"{request.path}?{query.urlencode()}")
