"""What runs in this worker, as its children, its main process and its guardian see it; nobody waits.

    FREE ─register─> REGISTERED ─grant─> GRANTED ─start─> STARTED ─finish─> FINISHED ─free (main)─> FREE
                         └──────refuse─────┴────────────────────────────────────────────────────────^

A child registers before it asks for a permit, or begins with one that the main process has, and
finishes after it has written the outcome to the main process's socket. The main process puts the
outcome on its own list first and frees the record second, so a reader that looks at the table first
and at that list second finds every attempt on at least one of them. It may free a record that the
child has not left yet (the outcome can be read faster than the child goes on): then the record is
free when the child leaves.

`table` holds the layout, the locks, and the reasoning about reading, seats and killing. What it comes to:

* A record that was read is consistent, whatever its writer does, also when the writer is stopped in the
  middle.
* A kill hits the attempt that it was meant for or nothing, never the next one in the same child, however
  long the killer was stopped. `finish` and `refuse` return only when no killer has its aim at this child.
* Deadline and stop are no different in this: whoever comes first under that rule, the child that leaves
  or the killer, decides. An attempt that ended in the few milliseconds between its deadline and the
  guardian's look has ended by itself.
"""

from __future__ import annotations

import enum
import os
import threading
import time
from dataclasses import dataclass
from typing import Final

from workers_app.execution import table as memory
from workers_app.execution.table import BY_MAIN, Raw, Table, boottime_ns

__all__ = [
    "NoSeat", "Record", "RecordView", "Registry", "Seat", "State", "StopReason", "boottime_ns",
]  # fmt: skip

RECORDS_PER_SEAT: Final = 16


class State(enum.IntEnum):
    """Where an attempt is."""

    FREE = memory.FREE
    REGISTERED = memory.REGISTERED
    GRANTED = memory.GRANTED
    STARTED = memory.STARTED
    FINISHED = memory.FINISHED


class StopReason(enum.IntEnum):
    """Why an attempt should stop, or was stopped."""

    NONE = memory.NO_REASON
    CANCEL = memory.CANCEL
    TIMEOUT = memory.TIMEOUT
    LEASE = memory.LEASE
    DRAIN = memory.DRAIN


_WORDS: Final = {reason.value: reason.name.lower() for reason in StopReason if reason is not StopReason.NONE}


class NoSeat(RuntimeError):
    """Every seat is owned by a living process, or still holds what a dead one left for the main process."""


@dataclass(frozen=True, slots=True)
class RecordView:
    """One record at one moment. deadline_ns and started_ns are by `boottime_ns`; 0 means none."""

    seat: int
    index: int
    generation: int
    state: State
    run_id: int
    attempt: int
    token: bytes
    nonce: bytes
    deadline_ns: int
    started_ns: int
    stop_reason: StopReason
    keep_running: bool
    shell: bool
    in_worker: bool
    pid: int


class Registry:
    """The table. `create` it in the main process before the pool forks; children use the inherited object."""

    def __init__(self, table: Table) -> None:
        """For `create`; tests may attach one."""
        self._table = table
        self._seating = threading.Lock()

    @classmethod
    def create(cls, *, seats: int, records_per_seat: int = RECORDS_PER_SEAT) -> Registry:
        """A new, empty one of this process, without a lease.

        Give it more seats than pool children: a dead child's seat is taken again only when the main process
        has freed what was left on it.
        """
        return cls(Table.create(seats, records_per_seat))

    @property
    def fd(self) -> int:
        """For the guardian. Never close or duplicate it: that would drop this process's seat."""
        return self._table.fd

    @property
    def main_pid(self) -> int:
        """Pid of the process that made it."""
        return self._table.main_pid

    # -- both sides --------------------------------------------------------------------------------

    @property
    def draining(self) -> bool:
        """No new body may begin."""
        return self._table.draining

    @property
    def lease_until_ns(self) -> int:
        """When the lease ends, by `boottime_ns`; 0 before the first."""
        return self._table.lease_until_ns

    def lease_valid(self, now_ns: int | None = None) -> bool:
        """Whether this worker may go on."""
        return (boottime_ns() if now_ns is None else now_ns) < self._table.lease_until_ns

    def knows(self, nonce: bytes) -> bool:
        """Whether a record has this nonce, free or not."""
        return self._table.index_of(nonce) is not None

    def snapshot(self) -> list[RecordView]:
        """All records that are not free. Read it before the list of finished attempts."""
        views = []
        for index in self._table.used():
            raw = self._table.read(index)
            if not raw.free:
                views.append(self._view(index, raw))
        return views

    # -- child -------------------------------------------------------------------------------------

    def take_seat(self, pid: int | None = None, *, in_worker: bool = False) -> Seat:
        """Become the owner of a free seat until this process ends.

        pid, if given, must be this process's own. in_worker: for a thread of the main process, which cannot be killed
        alone. Raises NoSeat, also when the main process is gone.
        """
        if pid is not None and pid != os.getpid():
            raise ValueError("a process can take a seat only for itself")
        self._table.forget_inherited()
        if self.main_pid not in (os.getpid(), os.getppid()):
            raise NoSeat("the main process is gone")
        with self._seating:
            for seat in range(self._table.seats):
                # Looked at first without the kernel's lock, so that an owner's death is not hidden by us even for a
                # moment.
                if self._table.free_seat(seat) and self._table.take(seat):
                    if self._table.free_seat(seat):
                        return Seat(self._table, seat, memory.IN_WORKER if in_worker else 0)
                    self._table.give_back(seat)
        raise NoSeat(f"none of {self._table.seats} seats is free")

    # -- main process ------------------------------------------------------------------------------

    def set_lease(self, until_ns: int) -> None:
        """The lease lasts until then, by `boottime_ns`."""
        self._table.lease_until_ns = until_ns

    def set_draining(self, draining: bool = True) -> None:
        """No new body may begin; False takes it back."""
        self._table.draining = draining

    def request_stop(self, nonce: bytes, reason: StopReason) -> bool:
        """Ask an attempt to stop; the first reason stays. False when it is not under way (any more)."""
        index = self._table.index_of(nonce)
        if index is None:
            return False
        raw = self._table.read(index)
        return raw.nonce == nonce and self._table.write_reason(index, raw.generation, reason, by=BY_MAIN)

    def kill(self, view: RecordView, reason: StopReason = StopReason.NONE) -> bool:
        """SIGKILL to the child if this very attempt is still under way there; else False.

        reason is written before, unless one is there already. Not for a thread of this very process.
        """
        if view.in_worker:
            raise ValueError("a thread cannot be killed")
        return self._table.kill(view.index, view.generation, reason, by=BY_MAIN)

    def free(self, view: RecordView) -> None:
        """Its outcome is on the list of finished attempts: free now, or when its child has left it."""
        self._table.collect(view.index, view.generation)

    def free_nonce(self, nonce: bytes) -> bool:
        """`free` by nonce; False when there is no such record."""
        index = self._table.index_of(nonce)
        if index is None:
            return False
        raw = self._table.read(index)
        if raw.nonce != nonce:
            return False
        self._table.collect(index, raw.generation)
        return True

    def dead_seats(self) -> list[RecordView]:
        """Records that are not free and whose child is gone (by the seat's lock, not by pid).

        What a dead child wrote to its socket is still to be read first: free a record from here only after
        its stream has ended.
        """
        owners: dict[int, int] = {}
        dead = []
        for index in self._table.used():
            seat = index // self._table.records
            if seat not in owners:
                owners[seat] = self._table.owner(seat)
            if owners[seat] == 0:
                # Read after the lock was seen free: the state is the child's last word.
                raw = self._table.read(index)
                if not raw.free:
                    dead.append(self._view(index, raw))
        return dead

    def seats_taken(self) -> dict[int, int]:
        """Seat → pid of its living owner."""
        owners = ((seat, self._table.owner(seat)) for seat in range(self._table.seats))
        return {seat: pid for seat, pid in owners if pid}

    def _view(self, index: int, raw: Raw) -> RecordView:
        return RecordView(
            seat=index // self._table.records,
            index=index,
            generation=raw.generation,
            state=State(raw.state),
            run_id=raw.run_id,
            attempt=raw.attempt,
            token=raw.token,
            nonce=raw.nonce,
            deadline_ns=raw.deadline_ns,
            started_ns=raw.started_ns,
            stop_reason=StopReason(raw.reason),
            keep_running=bool(raw.flags & memory.KEEP_RUNNING),
            shell=bool(raw.flags & memory.SHELL),
            in_worker=bool(raw.flags & memory.IN_WORKER),
            pid=raw.pid,
        )


class Seat:
    """A pool child's, or a pool thread's, place in the table. Only one thread at a time registers on it."""

    def __init__(self, table: Table, number: int, flags: int = 0) -> None:
        """For `Registry.take_seat`. flags: of each record from its registration on."""
        self._table = table
        self.number = number
        self._flags = flags
        self._first = number * table.records
        self._next = 0

    def register(self, run_id: int, attempt: int, token: bytes, nonce: bytes) -> Record:
        """Say what is about to be asked for. token and nonce: 16 bytes each.

        When all of the seat's records wait for the main process, so does this: it is stopped, and the
        guardian sees to what must not wait.
        """
        while True:
            for step in range(self._table.records):
                index = self._first + (self._next + step) % self._table.records
                if self._table.state(index) == memory.FREE or self._table.read(index).free:
                    self._next = index - self._first + 1
                    self._table.write_registered(index, run_id, attempt, token, nonce, self._flags)
                    return Record(self._table, index)
            time.sleep(0.005)


class Record:
    """One attempt, as its child writes it."""

    __slots__ = ("_generation", "_index", "_table", "nonce")

    def __init__(self, table: Table, index: int) -> None:
        """For `Seat.register`."""
        self._table = table
        self._index = index
        self._generation = table.generation(index)

    def grant(self, deadline_ns: int, keep_running: bool = False, *, shell: bool = False) -> bool:
        """The permit was answered. False, with nothing written, when the lease is over or it drains.

        deadline_ns: by `boottime_ns`, 0 for none. keep_running: do not end it with the lease. shell: its
        supervisor knows the deadline itself, so the guardian gives it a little longer.
        """
        if self._table.draining or boottime_ns() >= self._table.lease_until_ns:
            return False
        flags = (memory.KEEP_RUNNING if keep_running else 0) | (memory.SHELL if shell else 0)
        self._table.write_granted(self._index, max(0, deadline_ns), flags)
        return True

    def start(self) -> bool:
        """The body is about to begin. False when the lease is over: then it must not.

        The lease is looked at after the record says STARTED: from then on the guardian ends it with the
        lease.
        """
        now = boottime_ns()
        self._table.write_started(self._index, now)
        return boottime_ns() < self._table.lease_until_ns

    def finish(self) -> None:
        """The outcome is in the socket. Returns when no kill can be under way for this attempt."""
        self._table.leave(self._index, memory.FINISHED)

    def refuse(self) -> None:
        """No body ran, none will. Returns when no kill can be under way for this attempt."""
        self._table.leave(self._index, memory.FREE)

    def stop_reason(self) -> str | None:
        """Why it should stop (cancel, timeout, lease, drain), or None. Cheap: a read of memory."""
        return _WORDS.get(self._table.reason(self._index, self._generation))
