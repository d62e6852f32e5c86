"""HTTP servers on loopback that behave as a test wants them to, well or badly, and the certificates that some show."""

from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Asked:
    """A request as it came over the wire; names of headers in small letters."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


@dataclass
class HttpServer:
    """Answers each connection's one request. server_names: what clients said in SNI."""

    address: str
    scheme: str
    asked: list[Asked] = field(default_factory=list)
    #: Connections, also those on which nothing was asked.
    accepted: int = 0
    server_names: list[str | None] = field(default_factory=list)
    #: Set when a client hung up on an answer that was still on its way.
    hung_up: threading.Event = field(default_factory=threading.Event)
    #: Ends answers that would go on for ever.
    over: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        """Without a path."""
        return f"{self.scheme}://{self.address}"

    def named(self, host: str) -> str:
        """The URL under another name for the same address."""
        return f"{self.scheme}://{host}:{self.address.rpartition(':')[2]}"


Answer = bytes | Callable[[Asked, socket.socket, HttpServer], None]


def said(status: int, body: bytes | str = b"", **headers: str) -> bytes:
    """A whole answer. Headers are written with _ for -."""
    data = body.encode() if isinstance(body, str) else body
    lines = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(data)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + data


@contextmanager
def serving(*answers: Answer, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> Iterator[HttpServer]:
    """A server that gives these answers in turn, and the last one again and again."""
    with socket.create_server((host, 0)) as listening:
        port = listening.getsockname()[1]
        server = HttpServer(f"{host}:{port}", "https" if tls else "http")
        if tls is not None:
            tls.sni_callback = lambda _socket, name, _context: server.server_names.append(name)
        threads = [threading.Thread(target=_accept, args=(listening, server, list(answers), tls), daemon=True)]
        threads[0].start()
        try:
            yield server
        finally:
            server.over.set()
            # Closing alone does not wake a thread that accepts.
            with contextlib.suppress(OSError):
                listening.shutdown(socket.SHUT_RDWR)
            threads[0].join(5)


def _accept(listening: socket.socket, server: HttpServer, answers: list[Answer], tls: ssl.SSLContext | None) -> None:
    while True:
        try:
            connection, _ = listening.accept()
        except OSError:
            return
        server.accepted += 1
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        threading.Thread(target=_serve, args=(connection, server, answer, tls), daemon=True).start()


def _serve(connection: socket.socket, server: HttpServer, answer: Answer, tls: ssl.SSLContext | None) -> None:
    with contextlib.suppress(OSError), connection:
        connection.settimeout(30)
        with tls.wrap_socket(connection, server_side=True) if tls else contextlib.nullcontext(connection) as talking:
            asked = _request(talking)
            if asked is None:
                return
            server.asked.append(asked)
            try:
                if callable(answer):
                    answer(asked, talking, server)
                else:
                    talking.sendall(answer)
            except OSError:
                server.hung_up.set()
                raise


def _request(connection: socket.socket) -> Asked | None:
    data = b""
    while b"\r\n\r\n" not in data:
        part = connection.recv(65536)
        if not part:
            return None
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    while len(body) < int(headers.get("content-length", 0)):
        body += connection.recv(65536)
    method, target, _ = first.split(" ")
    return Asked(method, target, headers, body)


def silent(_: Asked, connection: socket.socket, server: HttpServer) -> None:
    """Says nothing until the server is over or the client hangs up."""
    connection.settimeout(0.05)
    while not server.over.is_set():
        with contextlib.suppress(TimeoutError):
            if not connection.recv(1):
                raise ConnectionResetError


def dripping(_: Asked, connection: socket.socket, server: HttpServer) -> None:
    """A body without an end, byte by byte."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
    while not server.over.wait(0.02):
        connection.sendall(b".")


@dataclass
class Certificate:
    """A self-signed certificate with its key."""

    file: Path
    key: Path

    def server(self) -> ssl.SSLContext:
        """What a server shows it with."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.file, self.key)
        return context


def certificate(folder: Path, name: str, also: str) -> Certificate:
    """A new one; `name` as DNS name, `also` as OpenSSL writes subjectAltName: "DNS:localhost"."""
    made = Certificate(folder / f"{name}.pem", folder / f"{name}.key")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-keyout", made.key, "-out", made.file, "-days", "2", "-subj", f"/CN={name}", "-addext",
         f"subjectAltName={also}"],
        check=True, capture_output=True,
    )  # fmt: skip
    return made
