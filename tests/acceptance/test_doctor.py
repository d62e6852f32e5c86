"""`manage.py doctor` beside real roles: it finds nothing wrong with them, and the one that is missing."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.acceptance.installation import Installation, installation
from tests.acceptance.test_runs import make

pytestmark = pytest.mark.timeout(180)


def found_by(installed: Installation) -> dict[str, Any]:
    done = installed.manage("doctor", "--json", check=False)
    answer = json.loads(done.stdout)
    assert done.returncode == (0 if answer["well"] else 1), done.stdout + done.stderr
    return {finding["code"]: finding for finding in answer["found"]}


def test_roles_that_do_their_work_are_well(installed: Installation):
    looked_after = ("database.", "broker.", "cache.", "clock_skew.", "silent_roles.", "version_skew.")
    wrong = [finding for code, finding in found_by(installed).items() if code.startswith(looked_after)]
    assert wrong == []


def test_a_dispatcher_that_is_gone_is_missed(tmp_path, valkey):
    with installation(
        tmp_path, f"sqlite:///{tmp_path / 'db.sqlite3'}", valkey.url.rsplit("/", 1)[0] + "/3",
        SIGNALBOX_IMPORTS="tests.acceptance.jobs_of_tests", SIGNALBOX_DISPATCH__TICK_SECONDS="0.1",
    ) as made:  # fmt: skip
        made.start_all(workers=1)
        assert not [code for code, finding in found_by(made).items() if finding["severity"] == "error"]
        made.stop("dispatcher-0")
        made.api("POST", f"tasks/{make(made, 'tests.add', kwargs={'a': 1, 'b': 2})}/trigger", {}, expect=201)
        missed = made.wait_for(lambda: found_by(made).get("silent_roles.dispatcher"), "the doctor to miss it")
        assert "run_dispatcher" in missed["remedy"]
