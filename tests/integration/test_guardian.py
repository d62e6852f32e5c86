"""Lease and deadline are held by a process of their own, also while the worker's main process is stopped or dead."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.processes import alive, until

ROOT = Path(__file__).parents[2]


class Worker:
    def __init__(self, *, lease, children, renew=True):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.integration.small_worker",
             json.dumps({"lease": lease, "renew": renew, "children": children})],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        hello = self.line()
        self.pid, self.guardian, self.children = self.process.pid, hello["guardian"], hello["children"]

    def line(self):
        return json.loads(self.process.stdout.readline())

    def tell(self, order):
        self.process.stdin.write(order + "\n")
        self.process.stdin.flush()
        return self.line()

    def living(self):
        return [number for number, pid in enumerate(self.children) if alive(pid)]

    def close(self):
        for pid in [self.pid, self.guardian, *self.children]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


def ignores(pid, number):
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    mask = int(next(line for line in status if line.startswith("SigIgn")).split()[1], 16)
    return bool(mask & 1 << (number - 1))


@pytest.fixture
def worker():
    made = []

    def start(**options):
        made.append(Worker(**options))
        return made[-1]

    yield start
    for one in made:
        one.close()


def started(**more):
    return {"state": "started", **more}


REGISTERED, GRANTED, IDLE = {"state": "registered"}, {"state": "granted"}, {"state": "idle"}


def test_children_end_with_the_lease_while_the_main_process_is_stopped(worker):
    one = worker(lease=1.0, children=[REGISTERED, GRANTED, started(), started(keep_running=True), IDLE])
    os.kill(one.pid, signal.SIGSTOP)
    stopped_at = time.monotonic()
    until(lambda: one.living() == [3, 4], "registered, granted and started are dead", 1.6)
    assert time.monotonic() - stopped_at > 0.7
    os.kill(one.pid, signal.SIGCONT)
    died = sorted((one.line() for _ in range(3)), key=lambda line: line["died"])
    assert died == [{"died": n, "signal": signal.SIGKILL, "reasons": ["LEASE"]} for n in range(3)]
    assert one.living() == [3, 4]


def test_nobody_is_touched_while_the_lease_is_renewed(worker):
    one = worker(lease=0.6, children=[REGISTERED, GRANTED, started(), started(deadline=60)])
    watched_until = time.monotonic() + 1.8
    until(lambda: time.monotonic() > watched_until or len(one.living()) < 4, "three leases")
    assert one.living() == [0, 1, 2, 3]


def test_children_end_when_the_main_process_is_killed_and_then_the_guardian_does(worker):
    one = worker(lease=60, children=[REGISTERED, started(keep_running=True), IDLE, started()])
    os.kill(one.pid, signal.SIGKILL)
    until(lambda: one.living() == [], "all children are dead", 1.0)
    until(lambda: not alive(one.guardian), "the guardian ended", 5.0)


def test_a_deadline_is_held_while_the_main_process_is_stopped_and_hits_only_its_own_attempt(worker):
    one = worker(
        lease=60,
        children=[started(deadline=0.5), started(), started(deadline=0.5, shell=True), started(deadline=30)],
    )
    os.kill(one.pid, signal.SIGSTOP)
    until(lambda: one.living() == [1, 2, 3], "the overdue one is dead", 1.0)
    os.kill(one.pid, signal.SIGCONT)
    assert one.line() == {"died": 0, "signal": signal.SIGKILL, "reasons": ["TIMEOUT"]}
    # A shell body's supervisor holds the deadline; the guardian is the second line, three seconds later.
    assert one.living() == [1, 2, 3]
    assert one.line() == {"died": 2, "signal": signal.SIGKILL, "reasons": ["TIMEOUT"]}
    assert one.living() == [1, 3]


def test_the_guardian_outlives_what_ends_a_process_group_and_ends_when_it_is_told(worker):
    one = worker(lease=60, children=[started()])
    assert os.getsid(one.guardian) == one.guardian
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    until(lambda: all(ignores(one.guardian, number) for number in numbers), "it has begun")
    for number in numbers:
        os.kill(one.guardian, number)
    assert one.tell("alive")["alive"]
    assert not one.tell("stop")["alive"]
    assert one.living() == [0]


def test_a_guardian_that_was_killed_is_noticed_and_another_takes_over(worker):
    one = worker(lease=60, children=[started(), started(deadline=1.5)])
    os.kill(one.guardian, signal.SIGKILL)
    until(lambda: not alive(one.guardian), "dead")
    assert not one.tell("alive")["alive"]
    one.guardian = one.tell("guardian")["guardian"]
    assert one.line()["reasons"] == ["TIMEOUT"]
    assert one.living() == [0]


def test_the_guardian_is_small_and_costs_next_to_nothing(worker):
    one = worker(lease=60, children=[started(deadline=60)] * 8)
    schedstat = Path(f"/proc/{one.guardian}/schedstat")
    status = Path(f"/proc/{one.guardian}/status")
    # Its start is not part of it.
    begin = time.monotonic() + 0.5
    until(lambda: time.monotonic() > begin, "started")
    before, begin = int(schedstat.read_text().split()[0]), time.monotonic()
    until(lambda: time.monotonic() > begin + 2, "two seconds")
    share = (int(schedstat.read_text().split()[0]) - before) / 1e9 / (time.monotonic() - begin)
    assert share < 0.005, f"{share:.2%} of a core"
    memory = int(next(line for line in status.read_text().splitlines() if "RssAnon" in line).split()[1])
    assert memory < 8 * 1024, f"{memory} kB"
    print(f"guardian: {share:.3%} of a core, {memory} kB")


def test_where_bodies_are_threads_only_the_end_of_the_lease_kills_and_only_if_one_has_started(worker):
    """The process that owns the seat is the worker itself: a deadline of one body is not a reason to end all."""

    def thread(**more):
        return {"in_worker": True, **more}

    one = worker(
        lease=1.0,
        children=[
            thread(**REGISTERED), thread(**GRANTED), thread(**started(keep_running=True)),
            thread(**started(deadline=0.3)), started(deadline=0.3),
        ],
    )  # fmt: skip
    until(lambda: one.living() == [0, 1, 2, 3], "the deadline of the process")
    os.kill(one.pid, signal.SIGSTOP)
    until(lambda: one.living() == [0, 1, 2], "the lease is over", 2.0)
    time.sleep(0.3)
    assert one.living() == [0, 1, 2]
