"""Logs: ids, formats, and what must never be in them."""

import io
import json
import logging
import sys

import pytest

from scheduler_project import observability
from tasks_app import context


@pytest.fixture
def lines():
    """What a process would write: `lines("json")` gives a function that reads it."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    stream = io.StringIO()

    def install(format):  # noqa: A002
        handler = observability.install(stream, format=format, level="INFO")
        return lambda: [line for line in stream.getvalue().split("\n") if line], handler

    yield install
    root.handlers[:], root.level = before[0], before[1]
    root.setLevel(before[1])


def test_a_json_line_says_when_what_and_about_which_run(lines):
    read, _ = lines("json")
    with context.bind(run_id=7, attempt=2, worker_id="w1", trace_id="ab"):
        logging.getLogger("dispatch.dispatcher").info("run %s", "dispatched", extra={"queue": "default"})
    [line] = [json.loads(line) for line in read()]
    assert line["time"].endswith("Z")
    assert (line["level"], line["logger"], line["message"]) == ("INFO", "dispatch.dispatcher", "run dispatched")
    assert (line["run_id"], line["attempt"], line["worker_id"], line["trace_id"]) == (7, 2, "w1", "ab")
    assert line["queue"] == "default"


def test_a_human_line_has_the_same_ids(lines):
    read, _ = lines("human")
    with context.bind(run_id=7):
        logging.getLogger("celery.worker").warning("odd")
    [line] = read()
    assert line.endswith("WARNING celery.worker: odd  run_id=7")
    assert "\x1b" not in line


def test_ids_end_with_their_block_and_lie_over_each_other():
    with context.bind(run_id=1, attempt=1):
        with context.bind(attempt=2, run_id=None):
            assert dict(context.current()) == {"attempt": 2}
        assert dict(context.current()) == {"run_id": 1, "attempt": 1}
    assert dict(context.current()) == {}


def test_what_a_call_says_itself_wins_over_the_context(lines):
    read, _ = lines("json")
    with context.bind(run_id=1):
        logging.getLogger("x").info("m", extra={"run_id": 2})
    assert json.loads(read()[0])["run_id"] == 2


def test_an_error_brings_its_traceback(lines):
    read, _ = lines("json")
    try:
        raise ValueError("boom")
    except ValueError:
        logging.getLogger("x").exception("failed")
    assert "ValueError: boom" in json.loads(read()[0])["exc_info"]


@pytest.mark.parametrize("format", ["json", "human"])
@pytest.mark.parametrize(
    "message",
    [
        "connecting to redis://:hunter2@127.0.0.1:6390/0",
        "amqp://guest:hunter2@rabbit:5672//",
        "postgresql://me:hunter2@db/x failed",
        "Authorization: Bearer hunter2hunter2hunter2",
        "Authorization: Basic aHVudGVyMjpodW50ZXIy hunter",
        '{"password": "hunter2"}',
        "{'refresh_token': 'hunter2'}",
        "password=hunter2&x=1",
        "eyJhbGciOiJIUzI1NiJ9.eyJhIjoiaHVudGVyMiJ9.c2lnbmF0dXJl",
        "GET /login/once/0J_wq-eIuSNLHLbLiF_SSSqwS5II5DpI83v6hqldEbU/",
    ],
)
def test_secrets_are_not_logged(lines, format, message):  # noqa: A002
    read, _ = lines(format)
    logging.getLogger("x").info("%s", message)
    try:
        raise RuntimeError(message)
    except RuntimeError:
        logging.getLogger("x").exception("again")
    text = "\n".join(read())
    for secret in ("hunter2", "aHVudGVyMj", "eyJhIjoi", "0J_wq"):
        assert secret not in text


def test_redaction_leaves_json_intact_and_ordinary_text_alone(lines):
    read, _ = lines("json")
    text = "token bucket: 5 left, see http://host/path and a@b.c; key=value"
    logging.getLogger("x").info(text, extra={"password": "hunter2", "note": 'quote " and \\'})
    line = json.loads(read()[0])
    assert line["message"] == text
    assert line["password"] == "***"
    assert line["note"] == 'quote " and \\'


def test_configuring_twice_writes_each_line_once(lines):
    read, _ = lines("human")
    lines("human")
    logging.getLogger("x").info("once")
    assert len(read()) == 1


def test_libraries_write_through_the_same_handler(lines):
    read, _ = lines("human")
    for name in ("django.db", "celery", "celery.app.x", "kombu.connection", "gunicorn.error"):
        logging.getLogger(name).error("here")
    assert len(read()) == 5


def test_noisy_loggers_can_be_heard_at_debug():
    root = logging.getLogger()
    before = root.handlers[:], root.level
    try:
        observability.install(io.StringIO(), format="human", level="DEBUG")
        assert logging.getLogger("kombu").level <= logging.DEBUG
        observability.install(io.StringIO(), format="human", level="INFO")
        assert logging.getLogger("kombu").level == logging.WARNING
    finally:
        root.handlers[:] = before[0]
        root.setLevel(before[1])


@pytest.mark.parametrize(
    "given",
    [
        "",
        "nonsense",
        "00-" + "0" * 32 + "-" + "1" * 16 + "-01",
        "00-" + "a" * 32 + "-" + "0" * 16 + "-01",
        "x" * 10_000,
    ],
)
def test_a_trace_that_is_not_valid_is_replaced_by_a_new_one(given):
    made = observability.child_traceparent(given)
    assert observability.TRACEPARENT.fullmatch(made)
    assert "a" * 32 not in made


def test_a_valid_trace_goes_on_under_a_span_of_our_own():
    trace, span = "a" * 32, "b" * 16
    made = observability.child_traceparent(f"00-{trace}-{span}-00")
    assert made.startswith(f"00-{trace}-")
    assert made.endswith("-00")
    assert span not in made


def test_tracing_instruments_celery_once():
    from opentelemetry.instrumentation.celery import CeleryInstrumentor

    observability.instrument()
    try:
        assert CeleryInstrumentor().is_instrumented_by_opentelemetry
    finally:
        CeleryInstrumentor().uninstrument()


def test_the_settings_configure_logging_through_this_module():
    from django.conf import settings

    assert settings.LOGGING_CONFIG == "scheduler_project.observability.configure_logging"
    assert any(handler.get_name() == "signalbox" for handler in logging.getLogger().handlers)
    assert sys.stderr


def test_an_exporter_that_is_not_installed_is_named(monkeypatch):
    from tasks_app.sections import ConfigurationError

    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "carrier-pigeon")
    with pytest.raises(ConfigurationError, match="carrier-pigeon"):
        observability.instrument()


@pytest.mark.parametrize("text", ["x", "x.", 'password="', "a://", "eyJ", "Bearer ", "/login/once/"])
def test_the_time_to_hide_secrets_grows_with_the_text_and_not_with_its_square(text):
    for pattern, replacement in observability._SECRETS:
        pattern.sub(replacement, text * (400_000 // len(text)))


def test_a_text_of_megabytes_is_cut_before_it_is_logged():
    hidden = observability.redacted("amqp://u:hunter2@h " + "x" * 10_000_000)
    assert hidden.startswith("amqp://u:***@h xxx")
    assert hidden.endswith("characters cut]")
    assert len(hidden) < 2 * observability.TEXT_MAX
