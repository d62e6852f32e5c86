"""What a search of runs says, and what is answered to one that cannot be understood."""

from datetime import UTC, datetime, timedelta

import pytest

from tasks_app.errors import InvalidSearch
from tasks_app.search.grammar import KEYS, parse, quoted

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)


def terms(text):
    return parse(text, now=NOW).terms


def test_nothing_is_a_search_for_everything():
    assert terms("") == terms("  \t ") == ()


def test_states_are_words_in_any_case_and_groups_of_them():
    [term] = terms("is:Failed,waiting")
    assert term.values == ("DISPATCHED", "FAILED", "PENDING")


def test_names_are_exact_or_beginnings_and_quotes_hold_them_together():
    [term] = terms("task:etl.orders,etl.*")
    assert (term.values, term.prefixes) == (("etl.orders",), ("etl.",))
    [term] = terms('task:"monthly, sales*"')
    assert (term.values, term.prefixes) == (("monthly, sales*",), ())


def test_bare_words_are_together_the_beginning_of_a_name():
    first, name = terms("monthly is:failed report")
    assert (first.key, name.key, name.prefixes) == ("is", "task", ("monthly report",))
    [name] = terms('"celery:send"')
    assert name.prefixes == ("celery:send",)


def test_a_minus_leaves_out():
    kept, left_out = terms("worker:w1 -worker:w2")
    assert (kept.negated, left_out.negated, left_out.values) == (False, True, ("w2",))


@pytest.mark.parametrize(
    ("text", "operator", "value"),
    [
        ("attempt:>1", "gt", 1), ("attempt:<=3", "lte", 3), ("attempt:2", "exact", 2),
        ("created:>-2h", "gt", NOW - timedelta(hours=2)), ("created:<-1w", "lt", NOW - timedelta(weeks=1)),
        ("created:>=2029-12-31", "gte", datetime(2029, 12, 31, tzinfo=UTC)),
        ("created:<2030-01-01T08:00+08:00", "lt", datetime(2030, 1, 1, tzinfo=UTC)),
    ],
)  # fmt: skip
def test_numbers_and_times_are_compared(text, operator, value):
    [term] = terms(text)
    assert (term.comparison.operator, term.comparison.value) == (operator, value)


@pytest.mark.parametrize(
    ("text", "term", "suggestion"),
    [
        ("iss:failed", "iss:failed", "is:failed"),
        ("a -typ:x b", "-typ:x", "-type:x"),
        ("is:faild", "is:faild", "is:failed"),
    ],
)
def test_what_is_nearly_known_is_suggested(text, term, suggestion):
    with pytest.raises(InvalidSearch) as caught:
        terms(text)
    assert (caught.value.term, caught.value.suggestion, caught.value.code) == (term, suggestion, "search.invalid")
    assert "did you mean" in caught.value.detail


def test_an_unknown_key_is_told_which_ones_there_are():
    with pytest.raises(InvalidSearch) as caught:
        terms("zzzz:1")
    assert all(key in caught.value.detail for key in KEYS)


@pytest.mark.parametrize(
    "text",
    [
        "is:", "is:,", 'task:""', "is:x9", "attempt:many", "attempt:>", "attempt:>123456", "-attempt:>1", "created:2h",
        "created:>soon", "created:>0001-01-01T00:00+14:00", "created:>-999999w", "id:12a", "id:²", 'a "b', 'a"b"',
        "-etl", "x" * 501, "a\x00b",
    ],
)  # fmt: skip
def test_what_cannot_be_understood_is_an_error_that_says_so(text):
    with pytest.raises(InvalidSearch) as caught:
        terms(text)
    assert caught.value.detail


@pytest.mark.parametrize("name", ["etl.orders", "monthly sales", 'a "b" \\ c', "a:b", "a,b", "x*", "-x", "电影", ""])
def test_a_quoted_name_is_read_back_as_it_was(name):
    if name:
        [term] = terms(f"task:{quoted(name)}")
        assert term.values == (name,)
    assert terms(quoted(name))[0].prefixes == (name,)


def test_a_term_can_be_left_out_of_the_text():
    search = parse("is:failed  etl task:x", now=NOW)
    assert search.text == "is:failed task:x etl"
    assert search.without(search.terms[0]) == "task:x etl"
