"""What an exception says about the end of its attempt, and what it does not."""

from __future__ import annotations

from typing import Any

import pytest
from celery.exceptions import Retry

from tasks_app.states import Outcome
from workers_app.execution import outcome
from workers_app.execution.interruption import KINDS
from workers_app.execution.outcome import BodyEnd
from workers_app.executors.http_errors import HttpStatusUnexpected, HttpStopped
from workers_app.executors.shell import ShellStopped
from workers_app.job import JobCancelled


def end_of(exception: BaseException) -> BodyEnd:
    outcome.clear()
    outcome.failed(exception, "")
    told = outcome.taken()
    assert told is not None
    return told


def saying(**attributes: Any) -> Exception:
    error = ValueError("of a user's own")
    vars(error).update(attributes)
    return error


@pytest.mark.parametrize("kind", [JobCancelled, HttpStopped, ShellStopped], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("reason", sorted(outcome.STOPPED))
def test_a_body_that_ended_because_it_was_asked_to_counts_by_the_reason(kind: Any, reason: str):
    assert end_of(kind(reason)).outcome is outcome.STOPPED[reason][0]
    assert end_of(KINDS[reason]()).outcome is outcome.STOPPED[reason][0]


@pytest.mark.parametrize("reason", ["cancel", "lease", ["cancel"], {}, None])
def test_a_users_exception_fails_its_attempt_whatever_its_attributes_are_called(reason: Any):
    assert end_of(saying(stop_reason=reason)).outcome is Outcome.FAILED
    assert end_of(JobCancelled(["odd"])).outcome is Outcome.FAILED  # type: ignore[arg-type]


def test_an_exception_may_say_whether_and_when_to_try_again():
    end = end_of(saying(retryable=False, retry_after_seconds=90))
    assert (end.retryable, end.retry_after_seconds) == (False, 90.0)
    asked = end_of(HttpStatusUnexpected("503", 503, retryable=True, retry_after_seconds=2.5))
    assert (asked.retryable, asked.retry_after_seconds) == (True, 2.5)
    assert (end_of(ValueError()).retryable, end_of(ValueError()).retry_after_seconds) == (True, None)


@pytest.mark.parametrize("flag", [0, "", None, [], lambda: False])
def test_what_is_no_flag_says_nothing_about_another_attempt(flag: Any):
    assert end_of(saying(retryable=flag)).retryable is True


@pytest.mark.parametrize("wait", [True, "5", float("nan"), float("inf"), 10**400, [], lambda: 5])
def test_what_is_no_finite_number_is_no_time_to_wait(wait: Any):
    assert end_of(saying(retry_after_seconds=wait)).retry_after_seconds is None


def test_a_retry_after_no_finite_time_waits_as_the_task_says():
    outcome.clear()
    outcome.retried(Retry(exc=ValueError("x"), when=float("inf")), "")
    told = outcome.taken()
    assert told is not None
    assert told.retry_after_seconds is None
