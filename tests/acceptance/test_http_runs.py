"""HTTP requests through real processes: tried again when the server says so, ended when somebody cancels."""

from __future__ import annotations

import pytest

from tests.acceptance.installation import Installation
from tests.acceptance.test_runs import make, run, running
from tests.integration.http_servers import said, serving, silent

pytestmark = pytest.mark.timeout(180)
TOKEN = "hush-hush-token"


def logs(installed: Installation) -> str:
    return "".join(path.read_text(errors="replace") for path in installed.folder.glob("*.log"))


def test_a_request_is_made_again_when_the_server_asks_for_it(installed):
    busy, done = said(503, "busy", Retry_After="2"), said(200, f"you said {TOKEN}", Content_Type="text/plain")
    with serving(busy, done) as server:
        task = make(
            installed,
            executor="http",
            parameters={"url": server.url + "/job", "headers": {"Authorization": f"Bearer {TOKEN}"}},
            max_retries=1,
        )
        found = run(installed, task)
    assert (found["status"], found["retry_count"]) == ("COMPLETED", 1)
    assert (found["result"]["status"], found["result"]["body"]) == (200, "you said ***")
    assert [asked.headers["signalbox-idempotency-key"] for asked in server.asked] == [
        f"{found['id']}:1",
        f"{found['id']}:2",
    ]
    assert server.asked[0].headers["authorization"] == f"Bearer {TOKEN}"
    events = installed.api("GET", f"runs/{found['id']}/events")
    [again] = [event["detail"] for event in events if event["detail"].get("next") == "PENDING"]
    # As the server asked, and not the task's own 0.1 seconds.
    assert (again["delay_seconds"], again["error_type"]) == (2.0, "HttpStatusUnexpected")
    installed.wait_for(lambda: "503, 4 bytes in" in installed.log_text(found["id"]), "the log")
    assert TOKEN not in installed.log_text(found["id"])
    assert TOKEN not in logs(installed)


def test_a_request_that_nobody_expects_fails_for_good(installed):
    with serving(said(404, "no such page")) as server:
        found = run(installed, make(installed, executor="http", parameters={"url": server.url}, max_retries=3))
    assert (found["status"], found["retry_count"]) == ("FAILED", 0)
    assert f"HttpStatusUnexpected: 404 Not Found from GET {server.url}: no such page" in found["error_message"]


def test_a_request_to_a_forbidden_address_fails_for_good(installed):
    with serving(said(200), host="127.0.0.2") as server:
        found = run(installed, make(installed, executor="http", parameters={"url": server.url}, max_retries=3))
    assert (found["status"], found["retry_count"]) == ("FAILED", 0)
    assert "loopback address" in found["error_message"]
    assert server.accepted == 0


#: What Flower asks a worker.
ACTIVE = "from scheduler_project.celery import app; print(app.control.inspect(timeout=5, limit=2).active())"


def test_a_running_request_shows_no_secret_and_is_cancelled(installed):
    parameters = {"headers": {"Authorization": f"Bearer {TOKEN}"}}
    with serving(silent) as server:
        task = make(installed, executor="http", parameters=parameters | {"url": server.url}, max_retries=3)
        run_id = running(installed, task)
        installed.wait_for(lambda: server.asked, "the request")
        shown = installed.manage("shell", "--no-imports", "-c", ACTIVE).stdout
        assert server.url in shown
        assert TOKEN not in shown
        assert installed.raw("POST", f"/api/v1/runs/{run_id}/cancel").status == 202
        assert installed.finished(run_id)["status"] == "CANCELLED"
        installed.wait_for(server.hung_up.is_set, "the end of the connection", seconds=5)


def test_a_request_ends_at_its_timeout(installed):
    with serving(silent) as server:
        task = make(installed, executor="http", parameters={"url": server.url}, timeout_seconds=1)
        assert run(installed, task)["status"] == "TIMEOUT"
