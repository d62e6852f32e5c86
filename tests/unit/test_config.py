"""The environment becomes a configuration, or stops the start with what is wrong and how it is written."""

import stat
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured

from scheduler_project import config, databases
from tasks_app.sections import ConfigurationError
from workers_app.conf import WorkerSettings


def test_an_empty_environment_is_a_configuration():
    made = config.load({"PATH": "/bin"})
    assert made.database_url == ""
    assert made.debug is False
    assert "127.0.0.1" in made.allowed_hosts


def test_values_come_in_their_types():
    made = config.load(
        {
            "SIGNALBOX_DEBUG": "true",
            "SIGNALBOX_HEALTH_PORT": "8101",
            "SIGNALBOX_ALLOWED_HOSTS": "a.example, b.example",
            "SIGNALBOX_STATE_DIR": "/tmp/state",
            "SIGNALBOX_WORKERS__LEASE_SECONDS": "30",
            "SIGNALBOX_WORKERS__TASK_TYPES": "default,gpu",
        }
    )
    assert (made.debug, made.health_port) == (True, 8101)
    assert made.allowed_hosts == ("a.example", "b.example")
    assert made.state_dir == Path("/tmp/state")
    section = config.section_values(made, "workers", WorkerSettings)
    assert section == {"lease_seconds": 30.0, "task_types": ("default", "gpu")}


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("SIGNALBOX_DATABASE_UR", "x", 'did you mean "SIGNALBOX_DATABASE_URL"'),
        ("SIGNALBOX_XYZ", "x", 'unknown variable "SIGNALBOX_XYZ"'),
        ("SIGNALBOX_WORKER__LEASE_SECONDS", "1", "SIGNALBOX_WORKER__LEASE_SECONDS"),
        ("SIGNALBOX_DEBUG", "maybe", "SIGNALBOX_DEBUG"),
        ("SIGNALBOX_HEALTH_PORT", "http", "SIGNALBOX_HEALTH_PORT"),
        ("SIGNALBOX_HEALTH_PORT", "70000", "0 to 65535"),
        ("SIGNALBOX_LOG_FORMAT", "xml", "human"),
        ("SIGNALBOX_GATEWAYS", "-1", "0 or more"),
    ],
)
def test_what_cannot_be_meant_stops_the_start(variable, value, message):
    with pytest.raises(ConfigurationError, match=message):
        config.load({variable: value})


def test_a_secret_is_made_once_and_is_for_its_owner_only(tmp_path):
    made = config.Config(state_dir=tmp_path / "state")
    first = config.local_secret(made, "django")
    assert len(first) >= 48
    assert config.local_secret(made, "django") == first
    assert config.local_secret(made, "other") != first
    assert stat.S_IMODE((tmp_path / "state" / "django.secret").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700


@pytest.mark.parametrize(
    ("url", "name"),
    [("sqlite:///some/file", "some/file"), ("sqlite:////abs/file", "/abs/file"), ("sqlite:///:memory:", ":memory:")],
)
def test_sqlite_addresses_are_read_as_everywhere(url, name):
    assert databases.from_url(url, pool=False)["NAME"] == name


def test_a_postgresql_address_brings_its_parts_and_its_options():
    made = databases.from_url("postgresql://me:p%40ss@db:5433/box?sslmode=require", pool=True)
    assert (made["USER"], made["PASSWORD"], made["HOST"], made["PORT"], made["NAME"]) == (
        "me",
        "p@ss",
        "db",
        "5433",
        "box",
    )
    assert made["OPTIONS"]["sslmode"] == "require"
    assert made["OPTIONS"]["pool"]
    assert "lock_timeout" in made["OPTIONS"]["options"]


def test_a_unix_socket_is_a_host_in_the_query():
    assert databases.from_url("postgresql:///box?host=/run/pg", pool=False)["HOST"] == "/run/pg"


@pytest.mark.parametrize("url", ["sqlite://", "mysql://x", "x"])
def test_other_addresses_are_refused(url):
    with pytest.raises(ImproperlyConfigured):
        databases.from_url(url, pool=False)
