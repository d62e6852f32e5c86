"""One HTTP question to a health port, asked without waiting: the supervisor's loop carries it on."""

from __future__ import annotations

import errno
import selectors
import socket
from collections.abc import Callable

#: A status of None means: no answer, or none that is HTTP.
Answered = Callable[[int | None], None]


class Probe:
    """GET `path` from 127.0.0.1:`port`; `answered` is called once, unless the probe is dropped before."""

    def __init__(
        self, selector: selectors.BaseSelector, port: int, path: str, *, deadline: float, answered: Answered
    ) -> None:
        """`deadline` is on the clock that `expire` is called with."""
        self.deadline = deadline
        self._selector = selector
        self._answered = answered
        self._request = f"GET {path} HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n".encode()
        self._reply = b""
        self._socket: socket.socket | None = socket.socket()
        self._socket.setblocking(False)
        result = self._socket.connect_ex(("127.0.0.1", port))
        if result not in (0, errno.EINPROGRESS, errno.EAGAIN):
            self._finish(None)
            return
        selector.register(self._socket, selectors.EVENT_WRITE, self._advance)

    @property
    def done(self) -> bool:
        """Whether it was answered, failed or dropped."""
        return self._socket is None

    def expire(self, now: float) -> None:
        """Give up when the deadline has passed."""
        if not self.done and now >= self.deadline:
            self._finish(None)

    def drop(self) -> None:
        """Forget the question; nobody is called."""
        if self._socket is not None:
            if self._socket.fileno() in self._selector.get_map():
                self._selector.unregister(self._socket)
            self._socket.close()
            self._socket = None

    def _advance(self) -> None:
        assert self._socket is not None
        try:
            if self._request:
                sent = self._socket.send(self._request)
                self._request = self._request[sent:]
                if not self._request:
                    self._selector.modify(self._socket, selectors.EVENT_READ, self._advance)
                return
            block = self._socket.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            self._finish(None)
            return
        self._reply += block
        line, separator, _ = self._reply.partition(b"\r\n")
        if separator or not block or len(self._reply) > 4096:
            self._finish(_status(line))

    def _finish(self, status: int | None) -> None:
        self.drop()
        self._answered(status)


def broker_answers(port: int, password: str) -> bool:
    """Whether the embedded broker has read its file and takes commands. Takes 0.2 s at most."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=0.2) as connection:
            connection.sendall(f"AUTH {password}\r\nPING\r\n".encode())
            reply = b""
            while reply.count(b"\r\n") < 2:
                block = connection.recv(4096)
                if not block:
                    return False
                reply += block
    except OSError:
        return False
    return reply.endswith(b"+PONG\r\n")


def _status(line: bytes) -> int | None:
    words = line.split()
    if len(words) >= 2 and words[0].startswith(b"HTTP/") and words[1].isdigit():
        return int(words[1])
    return None
