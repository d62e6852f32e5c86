"""Connections to checked addresses, on sockets that never wait longer than a tenth of a second at a time.

This is httpcore's network backend, the one place where a name becomes a connection: whatever the layers above make of
a URL, and wherever a redirect leads, the name is resolved here, once, its addresses are judged, and the connection
goes to one of those and is never looked up again. Above it the name goes on: in the Host header, in SNI, and in the
check of the certificate.

Between two waits it looks whether the attempt must stop. That is also why the resolver runs in a thread: it may take
half a minute and cannot be interrupted.
"""

from __future__ import annotations

import errno
import os
import queue
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable
from functools import lru_cache, partial
from typing import Any, Final, TypeVar

import certifi
import httpcore

from workers_app.addresses import AddressPolicy
from workers_app.executors.http_errors import HttpAddressRefused, HttpCertificateRefused, HttpStopped
from workers_app.executors.ports import Job

#: How often it looks whether a stop was asked for.
POLL_SECONDS: Final = 0.1
#: So long before its deadline it ends by itself, before the guardian kills the whole process.
DEADLINE_MARGIN_SECONDS: Final = 0.1
#: Of a name with more addresses than this, the first ones are tried.
ADDRESSES_MAX: Final = 8

T = TypeVar("T")


class Patience:
    """How long an attempt may wait for something."""

    def __init__(self, job: Job) -> None:
        """Job says when to stop, and its deadline."""
        self._job = job

    def check(self) -> None:
        """Raise HttpStopped when the attempt must stop or its time is over."""
        reason = self._job.stop_requested()
        if reason is None and self._left() <= 0:
            reason = "timeout"
        if reason is not None:
            raise HttpStopped(reason)

    def nap(self, until: float) -> float:
        """Seconds that may pass before the next look; until is the monotonic end of the whole wait."""
        return max(0.0, min(POLL_SECONDS, until - time.monotonic(), self._left()))

    def _left(self) -> float:
        remaining = self._job.remaining_seconds()
        return float("inf") if remaining is None else remaining - DEADLINE_MARGIN_SECONDS


class CheckedBackend(httpcore.NetworkBackend):
    """Connects to addresses that the policy lets pass, and to nothing else."""

    def __init__(self, policy: AddressPolicy, patience: Patience) -> None:
        """Both hold for every connection that is made, redirects included."""
        self._policy, self._patience = policy, patience

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,  # noqa: ARG002  (nobody here sets it)
        socket_options: Iterable[Any] | None = None,  # noqa: ARG002
    ) -> httpcore.NetworkStream:
        """Resolve, judge, connect. Raises HttpAddressRefused, HttpStopped, httpcore.ConnectError, ConnectTimeout."""
        until = _end(timeout)
        judged = [
            (family, address, self._policy.refusal(host, str(address[0])))
            for family, address in self._resolved(host, port, until)
        ]
        good = [(family, address) for family, address, refusal in judged if refusal is None][:ADDRESSES_MAX]
        if not good:
            kinds = " and ".join(sorted({str(refusal) for _, _, refusal in judged}))
            raise HttpAddressRefused(
                f'"{host}" has a {kinds} address; only public ones are asked, and what the operator allows '
                "(SIGNALBOX_WORKERS__HTTP_ALLOW)"
            )
        for place, (family, address) in enumerate(good):
            # Each of them gets its share of what is left, so that the first one cannot use it all up.
            share = time.monotonic() + (until - time.monotonic()) / (len(good) - place)
            try:
                return _Stream(self._connected(family, address, share), self._patience)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                if place == len(good) - 1:
                    raise
        raise AssertionError("unreachable")

    def connect_unix_socket(self, *_: Any, **__: Any) -> httpcore.NetworkStream:
        """Never: that would be a way to everything that listens on this host."""
        raise HttpAddressRefused("no request is sent to a local socket")

    def sleep(self, seconds: float) -> None:
        """Only between httpcore's own retries, which are off."""
        raise NotImplementedError

    def _resolved(self, host: str, port: int, until: float) -> list[tuple[int, Any]]:
        """(family, socket address), each once, as the resolver orders them."""
        answers: queue.SimpleQueue[list[Any] | Exception] = queue.SimpleQueue()

        def look_up() -> None:
            try:
                answers.put(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
            except (OSError, UnicodeError) as error:
                answers.put(error)

        threading.Thread(target=look_up, name="signalbox-resolve", daemon=True).start()
        while True:
            self._patience.check()
            try:
                answer = answers.get(timeout=self._patience.nap(until))
            except queue.Empty:
                if time.monotonic() >= until:
                    raise httpcore.ConnectTimeout(f'"{host}" could not be resolved in time') from None
                continue
            if isinstance(answer, Exception):
                problem = getattr(answer, "strerror", None) or "not a host name"
                raise httpcore.ConnectError(f'"{host}" cannot be resolved: {problem}')
            return list(dict.fromkeys((family, address) for family, _, _, _, address in answer))

    def _connected(self, family: int, address: Any, until: float) -> socket.socket:
        made = socket.socket(family, socket.SOCK_STREAM)
        try:
            made.setblocking(False)
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            code = made.connect_ex(address)
            if code == errno.EINPROGRESS:
                if not _wait(made, select.POLLOUT, until, self._patience):
                    raise httpcore.ConnectTimeout("no connection in time")
                code = made.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code:
                raise httpcore.ConnectError(os.strerror(code))
        except BaseException:
            made.close()
            raise
        return made


class _Stream(httpcore.NetworkStream):
    """One connection, plain or TLS."""

    def __init__(self, connection: socket.socket, patience: Patience) -> None:
        self._socket, self._patience = connection, patience

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Up to so many bytes; none at the end."""
        try:
            return self._patiently(partial(self._socket.recv, max_bytes), select.POLLIN, timeout)
        except TimeoutError:
            raise httpcore.ReadTimeout("no data in time") from None
        except ssl.SSLZeroReturnError:
            return b""
        except OSError as error:
            raise httpcore.ReadError(_why(error)) from None

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """All of it."""
        rest = memoryview(buffer)
        try:
            while rest:
                rest = rest[self._patiently(partial(self._socket.send, rest), select.POLLOUT, timeout) :]
        except TimeoutError:
            raise httpcore.WriteTimeout("nothing was taken in time") from None
        except OSError as error:
            raise httpcore.WriteError(_why(error)) from None

    def close(self) -> None:
        """At once; twice is once."""
        self._socket.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        """The same connection with TLS; the certificate is checked for the name, not for the address."""
        try:
            secured = ssl_context.wrap_socket(
                self._socket, server_hostname=server_hostname, do_handshake_on_connect=False
            )
            # It has taken over the connection, and so it is the one to close.
            self._socket = secured
            self._patiently(secured.do_handshake, select.POLLIN, timeout)
        except BaseException as error:
            # Nobody above closes a connection that got no TLS.
            self.close()
            if isinstance(error, TimeoutError):
                raise httpcore.ConnectTimeout("no TLS in time") from None
            if isinstance(error, ssl.SSLCertVerificationError):
                raise HttpCertificateRefused(
                    f'the certificate of "{server_hostname}" is refused: {error.verify_message}'
                ) from None
            if isinstance(error, OSError | ValueError):
                raise httpcore.ConnectError(f"no TLS: {_why(error)}") from None
            raise
        return self

    def get_extra_info(self, info: str) -> Any:
        """What httpcore asks for: whether there is TLS, and whether an idle connection has something to say."""
        if info == "ssl_object":
            return self._socket if isinstance(self._socket, ssl.SSLSocket) else None
        return _ready(self._socket, select.POLLIN, 0) if info == "is_readable" else None

    def _patiently(self, step: Callable[[], T], event: int, seconds: float | None) -> T:
        """Take a step of a socket that does not block, as soon as it can be taken. Raises TimeoutError."""
        until = _end(seconds)
        while True:
            self._patience.check()
            try:
                return step()
            except BlockingIOError:
                wanted = event
            # TLS may have to write before it can read, and the other way round.
            except ssl.SSLWantReadError:
                wanted = select.POLLIN
            except ssl.SSLWantWriteError:
                wanted = select.POLLOUT
            if not _wait(self._socket, wanted, until, self._patience):
                raise TimeoutError


@lru_cache(maxsize=4)
def tls_context(*, verify: bool, more_authorities: str = "") -> ssl.SSLContext:
    """TLS with the public authorities of certifi, and those of a file.

    Made by hand: what the standard library calls the default takes authorities and a file for the connection's keys
    from environment variables. Kept for the life of the process, since reading the authorities takes its time.
    Raises OSError for a file that cannot be read.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context
    context.load_verify_locations(certifi.where())
    if more_authorities:
        context.load_verify_locations(more_authorities)
    return context


def _end(seconds: float | None) -> float:
    return float("inf") if seconds is None else time.monotonic() + seconds


def _wait(waiting: socket.socket, event: int, until: float, patience: Patience) -> bool:
    """Until the socket is ready; False when the time is over first. Raises HttpStopped."""
    while not _ready(waiting, event, patience.nap(until)):
        patience.check()
        if time.monotonic() >= until:
            return False
    return True


def _ready(waiting: socket.socket, event: int, seconds: float) -> bool:
    poller = select.poll()
    poller.register(waiting, event)
    return bool(poller.poll(seconds * 1000))


def _why(error: Exception) -> str:
    """A reason without the file and line of a C library that OpenSSL adds."""
    reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
    return str(reason).replace("_", " ").lower() if isinstance(error, ssl.SSLError) else str(reason)
