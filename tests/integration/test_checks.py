"""`manage.py check --deploy`, in processes of their own: the environment decides."""

import os
import subprocess
import sys

import pytest
from django.conf import settings
from django.db import connections

from tasks_app.checks import kept_connections, sessions

PRODUCTION = {
    "SIGNALBOX_SECRET_KEY": "s" * 50 + "0123456789abcdef",
    "SIGNALBOX_SIGNING_KEY": "k" * 48,
    "SIGNALBOX_DATABASE_URL": "postgresql://signalbox@db.internal/signalbox",
    "SIGNALBOX_BROKER_URL": "amqp://signalbox:secret@mq.internal//",
    "SIGNALBOX_CACHE_URL": "redis://cache.internal/0",
    "SIGNALBOX_HTTPS": "1",
    "SIGNALBOX_ALLOWED_HOSTS": "signalbox.example.org",
}


def check(tmp_path, *arguments, **environment):
    clean = {key: value for key, value in os.environ.items() if not key.startswith("SIGNALBOX_")}
    done = subprocess.run(
        [sys.executable, "manage.py", "check", *arguments],
        env=clean | {"SIGNALBOX_STATE_DIR": str(tmp_path)} | environment,
        cwd=settings.BASE_DIR,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout + done.stderr


def test_a_production_set_up_is_clean(tmp_path):
    code, text = check(tmp_path, "--deploy", "--fail-level", "WARNING", **PRODUCTION)
    assert code == 0, text


def test_what_is_missing_for_production_is_named_with_its_cure(tmp_path):
    code, text = check(tmp_path, "--deploy", "--fail-level", "WARNING")
    assert code == 1
    for number in ("W001", "W002", "W003", "W005", "W006"):
        assert f"signalbox.{number}" in text
    assert "SIGNALBOX_SIGNING_KEY" in text


def test_sqlite_with_a_broker_elsewhere_is_a_warning(tmp_path):
    _, text = check(tmp_path, "--deploy", SIGNALBOX_BROKER_URL="amqp://mq.internal//")
    assert "signalbox.W004" in text


def test_a_module_that_cannot_be_imported_stops_the_check(tmp_path):
    code, text = check(tmp_path, SIGNALBOX_IMPORTS="no.such.module")
    assert code == 1
    assert 'the module "no.such.module" cannot be imported' in text


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("SIGNALBOX_DEBGU", "1", 'did you mean "SIGNALBOX_DEBUG"'),
        ("SIGNALBOX_WORKERS__LEASE_SECOND", "1", 'did you mean "lease_seconds"'),
        ("SIGNALBOX_WORKERS__LEASE_SECONDS", "soon", "SIGNALBOX_WORKERS__LEASE_SECONDS"),
        ("SIGNALBOX_DATABASE_URL", "mysql://x", "mysql"),
    ],
)
def test_a_configuration_that_cannot_be_meant_stops_the_start(tmp_path, variable, value, message):
    code, text = check(tmp_path, **{variable: value})
    assert code != 0
    assert message in text


@pytest.mark.postgresql_only
def test_sessions_that_may_stand_still_in_a_transaction_are_a_warning(monkeypatch):
    assert sessions(None) == []
    monkeypatch.setitem(connections["default"].settings_dict, "OPTIONS", {})
    assert [found.id for found in sessions(None)] == ["signalbox.W007"]


def test_connections_that_each_body_would_open_anew_are_a_warning(monkeypatch):
    assert kept_connections(None) == []
    monkeypatch.setitem(connections["default"].settings_dict, "CONN_MAX_AGE", 0)
    assert [found.id for found in kept_connections(None)] == ["signalbox.W008"]
    monkeypatch.setitem(connections["default"].settings_dict, "OPTIONS", {"pool": True})
    assert kept_connections(None) == []
