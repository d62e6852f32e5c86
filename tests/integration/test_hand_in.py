"""Outcomes that a worker gives to the control plane by itself, past broker and ingest."""

from __future__ import annotations

import pytest

from tasks_app.messages.reports import finish_report
from tasks_app.models import TaskRun
from tasks_app.states import Outcome
from tests.integration.domain import AWorker, FixedClock, running
from workers_app.control_plane.database import DatabaseControlPlane

pytestmark = pytest.mark.django_db


def test_an_outcome_that_cannot_be_read_ends_its_run_and_runs_no_body_again():
    worker = AWorker()
    permit = running(worker, max_retries=3)
    report = finish_report(
        run_id=permit.run_id, attempt=permit.attempt, token=permit.token, nonce=permit.nonce,
        outcome=Outcome.COMPLETED, started_at=FixedClock().now().timestamp(), duration_seconds=1.0, result="{",
    )  # fmt: skip
    plane = DatabaseControlPlane(FixedClock(), 60.0, in_callers_transaction=True).as_worker(worker.name)
    plane.hand_in(worker.incarnation.pk, [report])
    run = TaskRun.objects.get(pk=permit.run_id)
    assert (run.status, run.attempt) == ("FAILED", 1)
    assert "result: not JSON" in run.error_message
