"""Fixtures: one installation for each combination, shared by the tests of this package and gone after them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.acceptance.installation import Installation, installation

COMBINATIONS = ("sqlite+valkey", "postgresql+rabbitmq", "postgresql+redis-stream")


@pytest.fixture(scope="package", params=COMBINATIONS)
def installed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """Two dispatchers, two ingests, two workers."""
    folder = tmp_path_factory.mktemp("installation")
    if request.param == "sqlite+valkey":
        database = f"sqlite:///{folder / 'db.sqlite3'}"
        # A database of its own: other tests use the first one of the same server.
        broker = request.getfixturevalue("valkey").url.rsplit("/", 1)[0] + "/5"
    else:
        server = request.getfixturevalue("postgres")
        database = server.create_database(f"acceptance_{request.param.partition('+')[2].replace('-', '_')}")
        if request.param.endswith("rabbitmq"):
            broker = request.getfixturevalue("rabbitmq").url
        else:
            plain = request.getfixturevalue("redis_server").url
            broker = plain.replace("redis://", "redis-stream://").rsplit("/", 1)[0] + "/5"
    environment = {
        "SIGNALBOX_IMPORTS": "tests.acceptance.jobs_of_tests",
        "SIGNALBOX_WORKERS__HTTP_ALLOW": "127.0.0.1",
    }
    with installation(folder, database, broker, **environment) as made:
        made.start_all(dispatchers=2, ingests=2, workers=2)
        yield made
    if request.param == "postgresql+rabbitmq":
        request.getfixturevalue("rabbitmq").delete_all_queues()
