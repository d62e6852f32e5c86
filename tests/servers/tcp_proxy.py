"""A TCP proxy on loopback that cuts connections where a test wants it: in the middle of an answer, or all at once."""

from __future__ import annotations

import contextlib
import socket
import threading
from types import TracebackType
from typing import Self


class TcpProxy:
    """Forwards to a port of this machine. Each connection has two threads; everything ends with the context."""

    def __init__(self, target_port: int) -> None:
        """Listens at once, on a free port of loopback."""
        self._target_port = target_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        #: How many answers were cut so far.
        self.cuts = 0
        self._marker: bytes | None = None
        self._silent = False
        self._refusing = False
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, name="tcp-proxy", daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        self._refusing = True
        # A listener that is only closed goes on in accept().
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def cut_next_answer_with(self, marker: bytes) -> None:
        """The next answer that holds these bytes is swallowed, and its connection cut: the server has answered, the
        client never hears it."""
        self._marker, self._silent = marker, False

    def swallow_next_answer_with(self, marker: bytes) -> None:
        """The next answer that holds these bytes and all that its connection brings after it are swallowed, and the
        connection stays open, as behind a partition."""
        self._marker, self._silent = marker, True

    def cut(self) -> None:
        """Cut every connection there is."""
        with self._lock:
            doomed = list(self._open)
        for one in doomed:
            _close(one)

    def refuse(self) -> None:
        """Cut every connection, and each new one."""
        self._refusing = True
        self.cut()

    def accept(self) -> None:
        """Forward new connections again."""
        self._refusing = False

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self._refusing:
                _close(client)
                continue
            try:
                server = socket.create_connection(("127.0.0.1", self._target_port), timeout=5)
            except OSError:
                _close(client)
                continue
            server.settimeout(None)
            for one in (client, server):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._open |= {client, server}
            for source, sink, answers in ((client, server, False), (server, client, True)):
                threading.Thread(target=self._pump, args=(source, sink, answers), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, answers: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                marker = self._marker
                if answers and marker is not None and marker in data:
                    self._marker = None
                    self.cuts += 1
                    while self._silent and source.recv(65536):
                        pass
                    break
                sink.sendall(data)
        for one in (source, sink):
            _close(one)
        with self._lock:
            self._open -= {source, sink}


def _close(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()
