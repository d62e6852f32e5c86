"""Pages of runs: what is found, in which order, how far it was looked, and how that is counted."""

from datetime import timedelta

import pytest

from tasks_app import admission, services
from tasks_app.clock import clock
from tasks_app.models import TaskRun
from tasks_app.search import pages
from tasks_app.search.grammar import parse
from tasks_app.states import Outcome
from tests.integration.faces import a_task, a_worker, ended, running

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def fresh_backlog():
    admission.forget()


def search(text):
    return parse(text, now=clock.now())


def found(text, **options):
    return [run.pk for run in pages.page(search(text), **options).rows]


def walked(text):
    """The rows of all pages, and how many pages there were."""
    ids, before, count = [], None, 0
    while True:
        page = pages.page(search(text), before=before)
        ids += [run.pk for run in page.rows]
        count += 1
        if page.next_before is None:
            return ids, count
        assert before is None or page.next_before < before
        before = page.next_before


@pytest.fixture
def mixed():
    """Runs of three tasks in many states, by name."""
    orders, stock, mail = a_task("etl.orders"), a_task("etl.stock"), a_task("mail", task_type="mail")
    made = {
        "completed": ended(services.trigger(orders)),
        "failed": ended(services.trigger(stock), Outcome.FAILED, error_message="boom"),
        "timeout": ended(services.trigger(orders), Outcome.TIMEOUT),
        "mail": services.trigger(mail),
        "running": running(services.trigger(stock), a_worker("w2")),
        "pending": services.trigger(orders),
    }
    TaskRun.objects.filter(pk=made["timeout"].pk).update(attempt=3, created_at=clock.now() - timedelta(days=2))
    return {name: run.pk for name, run in made.items()}


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", "pending running mail timeout failed completed"),
        ("is:failed,timeout", "timeout failed"),
        ("is:waiting", "pending mail"),
        ("is:active", "pending running mail"),
        ("is:final", "timeout failed completed"),
        ("is:completed", "completed"),
        ("-is:failed,completed", "pending running mail timeout"),
        ("is:failed is:timeout", ""),
        ("task:etl.orders", "pending timeout completed"),
        ("etl", "pending running timeout failed completed"),
        ("task:etl.*,mail -task:etl.stock", "pending mail timeout completed"),
        ("nothing", ""),
        ("is:failed,running etl.st", "running failed"),
        ("type:mail", "mail"),
        ("-type:mail is:pending", "pending"),
        ("worker:w2", "running"),
        ("worker:w1 -is:completed", "timeout failed"),
        ("attempt:>1", "timeout"),
        ("attempt:>1 task:etl.stock", ""),
        ("created:<-1d", "timeout"),
        ("created:>-1d is:timeout", ""),
    ],
)
def test_a_search_finds(mixed, text, names):
    assert found(text) == [mixed[name] for name in names.split()]
    assert str(pages.count(search(text))) == str(len(names.split()))


def test_runs_are_found_by_number_together_with_the_rest(mixed):
    assert found(f"id:{mixed['failed']},{mixed['mail']}") == [mixed["mail"], mixed["failed"]]
    assert found(f"id:{mixed['failed']} is:completed") == []
    assert found(f"-id:{mixed['failed']} is:failed") == []
    assert found("id:999999999999999999") == []


def test_a_list_brings_the_line_of_the_error_that_says_most():
    text = "Traceback (most recent call last):\n" + "  File x\n" * 200 + "ValueError: the reason"
    ended(services.trigger(a_task()), Outcome.FAILED, error_message=text)
    [run] = pages.page(search("is:failed")).rows
    assert run.error == "ValueError: the reason"
    assert "error_message" in run.get_deferred_fields()


@pytest.mark.parametrize(
    "text", ["", "is:pending", "task:etl.*", "type:default", "is:pending type:default", "etl is:active"]
)
def test_pages_hold_every_run_once_in_order(text):
    services.trigger_many(a_task("etl.a"), [{}] * 60)
    services.trigger_many(a_task("etl.b"), [{}] * 63)
    ids, count = walked(text)
    assert ids == sorted(TaskRun.objects.values_list("pk", flat=True), reverse=True)
    assert count == 3


def test_a_search_looks_at_a_part_and_goes_on_from_there(monkeypatch):
    monkeypatch.setattr(pages, "LOOK_MAX", 60)
    rare = services.trigger(a_task("rare", task_type="rare"))
    services.trigger_many(a_task("busy"), [{}] * 150)
    first = pages.page(search("type:rare"))
    assert (first.rows, first.unfinished) == ([], True)
    assert walked("type:rare") == ([rare.pk], 3)
    assert (str(pages.count(search("type:rare"))), pages.count(search("type:default")).more) == ("0+", True)


def test_streams_that_were_left_at_different_places_lose_nothing(monkeypatch):
    monkeypatch.setattr(pages, "LOOK_MAX", 120)
    # The index of one state is dense with others' runs, the one of the other state is not.
    busy, rare = a_task("busy"), a_task("rare")
    wanted = []
    for status, count in (("TIMEOUT", 20), ("FAILED", 130)):
        for task in (rare, busy):
            ids = services.trigger_many(task, [{}] * (3 if task is rare else count))
            TaskRun.objects.filter(pk__in=ids).update(status=status, completed_at=clock.now())
            wanted += ids if task is rare else []
    ids, _ = walked("is:failed,timeout task:rare")
    assert ids == sorted(wanted, reverse=True)


def test_where_very_much_waits_the_list_is_walked_by_its_end(monkeypatch):
    monkeypatch.setattr(pages, "SORTED_MAX", 10)
    services.trigger_many(a_task(), [{}] * 60)
    ids, _ = walked("is:pending")
    assert ids == sorted(TaskRun.objects.values_list("pk", flat=True), reverse=True)


def test_a_count_stops_at_its_cap(monkeypatch):
    monkeypatch.setattr(pages, "COUNT_MAX", 20)
    services.trigger_many(a_task(), [{}] * 25)
    assert str(pages.count(search(""))) == "20+"
    assert str(pages.count(search("is:pending"))) == "20+"


def test_rows_that_are_shown_stay_where_they_are_and_new_ones_are_counted():
    task = a_task()
    shown = services.trigger_many(task, [{}] * 3)[::-1]
    new = services.trigger_many(task, [{}] * 2)
    services.cancel_run(shown[1])
    assert [(run.pk, run.status) for run in pages.again([*shown, 999])] == [
        (shown[0], "PENDING"), (shown[1], "CANCELLED"), (shown[2], "PENDING"),
    ]  # fmt: skip
    assert pages.unseen(search(""), shown) == len(new)
    assert pages.unseen(search("is:cancelled"), []) == 1


def test_what_moves_up_from_below_a_full_page_is_no_news():
    ids = services.trigger_many(a_task(), [{}] * 60)[::-1]
    services.cancel_runs(ids[:5])
    assert pages.unseen(search("is:pending"), ids[: pages.PAGE]) == 0
