"""Each claim about the console can fail."""

import math

import pytest

from tests.console.claims import CLAIMS, bytes_value, complaints_value, findings_value, list_value, requests_value
from tests.console.measuring import Seen

BARS = {claim.id: claim.holds for claim in CLAIMS}


def page(**facts):
    return Seen("runs", "dark", "en", **({"requests": ["here"] * 5, "wire_bytes": 30_000} | facts))


def test_a_page_that_asks_too_often_or_elsewhere_fails():
    holds = BARS["console.first.requests"]
    assert holds(requests_value([page()])[0])
    assert not holds(requests_value([page(), page(requests=["here"] * 11)])[0])
    assert not holds(requests_value([page(), page(requests=["here", "elsewhere"])])[0])
    assert not holds(requests_value([])[0])


def test_a_heavy_page_and_one_that_was_not_measured_fail():
    holds = BARS["console.first.bytes"]
    assert holds(bytes_value([page()])[0])
    assert not holds(bytes_value([page(), page(wire_bytes=61_441)])[0])
    assert not holds(bytes_value([page(), page(wire_bytes=0)])[0])
    assert not holds(bytes_value([])[0])


@pytest.mark.parametrize(
    ("claim", "value", "field"),
    [
        ("console.first.complaints", complaints_value, "complaints"),
        ("console.first.accessibility", findings_value, "findings"),
    ],
)
def test_one_complaint_in_one_look_fails_and_is_named(claim, value, field):
    assert BARS[claim](value([page()])[0])
    number, detail = value([page(), page(**{field: ["color-contrast"]})])
    assert not BARS[claim](number)
    assert "runs dark en: color-contrast" in detail
    assert not BARS[claim](value([])[0])


def test_a_slow_list_fails_also_when_only_the_deep_page_is_slow():
    holds = BARS["console.first.list"]
    assert holds(list_value({"runs/": 20.0, "runs/?before=1": 199.0, "": 900.0})[0])
    assert not holds(list_value({"runs/": 20.0, "runs/?before=1": 200.0})[0])
    assert not holds(list_value({"runs/": 20.0})[0])


def test_a_badge_that_turns_late_or_never_fails():
    holds = BARS["console.first.stale"]
    assert holds(11.9)
    assert not holds(12.1)
    assert not holds(math.inf)
