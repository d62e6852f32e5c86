from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks_app import parameters
from tasks_app.definitions import TaskDefinition, problems_of
from tasks_app.schedules import due_interval, due_once
from tasks_app.sections import ConfigurationError, build
from workers_app.conf import WorkerSettings

GOOD = {"name": "backup", "executor": "shell", "parameters": {"argv": ["true"]}}


def problems(**changes) -> dict[str, list[str]]:
    return problems_of(TaskDefinition(**(GOOD | changes)), parameters_bytes_max=1000)


def test_a_good_definition_has_no_problems():
    assert problems() == {}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""), ("name", "   "), ("name", "a\x00b"), ("name", "x" * 5000), ("name", "\ud800"), ("name", None),
        ("task_type", "With Space"), ("task_type", "a.b"), ("task_type", ""), ("task_type", "x" * 51),
        ("executor", "https"), ("executor", "nonsense"),
        ("timeout_seconds", 0), ("timeout_seconds", -1), ("timeout_seconds", 1.5), ("timeout_seconds", True),
        ("max_retries", -1), ("priority", 10), ("priority", -1), ("quarantine_after", 0),
        ("retry_delay_seconds", -1), ("retry_delay_seconds", float("nan")), ("retry_delay_cap_seconds", 1),
        ("parameters", []), ("parameters", {"argv": ["x" * 2000]}), ("parameters", {"argv": ["a\x00"]}),
        ("parameters", {"argv": [float("nan")]}), ("parameters", {"argv": []}), ("parameters", {"argv": [1]}),
        ("parameters", {"argv": ["a"], "command": "b"}), ("parameters", {}), ("parameters", {"command": "a 'b"}),
        ("parameters", {"argv": ["a"], "evn": {}}), ("parameters", {"argv": ["a"], "env": {"A": 1}}),
        ("every_seconds", 0), ("every_seconds", -3), ("every_seconds", 0.5), ("run_at", datetime(2027, 1, 1)),  # noqa: DTZ001
        ("description", "a\x00"),
    ],
)  # fmt: skip
def test_bad_values_name_their_field(field, value):
    assert list(problems(**{field: value})) == [field]


def test_an_interval_and_a_time_exclude_each_other():
    assert "run_at" in problems(every_seconds=60, run_at=datetime(2027, 1, 1, tzinfo=UTC))


def test_python_parameters_name_a_function():
    assert problems(executor="python", parameters={"kwargs": {}}) != {}
    assert problems(executor="python", parameters={"function": "f", "args": 3}) != {}
    assert problems(executor="python", parameters={"function": "f", "args": [3], "kwargs": {"a": 1}}) == {}


def test_parameters_are_merged_object_by_object():
    base = {"function": "f", "kwargs": {"a": 1, "b": {"x": 1}}, "args": [1]}
    over = {"kwargs": {"b": {"y": 2}}, "args": [9]}
    assert parameters.merged(base, over) == {
        "function": "f",
        "kwargs": {"a": 1, "b": {"x": 1, "y": 2}},
        "args": [9],
    }
    assert base["kwargs"] == {"a": 1, "b": {"x": 1}}


START = datetime(2027, 1, 1, tzinfo=UTC)


def test_an_interval_that_is_on_time_skips_nothing():
    due = due_interval(START, timedelta(minutes=1), START + timedelta(seconds=3))
    assert (due.fire, due.next_fire_at, due.skipped_count) == (START, START + timedelta(minutes=1), 0)


def test_a_late_interval_fires_the_newest_time_and_tells_the_skipped_ones():
    due = due_interval(START, timedelta(minutes=1), START + timedelta(minutes=5, seconds=1))
    assert due.fire == START + timedelta(minutes=5)
    assert (due.skipped_first, due.skipped_last, due.skipped_count) == (
        START,
        START + timedelta(minutes=4),
        5,
    )
    assert due.next_fire_at == START + timedelta(minutes=6)


@given(seconds=st.integers(1, 100_000), late=st.integers(0, 10_000_000))
def test_every_nominal_time_is_fired_or_skipped_once(seconds, late):
    every, now = timedelta(seconds=seconds), START + timedelta(seconds=late)
    due = due_interval(START, every, now)
    assert due.fire <= now < due.next_fire_at
    assert (due.fire - START) // every == due.skipped_count
    assert (due.fire - START) % every == timedelta(0)


def test_an_interval_of_zero_is_refused():
    with pytest.raises(ValueError, match="above zero"):
        due_interval(START, timedelta(0), START)


def test_a_single_time_has_no_next():
    assert due_once(START).next_fire_at is None


def test_an_unknown_configuration_key_is_refused_with_a_suggestion():
    with pytest.raises(ConfigurationError, match='did you mean "lease_seconds"'):
        build(WorkerSettings, {"lease_second": 3}, section="workers")


@pytest.mark.parametrize(
    "values",
    [{"lease_seconds": 0}, {"lease_seconds": -1}, {"lease_margin_seconds": 40}, {"renewals_per_lease": 1}],
)
def test_a_lease_that_could_not_be_held_is_refused(values):
    with pytest.raises(ConfigurationError):
        build(WorkerSettings, values, section="workers")
