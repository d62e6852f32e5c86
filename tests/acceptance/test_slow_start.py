"""A worker's lease begins when it registers; reaching the broker may take it most of that time."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from tests.acceptance.installation import installation

pytestmark = pytest.mark.timeout(240)


def test_a_worker_renews_its_lease_as_soon_as_it_is_ready(tmp_path, valkey):
    path = tmp_path / "db.sqlite3"
    broker = valkey.url.rsplit("/", 1)[0] + "/6"
    # The next renewal is due in twenty minutes: one that is seen was not waited for.
    with installation(tmp_path, f"sqlite:///{path}", broker, SIGNALBOX_WORKERS__LEASE_SECONDS="3600") as made:
        made.start("worker", "run_worker", "--name", "w", "--slots", "1")

        def renewals() -> list[tuple[int]]:
            with closing(sqlite3.connect(path, timeout=5)) as connection:
                return connection.execute(
                    "SELECT counter FROM workers_app_workerincarnation WHERE over_at IS NULL AND counter > 0"
                ).fetchall()

        assert made.wait_for(renewals, "the first renewal", 60) == [(1,)]
