"""The socket on which pool children tell the main process what came of their attempts.

A stream socket in a private folder; each child connects once. Frames are length-prefixed: 4 bytes of size, 1 byte of
kind, 16 bytes of nonce, then JSON text that the main process passes on as it is. The kernel keeps what a
child wrote when it dies, and the end of the stream then tells that it is gone.

Nobody else reads for the one thread that does: without it, children would wait for ever with their outcomes. So
whatever a frame does to who takes it, the next one is read.
"""

from __future__ import annotations

import logging
import os
import selectors
import socket
import struct
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from workers_app.metrics import FRAMES_FAILED

logger = logging.getLogger(__name__)

_HEAD: Final = struct.Struct("!IB16s")
HELLO: Final = 1
FINISH: Final = 2
TELEMETRY: Final = 3
HAND_BACK: Final = 4
GATHER_SECONDS: Final = 0.02
#: At the end, for how long at most what children wrote before is still read.
LAST_WORDS_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class Frame:
    """One message of a child: kind, the attempt's nonce, JSON text."""

    kind: int
    nonce: bytes
    payload: bytes


class ChildEnd:
    """A child's side: blocking writes, safe to use from several threads of the child."""

    def __init__(self, path: str) -> None:
        """Connect; the process id goes first, so that the main process knows whose stream it is."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.connect(path)
        self._lock = threading.Lock()
        self.send(HELLO, bytes(16), str(os.getpid()).encode())

    def close(self) -> None:
        """Say no more."""
        self._socket.close()

    def send(self, kind: int, nonce: bytes, payload: bytes) -> None:
        """Write one frame; returns when the kernel has it all. Raises OSError when the main process is gone."""
        with self._lock:
            self._socket.sendall(_HEAD.pack(len(payload), kind, nonce) + payload)


@dataclass
class _Stream:
    socket: socket.socket
    buffer: bytearray = field(default_factory=bytearray)
    pid: int = 0


class MainEnd:
    """The main process's side: one thread reads every child's stream."""

    def __init__(self, on_frame: Callable[[Frame], None], on_gone: Callable[[int], None]) -> None:
        """on_frame gets each frame in the order in which its child wrote it; on_gone the pid after its last frame."""
        self._on_frame, self._on_gone = on_frame, on_gone
        self._folder = tempfile.mkdtemp(prefix="signalbox-")
        self.path = str(Path(self._folder) / "outcomes")
        self._listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listening.bind(self.path)
        self._listening.listen(128)
        self._listening.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listening, selectors.EVENT_READ, None)
        #: By pid. A process that a child left behind may hold its stream until another child has the number.
        self._newest: dict[int, _Stream] = {}
        self._owner = os.getpid()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._read, name="signalbox-collect", daemon=True)

    def start(self) -> None:
        """Begin to read. Call after the pool has forked, or before: children inherit nothing that they use."""
        self._thread.start()

    @property
    def reading(self) -> bool:
        """Whether the thread is there that reads."""
        return self._thread.is_alive()

    def close(self) -> None:
        """Stop reading and remove the socket; what children wrote before was read. Twice is once."""
        if os.getpid() != self._owner or self._closed.is_set():
            return
        self._closed.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)
        for key in list(self._selector.get_map().values()):
            if isinstance(key.fileobj, socket.socket):
                key.fileobj.close()
        self._selector.close()
        Path(self.path).unlink(missing_ok=True)
        Path(self._folder).rmdir()

    def _read(self) -> None:
        while not self._closed.is_set():
            self._read_ready(0.2)
            # Each waking takes the interpreter from the event loop that hands out work. What comes in the meantime is
            # read in one go; the reports wait five times as long for their flush.
            self._closed.wait(GATHER_SECONDS)
        last = time.monotonic() + LAST_WORDS_SECONDS
        while self._read_ready(0.0) and time.monotonic() < last:
            pass

    def _read_ready(self, seconds: float) -> bool:
        """Read once from every stream that has something; False when none had within so many seconds."""
        ready = self._selector.select(timeout=seconds)
        for key, _ in ready:
            try:
                if key.data is None:
                    self._accept()
                else:
                    self._receive(key.data)
            except Exception:
                logger.exception("a pool process's stream failed")
        return bool(ready)

    def _accept(self) -> None:
        try:
            connection, _ = self._listening.accept()
        except (BlockingIOError, OSError):
            return
        connection.setblocking(False)
        self._selector.register(connection, selectors.EVENT_READ, _Stream(connection))

    def _receive(self, stream: _Stream) -> None:
        try:
            data = stream.socket.recv(1 << 18)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._selector.unregister(stream.socket)
            stream.socket.close()
            if self._newest.get(stream.pid) is stream:
                del self._newest[stream.pid]
                self._on_gone(stream.pid)
            return
        stream.buffer += data
        start = 0
        while len(stream.buffer) - start >= _HEAD.size:
            size, kind, nonce = _HEAD.unpack_from(stream.buffer, start)
            end = start + _HEAD.size + size
            if len(stream.buffer) < end:
                break
            payload = bytes(stream.buffer[start + _HEAD.size : end])
            start = end
            self._take(stream, Frame(kind, nonce, payload))
        if start:
            del stream.buffer[:start]

    def _take(self, stream: _Stream, frame: Frame) -> None:
        try:
            if frame.kind == HELLO:
                stream.pid = int(frame.payload)
                self._newest[stream.pid] = stream
            else:
                self._on_frame(frame)
        except Exception:
            FRAMES_FAILED.inc()
            logger.exception("a pool process's message could not be taken", extra={"kind": frame.kind})
