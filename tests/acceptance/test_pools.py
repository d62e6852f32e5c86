"""Bodies in threads of the worker's own process: the same as in processes, as far as a thread can be ended."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from tests.acceptance.installation import Installation
from tests.acceptance.pools import IN_ONE_PROCESS, LEASE_SECONDS, begun, start_workers, triggered, with_pools
from tests.acceptance.test_runs import make, running
from tests.processes import of_run
from tests.servers.tcp_proxy import TcpProxy

pytestmark = pytest.mark.timeout(180)
Pooled = tuple[Installation, TcpProxy]


@pytest.fixture(scope="module", params=["sqlite+valkey", "postgresql+rabbitmq"])
def pooled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pooled]:
    """A worker of each pool, and a proxy before their broker."""
    folder = tmp_path_factory.mktemp("pools")
    if request.param == "sqlite+valkey":
        database = f"sqlite:///{folder / 'db.sqlite3'}"
        broker = request.getfixturevalue("valkey").url.rsplit("/", 1)[0] + "/6"
    else:
        database = request.getfixturevalue("postgres").create_database("acceptance_pools")
        broker = request.getfixturevalue("rabbitmq").url
    port = int(urlsplit(broker).port or 0)
    with TcpProxy(port) as proxy, with_pools(folder, database, broker.replace(f":{port}", f":{proxy.port}")) as made:
        start_workers(made, {pool: pool for pool in IN_ONE_PROCESS})
        yield made, proxy
    if request.param == "postgresql+rabbitmq":
        request.getfixturevalue("rabbitmq").delete_all_queues()


def test_bodies_end_as_they_do_in_processes(pooled: Pooled):
    made, _ = pooled
    for pool in IN_ONE_PROCESS:
        expected = {
            triggered(made, pool, "tests.add", kwargs={"a": 1, "b": 2}): ("COMPLETED", 0, 3),
            triggered(made, pool, "tests.fail"): ("FAILED", 0, None),
            triggered(made, pool, "tests.fail", max_retries=2): ("FAILED", 2, None),
            triggered(made, pool, "tests.retry_twice", max_retries=3):
                ("COMPLETED", 2, {"attempt": 3, "celery_retries": 2}),
            triggered(made, pool, "tests.own_call", kwargs={"value": 4}): ("COMPLETED", 0, ["called", 4]),
            triggered(made, pool, "tests.replaces"): ("FAILED", 0, None),
            triggered(made, pool, "tests.late"): ("COMPLETED", 0, "late"),
            triggered(made, pool, "tests.exits"): ("FAILED", 0, None),
            triggered(made, pool, "tests.out_of_memory"): ("FAILED", 0, None),
        }  # fmt: skip
        found = {run_id: made.finished(run_id) for run_id in expected}
        assert {i: (run["status"], run["retry_count"], run["result"]) for i, run in found.items()} == expected
        assert {run["worker_id"] for run in found.values()} == {pool}
        assert any(run["error_message"].startswith("SystemExit: 3") for run in found.values())
        assert made.roles[pool].poll() is None


def test_each_body_has_its_own_log_and_a_connection_without_the_platforms_settings(pooled: Pooled):
    made, _ = pooled
    words = ("ink", "paper", "wax")
    for pool in IN_ONE_PROCESS:
        runs = {word: triggered(made, pool, "tests.prints", kwargs={"word": word}) for word in words}
        planned = triggered(made, pool, "tests.connection")
        for word, run_id in runs.items():
            assert made.finished(run_id)["status"] == "COMPLETED"
            made.wait_for(lambda run_id=run_id: made.log_text(run_id).count("\n") >= 20, "the log")
            assert made.log_text(run_id).split() == [word] * 20
        told = {"enable_seqscan": "on", "plan_cache_mode": "auto", "confirmed": True}
        assert made.finished(planned)["result"] in (told, {"confirmed": True})


def test_python_code_is_interrupted_and_a_command_killed_at_its_timeout(pooled: Pooled):
    made, _ = pooled
    bodies = [
        triggered(made, pool, "tests.cleans_up", kwargs={"seconds": 60}, timeout_seconds=1) for pool in IN_ONE_PROCESS
    ]
    queries = [triggered(made, pool, "tests.queries", timeout_seconds=1) for pool in IN_ONE_PROCESS]
    commands = [
        triggered(made, pool, executor="shell", parameters={"argv": ["sleep", "60"]}, timeout_seconds=1)
        for pool in IN_ONE_PROCESS
    ]
    for body in bodies:
        ended = made.finished(body)
        assert ended["status"] == "TIMEOUT"
        assert ended["error_message"].startswith("ran longer than its timeout")
        assert "in sleep" in ended["error_message"], "where it was"
        made.wait_for(lambda body=body: "cleaned up" in made.log_text(body), "its last words")
    for command in commands:
        assert made.finished(command)["status"] == "TIMEOUT"
        assert not of_run(command)
    # The next body on the same thread has a connection that works.
    assert [made.finished(run_id)["status"] for run_id in queries] == ["TIMEOUT"] * 2
    after = [triggered(made, pool, "tests.connection") for pool in IN_ONE_PROCESS for _ in range(4)]
    assert {made.finished(run_id)["status"] for run_id in after} == {"COMPLETED"}


def test_a_cancel_ends_python_code_and_commands(pooled: Pooled):
    made, _ = pooled
    python = [begun(made, pool, "tests.sleep", kwargs={"seconds": 60}, max_retries=3) for pool in IN_ONE_PROCESS]
    for run_id in python:
        assert made.raw("POST", f"/api/v1/runs/{run_id}/cancel").status == 202
    assert [made.finished(run_id)["status"] for run_id in python] == ["CANCELLED"] * 2
    command = {"executor": "shell", "parameters": {"argv": ["sleep", "60"]}}
    polite = {"kwargs": {"seconds": 60}, "max_retries": 3}
    others = [
        running(made, make(made, task_type="threads", **command)),
        running(made, make(made, "tests.polite_sleep", task_type="threads", **polite)),
        running(made, make(made, task_type="solo", **command)),
    ]
    for run_id in others:
        made.raw("POST", f"/api/v1/runs/{run_id}/cancel")
    assert [made.finished(run_id)["status"] for run_id in others] == ["CANCELLED"] * 3
    assert not any(of_run(run_id) for run_id in others)


def test_a_body_outlasts_the_loss_of_the_brokers_connection_and_others_follow(pooled: Pooled):
    made, proxy = pooled

    def connections() -> list[int]:
        return [(made.folder / f"{pool}.log").read_text().count("Connected to") for pool in IN_ONE_PROCESS]

    before = connections()
    under_way = [begun(made, pool, "tests.sleep", kwargs={"seconds": 2}) for pool in IN_ONE_PROCESS]
    proxy.cut()
    waiting = [triggered(made, pool, "tests.add", kwargs={"a": 1, "b": 1}) for pool in IN_ONE_PROCESS for _ in range(5)]
    runs = [made.finished(each) for each in (*under_way, *waiting)]
    assert {(run["status"], run["retry_count"]) for run in runs} == {("COMPLETED", 0)}
    assert all(now > then for now, then in zip(connections(), before, strict=True)), "consumers have connected again"
    # Celery traces every task anew: the permit is still around it.
    again = [triggered(made, pool, "tests.retry_twice", max_retries=3) for pool in IN_ONE_PROCESS]
    assert [made.finished(run_id)["retry_count"] for run_id in again] == [2, 2]


def test_what_blocks_in_c_code_stays_until_it_returns(pooled: Pooled):
    made, _ = pooled
    changes = {"kwargs": {"seconds": LEASE_SECONDS + 2}, "timeout_seconds": 1}
    runs = [begun(made, pool, "tests.blocks", **changes) for pool in IN_ONE_PROCESS]
    for run_id in runs:
        made.wait_for(
            lambda run_id=run_id: "timeout_stop_requested" in str(made.api("GET", f"runs/{run_id}/events")),
            "the reaper to ask for a stop",
        )
        run = made.api("GET", f"runs/{run_id}")
        worker = made.api("GET", f"workers/{run['worker_id']}")
        assert (run["status"], worker["state"]) == ("RUNNING", "ONLINE")
        # A body that holds the loop holds neither the lease nor the heartbeats.
        assert worker["last_heartbeat"] > run["deadline_at"]
    assert [made.finished(run_id)["status"] for run_id in runs] == ["TIMEOUT"] * 2
    neighbours = [triggered(made, pool, "tests.add", kwargs={"a": 1, "b": 1}) for pool in IN_ONE_PROCESS]
    assert [made.finished(run_id)["status"] for run_id in neighbours] == ["COMPLETED"] * 2


def test_a_worker_says_what_its_pool_can_end(pooled: Pooled):
    made, _ = pooled
    for pool in IN_ONE_PROCESS:
        row = made.api("GET", f"workers/{pool}")
        assert row["pool"] == pool
        assert row["pool_can_end"] == {"python": "BETWEEN_INSTRUCTIONS", "shell": "ALWAYS", "http": "ALWAYS"}
