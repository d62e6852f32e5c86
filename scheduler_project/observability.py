"""Logs with the ids of what they are about, for people or as JSON; request and trace ids; OpenTelemetry.

Every process of Signalbox logs through `configure_logging`: Django names it as LOGGING_CONFIG, so it is called by
`django.setup()` whichever way a process starts. Celery, kombu and gunicorn are kept from installing handlers of their
own, so that one line is one format everywhere.
"""

from __future__ import annotations

import logging
import re
import secrets
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, ClassVar, TextIO

from django.http import HttpRequest, HttpResponseBase

from scheduler_project import metrics
from tasks_app import context

#: W3C trace context, version 00: trace id, parent span id, flags.
TRACEPARENT = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})")
_REQUEST_ID = re.compile(r"[A-Za-z0-9_.:-]{1,64}")

#: Attributes that every LogRecord has; whatever else it carries was given by `extra=`.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}
_RESERVED = frozenset({"request", "server_time", "status_code", "data", "stack_info"})

#: A log line's text is cut here: an exception may bring megabytes.
TEXT_MAX = 32_768

# Repetitions are bounded where a pattern can begin at any character: the time must grow with the text, not its square.
_SECRETS: tuple[tuple[re.Pattern[str], str], ...] = (
    # scheme://user:password@host
    (
        re.compile(r"(?P<head>\b[a-z][a-z0-9+.-]{0,30}://[^\s/:@]{0,256}):[^\s/@]{1,1024}@", re.IGNORECASE),
        r"\g<head>:***@",
    ),
    # Authorization: Bearer …, Basic …
    (re.compile(r"\b(?P<head>Bearer|Basic)\s+[A-Za-z0-9._~+/=-]{8,}", re.IGNORECASE), r"\g<head> ***"),
    # three parts of base64url: a JSON web token
    (re.compile(r"\beyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]*"), "***"),
    # "password": "…", token=…, secret: …
    (
        re.compile(
            r"(?P<head>[\"']?\b(?:[a-z_]*(?:password|passwd|secret|token|api_key|signing_key|authorization))[\"']?"
            r"\s*[:=]\s*)(?P<quote>[\"'])(?:(?!(?P=quote)).){1,4096}(?P=quote)",
            re.IGNORECASE,
        ),
        r"\g<head>\g<quote>***\g<quote>",
    ),
    (
        re.compile(
            r"(?P<head>\b[a-z_]*(?:password|passwd|secret|access_token|refresh_token|api_key|signing_key)=)[^\s&\"']+",
            re.IGNORECASE,
        ),
        r"\g<head>***",
    ),
    # one-time log-in links
    (re.compile(r"(?P<head>/login/once/)[A-Za-z0-9_-]{16,}"), r"\g<head>***"),
)

_SECRET_KEY = re.compile(
    r"password|passwd|secret|authorization|api_key|signing_key|(access|refresh)_token", re.IGNORECASE
)


def redacted(text: str) -> str:
    """The text without passwords in URLs, tokens, keys and log-in links, cut to TEXT_MAX characters."""
    if len(text) > TEXT_MAX:
        text = text[:TEXT_MAX] + f" [{len(text) - TEXT_MAX} characters cut]"
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return text


def _without_secrets(key: str, value: Any) -> Any:
    if isinstance(value, str):
        return "***" if value and _SECRET_KEY.search(key) else redacted(value)
    if isinstance(value, Mapping):
        return {name: _without_secrets(str(name), item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_secrets(key, item) for item in value]
    return value


class ContextFilter(logging.Filter):
    """Adds the ids of `tasks_app.context` to each record; what the call itself gave by `extra=` wins."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Always True."""
        for key, value in context.current().items():
            if key not in vars(record):
                setattr(record, key, value)
        return True


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """What a record carries beside its message: ids and whatever was given by `extra=`."""
    return {
        key: value
        for key, value in vars(record).items()
        if key not in _STANDARD and key not in _RESERVED and not key.startswith("_")
    }


def _timestamp(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class HumanFormatter(logging.Formatter):
    """`12:00:00.123 INFO  dispatch.dispatcher: run dispatched  run_id=7 attempt=1`, in UTC, in colour on a terminal."""

    _COLOURS: ClassVar[Mapping[int, str]] = {
        logging.WARNING: "33",
        logging.ERROR: "31",
        logging.CRITICAL: "1;31",
    }

    def __init__(self, *, colour: bool = False) -> None:
        super().__init__()
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        """One line, and the traceback below it where there is one."""
        line = f"{_timestamp(record)[11:-1]} {record.levelname:<7} {record.name}: {record.getMessage()}"
        fields = " ".join(f"{key}={value}" for key, value in fields_of(record).items())
        if fields:
            line = f"{line}  {fields}"
        if self._colour and record.levelno in self._COLOURS:
            line = f"\x1b[{self._COLOURS[record.levelno]}m{line}\x1b[0m"
        if record.exc_info:
            line = f"{line}\n{self.formatException(record.exc_info)}"
        return redacted(line)


def json_formatter() -> logging.Formatter:
    """One JSON object a line: time, level, logger, message, the ids, and error with its traceback."""
    from pythonjsonlogger.json import JsonFormatter

    class Formatter(JsonFormatter):
        """Names and order of our own."""

        def add_fields(self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]) -> None:
            log_data["time"] = _timestamp(record)
            log_data["level"] = record.levelname
            log_data["logger"] = record.name
            log_data["message"] = record.getMessage()
            log_data.update(fields_of(record))
            log_data.update({key: value for key, value in message_dict.items() if value})

        def process_log_record(self, log_data: dict[str, Any]) -> dict[str, Any]:
            # Before it becomes JSON: afterwards every quote wears a backslash.
            return {key: _without_secrets(key, value) for key, value in log_data.items()}

    return Formatter(json_ensure_ascii=False)


def configure_logging(options: Mapping[str, Any]) -> None:
    """Set up the root logger: `{"format": "human" | "json", "level": "INFO"}`. May be called again."""
    install(
        sys.stderr,
        format=str(options.get("format", "human")),
        level=str(options.get("level", "INFO")).upper(),
    )


def install(stream: TextIO, *, format: str, level: str) -> logging.Handler:  # noqa: A002
    """One handler on the root logger, in the wanted format; loggers of libraries pass theirs up to it."""
    import os

    handler = logging.StreamHandler(stream)
    colour = format == "human" and stream.isatty() and not os.environ.get("NO_COLOR")
    handler.setFormatter(json_formatter() if format == "json" else HumanFormatter(colour=colour))
    handler.addFilter(ContextFilter())
    handler.set_name("signalbox")
    root = logging.getLogger()
    for old in [known for known in root.handlers if known.get_name() == "signalbox"]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level)
    for name in (
        "django",
        "celery",
        "celery.task",
        "celery.worker",
        "kombu",
        "amqp",
        "gunicorn.error",
        "gunicorn.access",
    ):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    # Talkative at INFO without saying anything that the own lines do not.
    quiet = "WARNING" if level == "INFO" else level
    for name in ("amqp", "kombu", "celery.worker.strategy", "celery.app.trace", "django.server"):
        logging.getLogger(name).setLevel(quiet)
    # The own line about each request says it already.
    logging.getLogger("django.request").setLevel(logging.ERROR)
    logging.captureWarnings(True)
    return handler


class RequestContextMiddleware:
    """Gives each request an id and a trace, in its log lines and in the answer's headers.

    `X-Request-Id` is taken over where it is a plain short word. `traceparent` is taken over with a span id of our own;
    without one a new trace begins. Both are on the request (`request_id`, `traceparent`).
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self._get_response = get_response
        self._logger = logging.getLogger("signalbox.http")

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        """Answer the request with the ids bound."""
        given = request.headers.get("X-Request-Id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
        traceparent = child_traceparent(request.headers.get("traceparent", ""))
        request.request_id = request_id  # type: ignore[attr-defined]
        request.traceparent = traceparent  # type: ignore[attr-defined]
        began = time.monotonic()
        with context.bind(request_id=request_id, trace_id=traceparent.split("-")[1]):
            response = self._get_response(request)
            response.headers["X-Request-Id"] = request_id
            response.headers["traceparent"] = traceparent
            seconds = time.monotonic() - began
            metrics.count_request(request.method, response.status_code, seconds)
            self._logger.log(
                logging.DEBUG if request.path in {"/livez", "/readyz", "/metrics"} else logging.INFO,
                "%s %s %s",
                request.method,
                request.path,
                response.status_code,
                extra={"duration_ms": round(seconds * 1000, 1)},
            )
        return response


def child_traceparent(given: str) -> str:
    """A trace parent of our own under the given one: same trace, new span id; a new trace for one that is not valid."""
    match = TRACEPARENT.fullmatch(given.strip().lower())
    trace_id, flags = (match[1], match[3]) if match else (secrets.token_hex(16), "01")
    return f"00-{trace_id}-{secrets.token_hex(8)}-{flags}"


def instrument() -> None:
    """Record spans of Celery's publishing and execution.

    Where they go is said by the standard variables: OTEL_TRACES_EXPORTER names installed exporters (`console`; `otlp`
    with the package opentelemetry-exporter-otlp), OTEL_SERVICE_NAME and the others mean what they always mean. Without
    an exporter spans are made, so that traces go on through us, and are not sent. Raises ConfigurationError for an
    exporter that is not installed.
    """
    import os
    from importlib.metadata import entry_points

    from opentelemetry import trace
    from opentelemetry.instrumentation.celery import CeleryInstrumentor
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    from tasks_app.sections import ConfigurationError

    instrumentor = CeleryInstrumentor()  # type: ignore[no-untyped-call]
    if instrumentor.is_instrumented_by_opentelemetry:
        return
    service = {} if "OTEL_SERVICE_NAME" in os.environ else {"service.name": "signalbox"}
    provider = TracerProvider(resource=Resource.create(service))
    for name in os.environ.get("OTEL_TRACES_EXPORTER", "none").split(","):
        if name.strip() in {"", "none"}:
            continue
        found = list(entry_points(group="opentelemetry_traces_exporter", name=name.strip()))
        if not found:
            raise ConfigurationError(f'OTEL_TRACES_EXPORTER: no exporter "{name.strip()}" is installed')
        provider.add_span_processor(BatchSpanProcessor(found[0].load()()))
    trace.set_tracer_provider(provider)
    instrumentor.instrument()
