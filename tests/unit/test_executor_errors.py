import pickle

import pytest

from workers_app.executors.http_errors import HttpStatusUnexpected, HttpStopped, HttpUnreachable
from workers_app.executors.shell import ShellFailed, ShellNotStarted, ShellStopped
from workers_app.job import JobCancelled


@pytest.mark.parametrize(
    "error",
    [
        ShellFailed(3, "tail"), ShellNotStarted("no such program"), ShellStopped("cancel"), JobCancelled("drain"),
        HttpUnreachable("no"), HttpStopped("timeout"),
        HttpStatusUnexpected("503", 503, retryable=True, retry_after_seconds=2.0),
    ],
)  # fmt: skip
def test_errors_of_a_body_survive_the_way_to_the_main_process(error):
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)
