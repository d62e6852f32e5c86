"""Fixtures: one installation for each combination, shared by the tests of a session."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.acceptance.installation import Installation, installation

COMBINATIONS = ("sqlite+valkey", "postgresql+rabbitmq")


@pytest.fixture(scope="session", params=COMBINATIONS)
def installed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """Two dispatchers, two ingests, two workers."""
    folder = tmp_path_factory.mktemp("installation")
    if request.param == "sqlite+valkey":
        database = f"sqlite:///{folder / 'db.sqlite3'}"
        broker = request.getfixturevalue("valkey").url
    else:
        server = request.getfixturevalue("postgres")
        database = server.create_database("acceptance")
        broker = request.getfixturevalue("rabbitmq").url
    with installation(folder, database, broker, SIGNALBOX_IMPORTS="tests.acceptance.jobs_of_tests") as made:
        made.start_all(dispatchers=2, ingests=2, workers=2)
        yield made
