"""Bodies of requests: JSON, of a bounded size, with known fields only."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from typing import IO, Any

from django.conf import settings
from rest_framework.parsers import JSONParser
from rest_framework.request import Request

from tasks_app.definitions import unknown_field
from tasks_app.errors import SignalboxError
from tasks_app.text import Text


class MalformedBody(SignalboxError):
    """The body is not what this address takes. `problems` maps a field to its messages."""

    code = "request.malformed"

    def __init__(self, problems: Mapping[str, list[str]]) -> None:
        """Keep the problems by field; the first one becomes part of the message."""
        self.problems = problems
        field, messages = next(iter(problems.items()))
        super().__init__(f"{field}: {messages[0]}" if field else messages[0])


class BodyTooLarge(SignalboxError):
    """The body is larger than this installation takes."""

    code = "request.too_large"
    message = Text("The body is larger than this installation takes.")


class LengthRequired(SignalboxError):
    """Send the body with Content-Length, not in chunks."""

    code = "request.length_required"
    message = Text("Send the body with Content-Length, not in chunks.")


class BoundedJSONParser(JSONParser):
    """JSON of at most DATA_UPLOAD_MAX_MEMORY_SIZE bytes; nesting that no decoder could follow is an error, too."""

    def parse(
        self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> Any:
        """The decoded body. Raises BodyTooLarge, MalformedBody, ParseError."""
        limit: int = settings.DATA_UPLOAD_MAX_MEMORY_SIZE or 2**31
        declared = (parser_context or {})["request"].META.get("CONTENT_LENGTH") or "0"
        if declared.isdecimal() and int(declared) > limit:
            raise BodyTooLarge(limit=limit)
        body = stream.read(limit + 1)
        if len(body) > limit:
            raise BodyTooLarge(limit=limit)
        try:
            return super().parse(io.BytesIO(body), media_type, parser_context)
        except RecursionError as error:
            raise MalformedBody({"": [Text("The JSON is nested too deeply.")]}) from error


def body_of(request: Request, known: Iterable[str] | None = None) -> dict[str, Any]:
    """The body as an object; an absent one is empty. With `known`, any other field is an error."""
    if request.META.get("HTTP_TRANSFER_ENCODING") and not request.META.get("CONTENT_LENGTH"):
        raise LengthRequired  # it would be taken for an empty body
    data = request.data
    if not data and not request.META.get("CONTENT_LENGTH", "").strip("0"):
        return {}
    if not isinstance(data, dict):
        raise MalformedBody({"": [Text("The body must be a JSON object.")]})
    if known is not None:
        refuse_unknown(data, known)
    return data


def refuse_unknown(given: Iterable[str], known: Iterable[str]) -> None:
    """Raise MalformedBody for names that are not known, each with the nearest known one."""
    names = set(known)
    problems: dict[str, list[str]] = {
        str(name)[:100]: [unknown_field(name, names)] for name in given if name not in names
    }
    if problems:
        raise MalformedBody(problems)


def text_of(body: Mapping[str, Any], field: str, *, length_max: int = 10_000, needed: bool = True) -> str:
    """A text field of a body. Raises MalformedBody."""
    value = body.get(field)
    if value is None and not needed:
        return ""
    if not isinstance(value, str) or (needed and not value):
        raise MalformedBody({field: [Text("is needed") if value is None else Text("must be a text")]})
    if len(value) > length_max:
        raise MalformedBody(
            {field: [Text("at most %(limit)s characters, not %(length)s", limit=length_max, length=len(value))]}
        )
    if "\x00" in value:
        raise MalformedBody({field: [Text("NUL characters cannot be stored")]})
    try:
        value.encode()
    except UnicodeEncodeError:
        raise MalformedBody({field: [Text("not valid Unicode text")]}) from None
    return value
