"""What two people, or two processes, do at the same moment. On both databases, with real connections."""

import threading
import time
from collections.abc import Callable
from uuid import uuid4

import pytest
from django.db import connection, transaction

from scheduler_project.access import links, tokens
from scheduler_project.access.errors import LinkInvalid, NotAuthenticated
from tasks_app import admission, lifecycle, services
from tasks_app.clock import clock
from tasks_app.errors import DuplicateTask, EditConflict, SignalboxError, TaskNotFound
from tasks_app.lifecycle import PermitAsk, Permitted, Refused
from tasks_app.models import Queue, Task, TaskRun, TaskVersion
from tests.integration.domain import NOW, AWorker, claimed, submitted
from tests.integration.faces import a_task, user

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def fresh_backlog():
    admission.forget()


def at_once(*acts: Callable[[], object]) -> list[object]:
    """Call all at the same moment, each in a thread with a connection of its own; results or domain errors."""
    barrier = threading.Barrier(len(acts))
    found: list[object] = [None] * len(acts)

    def call(number: int, act: Callable[[], object]) -> None:
        try:
            connection.ensure_connection()
            barrier.wait(timeout=30)
            found[number] = act()
        except SignalboxError as error:
            found[number] = error
        finally:
            connection.close()

    threads = [threading.Thread(target=call, args=pair) for pair in enumerate(acts)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
        assert not thread.is_alive()
    return found


def kinds(found: list[object], kind: type) -> int:
    return sum(isinstance(one, kind) for one in found)


def test_of_two_edits_of_the_same_version_one_wins():
    task = a_task()
    found = at_once(
        *(lambda n=n: services.change_task(task.pk, {"max_retries": n}, expected_version=1) for n in range(10, 14))
    )
    assert (kinds(found, Task), kinds(found, EditConflict)) == (1, 3)
    assert TaskVersion.objects.filter(task=task).count() == 2


def test_edits_of_different_fields_lose_nothing():
    task = a_task()
    at_once(
        lambda: services.change_task(task.pk, {"max_retries": 9}),
        lambda: services.change_task(task.pk, {"priority": 9}),
        lambda: services.change_task(task.pk, {"description": "x"}),
    )
    task.refresh_from_db()
    assert (task.max_retries, task.priority, task.description, task.version) == (9, 9, "x", 4)


def test_of_two_tasks_with_one_name_one_is_made():
    found = at_once(*(lambda: a_task("same") for _ in range(4)))
    assert (kinds(found, Task), kinds(found, DuplicateTask)) == (1, 3)
    assert Queue.objects.count() == 1


@pytest.mark.parametrize("round_", range(5))
def test_no_run_of_a_deleted_task_is_left_waiting(round_):
    task = a_task()
    found = at_once(
        *(lambda: services.trigger(task) for _ in range(3)),
        lambda: services.delete_task(task.pk),
    )
    assert kinds(found, TaskRun) + kinds(found, TaskNotFound) == 3
    assert not TaskRun.objects.exclude(status="CANCELLED").exists()


def test_a_deletion_waits_for_a_submission_that_is_not_committed_yet():
    task = a_task()
    submitted, deleting = threading.Event(), threading.Event()

    def submit():
        with transaction.atomic():
            services.trigger(task)
            submitted.set()
            deleting.wait(timeout=1)  # the deletion stands in front of our lock meanwhile

    def delete():
        submitted.wait(timeout=30)
        services.delete_task(task.pk)
        deleting.set()

    threads = [threading.Thread(target=_closing, args=(act,)) for act in (submit, delete)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert TaskRun.objects.get().status == "CANCELLED"


def _closing(act: Callable[[], object]) -> None:
    try:
        act()
    finally:
        connection.close()


def test_of_many_uses_of_a_log_in_link_one_wins():
    token = links.create_link(links.operator(), now=clock.now())
    found = at_once(*(lambda: links.use_link(token, now=clock.now()) for _ in range(4)))
    assert kinds(found, LinkInvalid) == 3


def test_of_many_uses_of_a_refresh_token_one_wins_and_the_family_ends():
    pair = tokens.issue(user(), now=clock.now())
    found = at_once(*(lambda: tokens.rotate(pair.refresh_token, now=clock.now()) for _ in range(3)))
    assert (kinds(found, tokens.Tokens), kinds(found, NotAuthenticated)) == (1, 2)
    [won] = [one for one in found if isinstance(one, tokens.Tokens)]
    with pytest.raises(NotAuthenticated):
        tokens.rotate(won.refresh_token, now=clock.now())


@pytest.mark.postgresql_only
def test_asking_again_while_the_first_permit_is_still_being_committed_gives_the_same_answer():
    """The second statement begins before the first one's commit, and its snapshot knows nothing of the permit."""
    worker = AWorker()
    [run] = claimed(*submitted())
    ask = PermitAsk(run.id, run.token, uuid4())
    answers: list[Permitted | Refused] = []

    def again() -> None:
        try:
            answers.extend(lifecycle.permit([ask], worker.holder, now=NOW))
        finally:
            connection.close()

    thread = threading.Thread(target=again)
    with transaction.atomic():
        first = lifecycle.permit([ask], worker.holder, now=NOW)
        thread.start()
        wait_until_somebody_waits_for_a_lock()
    thread.join(10)
    assert answers == first
    assert isinstance(answers[0], Permitted)


def wait_until_somebody_waits_for_a_lock() -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
            if cursor.fetchone()[0]:
                return
        time.sleep(0.01)
    raise AssertionError("nobody waits")
