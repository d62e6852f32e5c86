"""How many permits are asked for beyond the slots."""

from __future__ import annotations

import pytest

from workers_app.execution.look_ahead import (
    AHEAD_MAX,
    KNOWN_MAX,
    PREFETCH_HELD_SECONDS,
    SAMPLES_MIN,
    LookAhead,
    measured_as,
)


def learnt(milliseconds: int, slots: int = 2) -> LookAhead:
    ahead = LookAhead(slots)
    for _ in range(SAMPLES_MIN):
        ahead.took("f", milliseconds, 0.0)
    return ahead


@pytest.mark.parametrize(("milliseconds", "ahead"), [(0, 32), (1, 32), (10, 20), (100, 2), (150, 1), (300, 0)])
def test_it_is_what_the_slots_get_through_in_a_tenth_of_a_second(milliseconds, ahead):
    assert learnt(milliseconds).of("f") == ahead


def test_nothing_is_ahead_of_a_function_that_is_not_known_well_enough():
    ahead = LookAhead(2)
    for _ in range(SAMPLES_MIN - 1):
        ahead.took("f", 1, 0.0)
    assert ahead.of("f") == 0
    assert ahead.of("g") == 0


def test_one_slow_body_in_twenty_makes_a_function_slow():
    ahead = learnt(1)
    for _ in range(20):
        ahead.took("f", 1, 0.0)
    ahead.took("f", 5_000, 0.0)
    assert ahead.of("f") == AHEAD_MAX
    ahead.took("f", 5_000, 0.0)
    assert ahead.of("f") == 0


def test_a_mixture_of_functions_does_not_turn_the_prefetch_back_and_forth():
    ahead = learnt(1)
    assert ahead.prefetch == AHEAD_MAX
    ahead.took("slow", 10_000, 1.0)
    assert ahead.prefetch == AHEAD_MAX
    ahead.took("slow", 10_000, PREFETCH_HELD_SECONDS + 0.1)
    assert ahead.prefetch == 0
    ahead.took("f", 1, PREFETCH_HELD_SECONDS + 0.2)
    assert ahead.prefetch == AHEAD_MAX


def test_commands_and_requests_are_measured_by_their_task():
    assert measured_as("signalbox.shell", 1) != measured_as("signalbox.shell", 2)
    assert measured_as("signalbox.http", 1) != measured_as("signalbox.shell", 1)
    assert measured_as("shop.add", 1) == measured_as("shop.add", 2)


def test_what_ended_long_ago_is_forgotten_first_when_there_is_too_much():
    ahead = learnt(1)
    for number in range(KNOWN_MAX - 1):
        ahead.took(f"other {number}", 1, 0.0)
    assert ahead.of("f") == AHEAD_MAX
    ahead.took("f", 1, 0.0)
    ahead.took("one more", 1, 0.0)
    assert ahead.of("f") == AHEAD_MAX, "it ended lately"
    for number in range(KNOWN_MAX):
        ahead.took(f"another {number}", 1, 0.0)
    assert ahead.of("f") == 0
