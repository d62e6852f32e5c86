"""The shared memory under `registry`: layout, kernel locks, and the only way in which a child is killed.

Used by three kinds of process: pool children (write their records), the worker's main process (collects,
kills) and the guardian (kills), which loads this file by its path; so it imports next to nothing.

Layout, in native 64-bit words but for the states:

    header    magic, layout version, main pid, lease_until_ns, draining, seats, records a seat, 0
    states    one byte a record, all seats in a row, so that a scan over thousands of them is one `translate`
    records   16 words each: version, generation, run_id, attempt, flags, token (2), nonce (2), deadline_ns,
              started_ns, pid, stop, collected, 0, 0

Every word has one kind of writer. A child writes its records' state and words 0-11; killers write `stop`,
the main process writes `collected`. The last two carry the record's generation, so that what was meant for
an attempt never touches its successor in the same slot. Only when no process holds the seat may the main
process write its states.

**Reading.** A child makes the version odd, writes, and makes it even; the state byte is written last in
each section (in `register` it is FREE until then). A reader takes the version, the state, the fields, and
the version again. Unchanged and even is a consistent record. Unchanged and odd is one, too: its writer
stands still inside a section (it may have been stopped there), and the state that was read first says which
fields count. So no reader depends on a writer's progress.

**Seats.** A child owns a seat by a POSIX record lock on one byte far behind the data, which the kernel
frees when the process ends, however it ends; a pid can be used again, a lock cannot. These locks are lost
when the process closes *any* descriptor of the file. So it is opened once, `Table` never closes it, and a
process that finds its descriptor closed by a careless body ends itself (`leave`).

**Killing.** A child runs one attempt after the other, and a kill that was decided on for one must never hit
the next. A killer takes the seat's aim (a record lock of its own on a byte of that seat), reads the record
again, writes the reason, kills, and lets go. A child that leaves an attempt writes the new state first and
then looks for an aim, and does not go on while there is one. The kernel's lock list puts the two in an
order: if the child looked first, the killer reads the new state and does nothing; if the killer took aim
first, the child waits until it was killed or let off. That holds for a killer that was stopped for minutes
between its decision and its kill, and a dead killer's aim is freed by the kernel. Every kind of killer has
its own aim byte, so a stopped main process does not keep the guardian from killing. The process that gets
the signal is named by a pidfd that was opened before the lock's owner was read, so a pid that is used again
is never hit (where there is no pidfd: by its pid, read a moment before).

**Threads.** Where bodies run in the worker's own process (IN_WORKER), each thread has a seat, and the main process owns
them all. Its own locks say nothing to itself: it writes reasons, which carry the generation, and never kills there. The
guardian's aim works as ever, and what it kills is the whole worker.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import signal
import struct
import sys
import time
from _thread import allocate_lock

MAGIC = int.from_bytes(b"SIGNALBX", "little")
LAYOUT_VERSION = 1

FREE, REGISTERED, GRANTED, STARTED, FINISHED = range(5)
UNDER_WAY = (REGISTERED, GRANTED, STARTED)
NO_REASON, CANCEL, TIMEOUT, LEASE, DRAIN = range(5)
KEEP_RUNNING, SHELL, IN_WORKER = 1, 2, 4
#: Whose aim it is: the index of its byte.
BY_MAIN, BY_GUARDIAN = 0, 1

_HEADER_BYTES = 64
_LEASE, _DRAINING = 3, 4
_RECORD_WORDS = 16
_RECORD_BYTES = _RECORD_WORDS * 8
#: run_id to pid, and generation to collected.
_WRITTEN = struct.Struct("@QQQ16s16sQQQ")
_READ = struct.Struct("@QQQQ16s16sQQQQQ")
_GENERATION, _FLAGS, _DEADLINE, _STARTED_AT, _STOP, _COLLECTED = 1, 4, 9, 10, 12, 13

#: Lock bytes: seat owner, then one a killer.
_LOCKS_AT = 1 << 30
_LOCKS_PER_SEAT = 4
_AIMS = 2

_USED = bytes([0]) + bytes([1]) * 255
_ACTIVE = bytes(1 if value in UNDER_WAY else 0 for value in range(256))

#: struct flock, see fcntl(2).
_FLOCK = struct.Struct("@qqihh") if sys.platform == "darwin" else struct.Struct("@hhqqi0q")

#: There one processor's stores are seen by the others in their order; elsewhere `_order` sees to it.
_STORES_IN_ORDER = os.uname().machine in {"x86_64", "amd64", "i686"}

#: Reads of a record before its writer, who would have to write all that time, is taken for broken.
_READS_MAX = 100_000

_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def boottime_ns() -> int:
    """Nanoseconds of the clock that also counts while the machine sleeps; where there is none, monotonic."""
    return time.clock_gettime_ns(_CLOCK)


def _order() -> None:
    """What was stored before is seen before what is stored after, also on processors that reorder.

    A lock of the moment, so that a fork cannot inherit it locked: its release and its acquisition are the
    barriers.
    """
    if not _STORES_IN_ORDER:
        lock = allocate_lock()
        lock.acquire()
        lock.release()


class Raw:
    """One record as it was read. `reason` and `collected` are of this generation."""

    __slots__ = (
        "attempt", "collected", "deadline_ns", "flags", "generation", "nonce", "pid", "reason", "run_id",
        "started_ns", "state", "token",
    )  # fmt: skip

    def __init__(self, state: int, words: tuple[int, int, int, int, bytes, bytes, int, int, int, int, int]) -> None:
        self.state = state
        (
            self.generation, self.run_id, self.attempt, self.flags, self.token, self.nonce, self.deadline_ns,
            self.started_ns, self.pid, stop, collected,
        ) = words  # fmt: skip
        self.reason = stop & 0xFF if stop >> 8 == self.generation & 0xFFFF_FFFF_FFFF else NO_REASON
        self.collected = collected == self.generation

    @property
    def free(self) -> bool:
        """Nothing in it counts any more."""
        return self.state == FREE or (self.state == FINISHED and self.collected)


class Table:
    """The mapped memory: made before the pool forks, inherited by children, attached by the guardian."""

    def __init__(self, fd: int, memory: mmap.mmap) -> None:
        """For `create` and `attach`. The descriptor belongs to the table until the process ends."""
        self.fd = fd
        self.memory = memory
        self._bytes = memoryview(memory)
        self._words = self._bytes.cast("Q")
        magic, version, self.main_pid, _, _, self.seats, self.records, _ = self._words[:8].tolist()
        if magic != MAGIC or version != LAYOUT_VERSION:
            raise ValueError(f"not a table of layout {LAYOUT_VERSION}: magic {magic:#x}, version {version}")
        self._count = self.seats * self.records
        self._records_at = _HEADER_BYTES + (self._count + 7) // 8 * 8
        if len(memory) < self._records_at + self._count * _RECORD_BYTES:
            raise ValueError("the table is shorter than its header says")
        self._killing = allocate_lock()
        #: Seats of this very process: the kernel does not tell a process about its own locks.
        self._own: dict[int, int] = {}

    @classmethod
    def create(cls, seats: int, records: int) -> Table:
        """A new table of this process, all free, lease over."""
        size = _HEADER_BYTES + (seats * records + 7) // 8 * 8 + seats * records * _RECORD_BYTES
        fd = _anonymous_file(size)
        memory = mmap.mmap(fd, size, mmap.MAP_SHARED)
        struct.pack_into("@8Q", memory, 0, MAGIC, LAYOUT_VERSION, os.getpid(), 0, 0, seats, records, 0)
        return cls(fd, memory)

    @classmethod
    def attach(cls, fd: int) -> Table:
        """Another process's table, by an inherited descriptor. Raises ValueError for another layout."""
        return cls(fd, mmap.mmap(fd, os.fstat(fd).st_size, mmap.MAP_SHARED))

    # -- header ------------------------------------------------------------------------------------

    @property
    def lease_until_ns(self) -> int:
        """When the lease ends, by `boottime_ns`; 0 before the first."""
        return self._words[_LEASE]

    @lease_until_ns.setter
    def lease_until_ns(self, value: int) -> None:
        self._words[_LEASE] = value

    @property
    def draining(self) -> bool:
        """No new body may begin."""
        return self._words[_DRAINING] != 0

    @draining.setter
    def draining(self, value: bool) -> None:
        self._words[_DRAINING] = int(value)

    # -- reading -----------------------------------------------------------------------------------

    def used(self) -> list[int]:
        """Indexes of the records that are not FREE."""
        return self._where(_USED)

    def active(self) -> list[int]:
        """Indexes of the records that are REGISTERED, GRANTED or STARTED."""
        return self._where(_ACTIVE)

    def _where(self, mask: bytes) -> list[int]:
        marks = self._bytes[_HEADER_BYTES : _HEADER_BYTES + self._count].tobytes().translate(mask)
        found = []
        index = marks.find(1)
        while index >= 0:
            found.append(index)
            index = marks.find(1, index + 1)
        return found

    def read(self, index: int) -> Raw:
        """One record, consistent as the module says. Raises RuntimeError if it never stands still."""
        word, state_at = self._word(index), _HEADER_BYTES + index
        for tries in range(_READS_MAX):
            version = self._words[word]
            _order()
            state = self._bytes[state_at]
            _order()
            words = _READ.unpack_from(self._bytes, (word + _GENERATION) * 8)
            _order()
            if self._words[word] == version and (version % 2 == 0 or tries > 8):
                return Raw(state, words)
            if tries > 8:
                time.sleep(0)
        raise RuntimeError(f"record {index} never stands still")

    def deadline_ns(self, index: int) -> int:
        """A record's deadline alone: a hint, to be confirmed by `read`."""
        return self._words[self._word(index) + _DEADLINE]

    def index_of(self, nonce: bytes) -> int | None:
        """The record that has this nonce, FREE or not."""
        # A copy, because searching bytes is many times faster than searching a map.
        records = self._bytes[self._records_at :].tobytes()
        at = records.find(nonce)
        while at >= 0:
            index, offset = divmod(at, _RECORD_BYTES)
            if offset == 7 * 8:
                return index
            at = records.find(nonce, at + 1)
        return None

    def free_seat(self, seat: int) -> bool:
        """Whether all of a seat's records are free. Somebody may own it nevertheless."""
        indexes = range(seat * self.records, (seat + 1) * self.records)
        return all(self.state(index) == FREE or self.read(index).free for index in indexes)

    def _word(self, index: int) -> int:
        return self._records_at // 8 + index * _RECORD_WORDS

    # -- the child's side --------------------------------------------------------------------------

    def take(self, seat: int) -> bool:
        """Become the owner of a seat until this process ends; False when another is."""
        if seat in self._own or not self._lock(_LOCKS_AT + seat * _LOCKS_PER_SEAT):
            return False
        self._own[seat] = os.getpid()
        return True

    def give_back(self, seat: int) -> None:
        """Own it no longer."""
        self._unlock(_LOCKS_AT + seat * _LOCKS_PER_SEAT)
        del self._own[seat]

    def forget_inherited(self) -> None:
        """After a fork: locks are not inherited."""
        self._own = {seat: pid for seat, pid in self._own.items() if pid == os.getpid()}

    def write_registered(
        self, index: int, run_id: int, attempt: int, token: bytes, nonce: bytes, flags: int = 0
    ) -> None:
        """A free record becomes REGISTERED, of a new generation."""
        word, words = self._word(index), self._words
        self._open(word)
        self._bytes[_HEADER_BYTES + index] = FREE
        _order()
        words[word + _GENERATION] += 1
        _WRITTEN.pack_into(self._bytes, (word + 2) * 8, run_id, attempt, flags, token, nonce, 0, 0, os.getpid())
        self._close(word, index, REGISTERED)

    def write_granted(self, index: int, deadline_ns: int, flags: int) -> None:
        """REGISTERED becomes GRANTED."""
        word = self._word(index)
        self._open(word)
        self._words[word + _DEADLINE] = deadline_ns
        self._words[word + _FLAGS] |= flags
        self._close(word, index, GRANTED)

    def write_started(self, index: int, now_ns: int) -> None:
        """GRANTED becomes STARTED."""
        word = self._word(index)
        self._open(word)
        self._words[word + _STARTED_AT] = now_ns
        self._close(word, index, STARTED)

    def leave(self, index: int, state: int) -> None:
        """Become FINISHED or FREE; returns when no killer has its aim at this seat."""
        self._bytes[_HEADER_BYTES + index] = state
        aims = _LOCKS_AT + index // self.records * _LOCKS_PER_SEAT + 1
        try:
            while self._owner(aims, _AIMS):
                time.sleep(0.001)
        except OSError:
            # The body closed our descriptor: the seat is lost, and with it the protection of the next
            # attempt.
            os.kill(os.getpid(), signal.SIGKILL)

    def state(self, index: int) -> int:
        """A record's state; for its own writer."""
        return self._bytes[_HEADER_BYTES + index]

    def generation(self, index: int) -> int:
        """A record's generation; for its own writer."""
        return self._words[self._word(index) + _GENERATION]

    def reason(self, index: int, generation: int) -> int:
        """The stop reason that was written for this generation."""
        stop = self._words[self._word(index) + _STOP]
        return stop & 0xFF if stop >> 8 == generation & 0xFFFF_FFFF_FFFF else NO_REASON

    def _open(self, word: int) -> None:
        # A section that a killed owner left open is odd already.
        self._words[word] += 1 + self._words[word] % 2
        _order()

    def _close(self, word: int, index: int, state: int) -> None:
        _order()
        self._bytes[_HEADER_BYTES + index] = state
        _order()
        self._words[word] += 1

    # -- the main process's and the killers' side --------------------------------------------------

    def owner(self, seat: int) -> int:
        """Pid of the process that owns a seat; 0 when nobody does."""
        own = self._own.get(seat)
        return own if own == os.getpid() else self._owner(_LOCKS_AT + seat * _LOCKS_PER_SEAT, 1)

    def collect(self, index: int, generation: int) -> None:
        """The main process has what this record stands for; it is free once its child has left it."""
        if self._words[self._word(index) + _GENERATION] != generation:
            return
        if self.owner(index // self.records) == 0:
            # Nobody else writes here: a seat can be taken only when all of its records are free.
            self._bytes[_HEADER_BYTES + index] = FREE
        self._words[self._word(index) + _COLLECTED] = generation

    def write_reason(self, index: int, generation: int, reason: int, *, by: int) -> bool:
        """Write why an attempt should stop; the first reason stays. False when it is not under way."""
        return self._aimed(index, generation, UNDER_WAY, reason, by, kill=False)

    def kill(self, index: int, generation: int, reason: int, *, by: int, states: tuple[int, ...] = UNDER_WAY) -> bool:
        """SIGKILL to the child, if this very attempt is under way in one of these states.

        The reason is written before. False when it is not, or when another killer of the same kind is at it.
        """
        return self._aimed(index, generation, states, reason, by, kill=True)

    def _aimed(self, index: int, generation: int, states: tuple[int, ...], reason: int, by: int, *, kill: bool) -> bool:
        seat = index // self.records
        aim = _LOCKS_AT + seat * _LOCKS_PER_SEAT + 1 + by
        # Threads of one process share its record locks.
        with self._killing:
            if not self._lock(aim):
                return False
            try:
                seen = self.read(index)
                if seen.generation != generation or seen.state not in states:
                    return False
                if reason != NO_REASON and seen.reason == NO_REASON:
                    self._words[self._word(index) + _STOP] = (generation & 0xFFFF_FFFF_FFFF) << 8 | reason
                return self._end_owner(seat, seen.pid) if kill else True
            finally:
                self._unlock(aim)

    def end_seat(self, seat: int) -> bool:
        """SIGKILL to whoever owns a seat; for when the main process is gone. False when nobody does."""
        pid = self.owner(seat)
        return pid != 0 and self._end_owner(seat, pid)

    def _end_owner(self, seat: int, pid: int) -> bool:
        pidfd = -1
        try:
            if hasattr(os, "pidfd_open"):
                pidfd = os.pidfd_open(pid)
            if self.owner(seat) != pid:
                return False
            if pidfd >= 0:
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            else:
                os.kill(pid, signal.SIGKILL)
            return True
        except ProcessLookupError:
            return False
        finally:
            if pidfd >= 0:
                os.close(pidfd)

    # -- kernel locks ------------------------------------------------------------------------------

    def _lock(self, byte: int) -> bool:
        try:
            fcntl.lockf(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, byte)
        except (BlockingIOError, PermissionError):
            return False
        return True

    def _unlock(self, byte: int) -> None:
        fcntl.lockf(self.fd, fcntl.LOCK_UN, 1, byte)

    def _owner(self, byte: int, count: int) -> int:
        """Pid of another process that holds a lock in this range; 0 when none does."""
        if sys.platform == "darwin":
            answer = fcntl.fcntl(self.fd, fcntl.F_GETLK, _FLOCK.pack(byte, count, 0, fcntl.F_WRLCK, 0))
            _, _, pid, kind, _ = _FLOCK.unpack(answer)
        else:
            answer = fcntl.fcntl(self.fd, fcntl.F_GETLK, _FLOCK.pack(fcntl.F_WRLCK, 0, byte, count, 0))
            kind, _, _, _, pid = _FLOCK.unpack(answer)
        return 0 if kind == fcntl.F_UNLCK else int(pid)


def _anonymous_file(size: int) -> int:
    """A descriptor of a file without a name, closed on exec, that nobody can shorten under a reader."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("signalbox-table", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(fd, size)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
        return fd
    import tempfile

    fd, name = tempfile.mkstemp(prefix="signalbox-")
    os.unlink(name)  # noqa: PTH108  (no pathlib here: the guardian stays small)
    os.ftruncate(fd, size)
    return fd
