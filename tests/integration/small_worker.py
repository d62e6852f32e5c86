"""A worker with nothing but a table, a guardian and children: what the guardian's tests stop and kill.

Argument: JSON `{"lease": seconds, "renew": bool, "children": [{"state", "deadline", "keep_running", "shell",
"in_worker"}]}`. A child's state is idle, registered, granted or started; deadline is seconds from its start; in_worker:
it takes its seat as a thread would. Prints one JSON line with the pids once all are in their state, then one line for
each child that died: its place and why. Commands on stdin, a line each: `guardian` (start another), `stop` (stop the
guardian), `alive`.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
from typing import Any

from workers_app.execution.guardian import start_guardian
from workers_app.execution.registry import Registry, boottime_ns


def child(table: Registry, number: int, wanted: dict[str, Any], ready: int) -> None:
    seat = table.take_seat(in_worker=wanted.get("in_worker", False))
    if wanted["state"] != "idle":
        record = seat.register(number + 1, 1, bytes(16), (number + 1).to_bytes(16, "big"))
        if wanted["state"] != "registered":
            deadline = wanted.get("deadline")
            deadline_ns = boottime_ns() + int(deadline * 1e9) if deadline else 0
            assert record.grant(deadline_ns, wanted.get("keep_running", False), shell=wanted.get("shell", False))
        if wanted["state"] == "started":
            assert record.start()
    os.write(ready, b".")
    while True:
        signal.pause()


def main() -> None:
    wanted = json.loads(sys.argv[1])
    lease_ns = int(wanted["lease"] * 1e9)
    table = Registry.create(seats=16)
    table.set_lease(boottime_ns() + lease_ns)
    guardian = start_guardian(table)
    ready_read, ready_write = os.pipe()
    pids = []
    for number, one in enumerate(wanted["children"]):
        pid = os.fork()
        if pid == 0:
            child(table, number, one, ready_write)
        pids.append(pid)
    for _ in pids:
        os.read(ready_read, 1)
    table.set_lease(boottime_ns() + lease_ns)
    print(json.dumps({"guardian": guardian.pid, "children": pids, "memfd": table.fd}), flush=True)
    while True:
        if wanted["renew"]:
            table.set_lease(boottime_ns() + lease_ns)
        tell_deaths(table, pids)
        if select.select([sys.stdin], [], [], 0.05)[0]:
            order = sys.stdin.readline().strip()
            if order == "guardian":
                guardian = start_guardian(table)
            elif order == "stop":
                guardian.stop()
            print(json.dumps({"guardian": guardian.pid, "alive": guardian.alive()}), flush=True)


def tell_deaths(table: Registry, pids: list[int]) -> None:
    for number, pid in enumerate(pids):
        if pid not in buried:
            dead, status = os.waitpid(pid, os.WNOHANG)
            if dead:
                buried.add(pid)
                reasons = [view.stop_reason.name for view in table.dead_seats() if view.pid == dead]
                print(json.dumps({"died": number, "signal": os.WTERMSIG(status), "reasons": reasons}), flush=True)


buried: set[int] = set()


main()
