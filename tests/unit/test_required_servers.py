"""Where servers are required, a skip is a failure; elsewhere it is a skip."""

from __future__ import annotations

import pytest

from tests import conftest


def report(nodeid: str, outcome: str = "skipped") -> pytest.TestReport:
    where = ("file.py", 1, "Skipped: RabbitMQ is not installed")
    return pytest.TestReport(nodeid, ("file.py", 1, "test"), {}, outcome, where, "call")  # type: ignore[arg-type]


@pytest.mark.parametrize("folder", ["tests/integration", "tests/acceptance"])
def test_a_skip_fails_where_servers_are_required(monkeypatch: pytest.MonkeyPatch, folder: str) -> None:
    monkeypatch.setenv("SIGNALBOX_REQUIRE_SERVERS", "1")
    skipped = report(f"{folder}/test_x.py::test_y")
    conftest.refuse_skip(skipped)
    assert skipped.failed
    assert "RabbitMQ is not installed" in str(skipped.longrepr)


@pytest.mark.parametrize(
    ("required", "nodeid", "outcome"),
    [
        ("", "tests/integration/test_x.py::test_y", "skipped"),
        ("0", "tests/integration/test_x.py::test_y", "skipped"),
        ("1", "tests/unit/test_x.py::test_y", "skipped"),
        ("1", "tests/integration/test_x.py::test_y", "passed"),
    ],
)
def test_other_outcomes_stay_what_they_are(
    monkeypatch: pytest.MonkeyPatch, required: str, nodeid: str, outcome: str
) -> None:
    monkeypatch.setenv("SIGNALBOX_REQUIRE_SERVERS", required)
    unchanged = report(nodeid, outcome)
    conftest.refuse_skip(unchanged)
    assert unchanged.outcome == outcome


def test_an_expected_failure_is_no_skip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGNALBOX_REQUIRE_SERVERS", "1")
    expected = report("tests/integration/test_x.py::test_y")
    expected.wasxfail = "known"
    conftest.refuse_skip(expected)
    assert expected.skipped
