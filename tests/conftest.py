"""Which database, which servers: decided here, before Django's settings load.

`pytest --database=sqlite` (the default) or `--database=postgresql`. The settings module is named here and not
in pyproject.toml, because a name there makes pytest-django load the settings before any conftest is read, and
these tests first start PostgreSQL and then say where it is.

With SIGNALBOX_REQUIRE_SERVERS=1 nothing may be skipped under tests/integration and tests/acceptance: a test
that skips, for a missing server or any other reason, fails.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.servers import (
    PostgresServer,
    RabbitMQServer,
    RedisServer,
    ServerMissing,
    ValkeyServer,
    leash,
)

if TYPE_CHECKING:
    from tests.servers.process import Server

#: The settings under test, read by DJANGO_SETTINGS_MODULE.
SETTINGS = "scheduler_project.settings"
#: By one of these a test uses the database that was chosen, unless it says so by the mark `django_db`.
DATABASE_FIXTURES = {"db", "transactional_db", "django_db_setup", "database_url"}
#: Where nothing may be skipped when servers are required.
SERVED = ("tests/integration/", "tests/acceptance/")

_state = pytest.StashKey[Path]()
_database_server = pytest.StashKey[PostgresServer]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """The choice of the database."""
    parser.addoption(
        "--database",
        choices=("sqlite", "postgresql"),
        default="sqlite",
        help="the database that the tests run on (default: sqlite)",
    )
    parser.addoption(
        "--only-with-database",
        action="store_true",
        help="leave out tests that use no database: once is enough for them, where there are runs on several",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Give the tests an environment of their own, whatever the developer's says; start PostgreSQL."""
    required = os.environ.get("SIGNALBOX_REQUIRE_SERVERS")
    for variable in [name for name in os.environ if name.startswith("SIGNALBOX_")]:
        del os.environ[variable]
    if required:
        os.environ["SIGNALBOX_REQUIRE_SERVERS"] = required
    state = Path(tempfile.mkdtemp(prefix="signalbox-tests-"))
    config.stash[_state] = state
    leash.hold_directory(state)  # for the case that this process is killed
    config.add_cleanup(lambda: shutil.rmtree(state, ignore_errors=True))
    os.environ["SIGNALBOX_STATE_DIR"] = str(state)
    os.environ["SIGNALBOX_DATABASE_URL"] = f"sqlite:///{state / 'main.sqlite3'}"
    if config.getoption("--database") == "postgresql":
        try:
            server = PostgresServer().start()
        except ServerMissing as error:
            if servers_are_required():
                raise pytest.UsageError(str(error)) from None
            pytest.exit(f"nothing is tested on PostgreSQL: {error}", returncode=0)
        config.stash[_database_server] = server
        config.add_cleanup(server.close)
        os.environ["SIGNALBOX_DATABASE_URL"] = server.url
    os.environ["DJANGO_SETTINGS_MODULE"] = SETTINGS
    from django.conf import settings

    # Reading one loads them all; pytest-django, whose turn comes after ours, then sets Django up.
    assert settings.DATABASES


def pytest_report_header(config: pytest.Config) -> str:
    """Say what this run is about."""
    required = " (servers required)" if servers_are_required() else ""
    return f"database: {config.getoption('--database')}{required}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is about the other database, and if so wished what is about none."""
    other = "postgresql_only" if config.getoption("--database") == "sqlite" else "sqlite_only"
    chosen = [item for item in items if item.get_closest_marker(other) is None]
    if config.getoption("--only-with-database"):
        chosen = [item for item in chosen if uses_database(item)]
    config.hook.pytest_deselected(items=[item for item in items if item not in set(chosen)])
    items[:] = chosen


def uses_database(item: pytest.Item) -> bool:
    """Whether a test depends on --database."""
    marked = any(item.get_closest_marker(name) is not None for name in ("django_db", "postgresql_only", "sqlite_only"))
    return marked or not DATABASE_FIXTURES.isdisjoint(getattr(item, "fixturenames", ()))


def servers_are_required() -> bool:
    """Whether a missing server is a failure."""
    return os.environ.get("SIGNALBOX_REQUIRE_SERVERS", "") not in {"", "0"}


def refuse_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    skipped = report.skipped and not hasattr(report, "wasxfail")
    if skipped and servers_are_required() and report.nodeid.startswith(SERVED):
        report.outcome = "failed"
        report.longrepr = f"skipped, where servers are required and nothing may be: {report.longrepr}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a skip into a failure where nothing may be skipped."""
    report = yield
    refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """The same for modules that skip themselves."""
    report = yield
    refuse_skip(report)
    return report


def _serve(start: Callable[[], Server]) -> Iterator[Server]:
    try:
        server = start()
    except ServerMissing as error:
        pytest.skip(str(error))
    with server:
        yield server


@pytest.fixture(scope="session")
def postgres(request: pytest.FixtureRequest) -> Iterator[PostgresServer]:
    """PostgreSQL, started once per session; with --database=postgresql it is the one that Django uses."""
    server = request.config.stash.get(_database_server, None)
    if server is not None:
        yield server
    else:
        yield from _serve(PostgresServer)  # type: ignore[misc]


@pytest.fixture(scope="session")
def rabbitmq() -> Iterator[RabbitMQServer]:
    """RabbitMQ, started once per session. Leave no queue behind that others could meet."""
    yield from _serve(RabbitMQServer)  # type: ignore[misc]


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """Redis, started once per session."""
    yield from _serve(RedisServer)  # type: ignore[misc]


@pytest.fixture(scope="session")
def valkey() -> Iterator[ValkeyServer]:
    """The embedded broker's server, started once per session."""
    yield from _serve(ValkeyServer)  # type: ignore[misc]


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of a Chromium, for tests of the console in a real browser."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("Chromium is not installed: sudo tests/servers/install.sh")
    return found


@pytest.fixture(scope="session")
def django_db_modify_db_settings(request: pytest.FixtureRequest) -> None:
    """On SQLite the test database is a file: threads and processes share it, and WAL is what is shipped."""
    from django.db import connections

    if request.config.getoption("--database") == "sqlite":
        test = connections["default"].settings_dict.setdefault("TEST", {})
        test["NAME"] = str(request.config.stash[_state] / "test.sqlite3")


@pytest.fixture
def database_url(request: pytest.FixtureRequest) -> str:
    """SIGNALBOX_DATABASE_URL of the test's own database, for processes that a test starts.

    They see what is committed: use it with `transactional_db`.
    """
    from django.db import connection

    if request.config.getoption("--database") == "sqlite":
        return f"sqlite:///{connection.settings_dict['NAME']}"
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.url_of(str(connection.settings_dict["NAME"]))
