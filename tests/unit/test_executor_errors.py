import pickle

import pytest

from workers_app.executors.shell import ShellFailed, ShellNotStarted, ShellStopped
from workers_app.job import JobCancelled


@pytest.mark.parametrize(
    "error", [ShellFailed(3, "tail"), ShellNotStarted("no such program"), ShellStopped("cancel"), JobCancelled("drain")]
)
def test_errors_of_a_body_survive_the_way_to_the_main_process(error):
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)
