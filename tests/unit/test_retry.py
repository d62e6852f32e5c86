import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks_app.retry import AttemptEnd, RetryPolicy, decide, delay_bound
from tasks_app.states import FINAL, TRANSITIONS, Outcome, RunStatus

POLICY = RetryPolicy(max_retries=3, delay_seconds=2.0, delay_cap_seconds=10.0, quarantine_after=2)


def end(outcome: Outcome, attempt: int = 1, crashes: int = 0, cancelled: bool = False, **more) -> AttemptEnd:
    return AttemptEnd(outcome=outcome, attempt=attempt, crash_count=crashes, cancel_requested=cancelled, **more)


def test_the_delay_bound_doubles_up_to_the_cap():
    assert [delay_bound(n, POLICY) for n in (1, 2, 3, 4, 5)] == [2.0, 4.0, 8.0, 10.0, 10.0]


def test_the_delay_bound_stays_finite_after_very_many_attempts():
    assert delay_bound(100_000, POLICY) == 10.0


def test_jitter_takes_any_part_of_the_bound():
    assert decide(end(Outcome.FAILED, attempt=2), POLICY, 0.0).delay_seconds == 0.0
    assert decide(end(Outcome.FAILED, attempt=2), POLICY, 0.5).delay_seconds == 2.0
    assert decide(end(Outcome.FAILED, attempt=2), POLICY, 1.0).delay_seconds == 4.0


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.TIMEOUT])
def test_the_last_attempt_is_final_with_its_own_outcome(outcome):
    assert decide(end(outcome, attempt=3), POLICY, 0.5).status is RunStatus.PENDING
    assert decide(end(outcome, attempt=4), POLICY, 0.5).status.value == outcome.value


def test_a_lost_attempt_is_tried_again_at_once_and_counted():
    following = decide(end(Outcome.LOST), POLICY, 1.0)
    assert (following.status, following.delay_seconds, following.crash_count) == (RunStatus.PENDING, 0.0, 1)


def test_a_run_that_kills_its_workers_is_quarantined():
    assert decide(end(Outcome.LOST, attempt=2, crashes=1), POLICY, 0.5).status is RunStatus.QUARANTINED


def test_a_shutdown_that_cut_an_attempt_short_does_not_count_as_a_crash():
    following = decide(end(Outcome.LOST, attempt=2, crashes=1, counts_as_crash=False), POLICY, 0.5)
    assert (following.status, following.crash_count) == (RunStatus.PENDING, 1)


def test_a_run_without_retries_that_lost_its_worker_is_lost():
    policy = RetryPolicy(0, 1.0, 1.0, 1)
    assert decide(end(Outcome.LOST), policy, 0.5).status is RunStatus.LOST


def test_a_cancel_wins_over_a_retry_but_not_over_a_body_that_completed():
    assert decide(end(Outcome.FAILED, cancelled=True), POLICY, 0.5).status is RunStatus.CANCELLED
    assert decide(end(Outcome.LOST, cancelled=True), POLICY, 0.5).status is RunStatus.CANCELLED
    assert decide(end(Outcome.COMPLETED, cancelled=True), POLICY, 0.5).status is RunStatus.COMPLETED


def test_an_error_that_must_not_be_retried_is_final_at_once():
    assert decide(end(Outcome.FAILED, retryable=False), POLICY, 0.5).status is RunStatus.FAILED


def test_a_delay_that_the_body_asked_for_is_taken_as_it_is():
    assert decide(end(Outcome.FAILED, retry_after_seconds=77.0), POLICY, 0.1).delay_seconds == 77.0
    assert decide(end(Outcome.FAILED, retry_after_seconds=-5.0), POLICY, 0.1).delay_seconds == 0.0


@given(
    outcome=st.sampled_from(Outcome),
    attempt=st.integers(1, 1000),
    crashes=st.integers(0, 100),
    cancelled=st.booleans(),
    retryable=st.booleans(),
    retries=st.integers(0, 1000),
    after=st.one_of(st.none(), st.floats(-10, 1e6)),
    jitter=st.floats(0, 1),
)
def test_every_decision_is_an_arrow_of_the_state_diagram(
    outcome, attempt, crashes, cancelled, retryable, retries, after, jitter
):
    policy = RetryPolicy(retries, 1.0, 60.0, 3)
    following = decide(
        end(outcome, attempt, crashes, cancelled, retryable=retryable, retry_after_seconds=after),
        policy,
        jitter,
    )
    assert following.status in TRANSITIONS["finish"][RunStatus.RUNNING]
    assert (following.delay_seconds is not None) == (following.status is RunStatus.PENDING)
    if attempt > retries:
        assert following.status in FINAL
    if following.delay_seconds is not None:
        assert following.delay_seconds >= 0
