"""What a process says about itself."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from tasks_app.process_health import HealthServer, LoopBeat, serve


class StuckBeat(LoopBeat):
    """The main loop has not gone round for an hour."""

    @property
    def age_seconds(self) -> float:
        return 3600.0


def fails() -> None:
    raise ConnectionError("postgresql://user:secret@host/db")


@pytest.fixture
def healthy() -> Iterator[HealthServer]:
    server = serve({"database": lambda: None}, LoopBeat(), port=0)
    assert server is not None
    yield server
    server.stop()


@pytest.fixture
def sick() -> Iterator[HealthServer]:
    server = serve({"database": lambda: None, "broker": fails}, StuckBeat(), port=0)
    assert server is not None
    yield server
    server.stop()


def get(server: HealthServer, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_a_process_whose_loop_goes_round_is_live_and_ready(healthy: HealthServer):
    assert get(healthy, "/livez")[0] == 200
    status, body = get(healthy, "/readyz")
    assert (status, json.loads(body)["checks"]) == (200, {"database": "ok"})


def test_a_loop_that_stands_still_is_not_live(sick: HealthServer):
    assert get(sick, "/livez")[0] == 503


def test_each_check_is_named_and_a_failure_tells_no_secret(sick: HealthServer):
    status, body = get(sick, "/readyz")
    assert status == 503
    assert json.loads(body)["checks"] == {"database": "ok", "broker": "failed: ConnectionError"}
    assert "secret" not in body


def test_metrics_are_in_the_format_of_prometheus(healthy: HealthServer):
    status, body = get(healthy, "/metrics")
    assert status == 200
    assert "# TYPE" in body


def test_other_paths_are_not_found(healthy: HealthServer):
    assert get(healthy, "/secrets")[0] == 404


def test_without_a_port_in_the_configuration_nothing_listens():
    assert serve({}, LoopBeat()) is None
