"""Makes one HTTP request for an attempt and says what came back.

Connections, stops and deadlines are `http_connection`'s part. Redirects are followed here, one by one, because each is
a new decision: where to, and what of the request may go there. Nothing of the worker's environment has a say: no
proxies, no netrc, no authorities from variables.

Each request carries Signalbox-Run-Id, Signalbox-Attempt and Signalbox-Idempotency-Key, as commands have them in their
environment. Bodies are asked for as they are (Accept-Encoding: identity): what is compressed has no size until it is
unpacked.
"""

from __future__ import annotations

import codecs
import json
import logging
import re
import ssl
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.client import responses
from typing import Any, Final

import httpcore
import httpx

from tasks_app.http_parameters import check_parameters, completed, has_status
from workers_app.addresses import AddressPolicy
from workers_app.executors.http_connection import CheckedBackend, Patience, tls_context
from workers_app.executors.http_errors import (
    HttpNotSent,
    HttpRedirectRefused,
    HttpResponseTooLarge,
    HttpStatusUnexpected,
    HttpTimedOut,
    HttpUnreachable,
)
from workers_app.executors.ports import Job

#: No server can put a run off for longer than this.
RETRY_AFTER_SECONDS_MAX: Final = 24 * 3600.0
#: What of an answer that was not expected stands in the error.
ERROR_BODY_CHARACTERS: Final = 1000
_HEADER_CHARACTERS_MAX: Final = 1000
#: Read beyond what is kept, so that a secret at the cut is seen whole and hidden.
_MARGIN_BYTES: Final = 8 * 1024
_KEPT_HEADERS: Final = (
    "content-encoding", "content-length", "content-type", "date", "etag", "last-modified", "location", "retry-after",
    "traceparent", "x-request-id",
)  # fmt: skip
#: What of the user's headers may go on to another origin.
_HARMLESS_HEADERS: Final = frozenset({"accept", "accept-language", "content-type", "user-agent"})
_SECRET_HEADER: Final = re.compile(r"auth|cookie|credential|key|passw|secret|session|signature|token", re.IGNORECASE)
_SECRET_CHARACTERS_MIN: Final = 6
#: Long enough, and no secrets.
_SCHEMES: Final = frozenset({"bearer", "digest", "negotiate"})
#: As Python calls them. A server could also name codecs that take the square of the time, or are none of text.
_CHARSETS: Final = frozenset({
    "utf-8", "ascii", "iso8859-1", "iso8859-15", "cp1250", "cp1251", "cp1252", "gb18030", "gbk", "gb2312", "big5",
    "shift_jis", "euc_jp", "euc_kr", "koi8-r", "utf-16",
})  # fmt: skip

# They log whole URLs and the headers of answers: nobody's level must turn that on by the way.
for _name in ("httpx", "httpcore"):
    logging.getLogger(_name).setLevel(logging.WARNING)


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """What holds for every request of a worker.

    body_bytes: how much of a body is kept, as JSON text. authorities_file: certificates of authorities (PEM) that are
    trusted beside the public ones.
    """

    body_bytes: int = 64 * 1024
    authorities_file: str = ""


@dataclass(frozen=True, slots=True)
class HttpResult:
    """An answer that was expected. body: as text, cut with a mark. body_bytes: all that came."""

    status: int
    headers: dict[str, str]
    body: str
    body_bytes: int
    truncated: bool
    redirects: int
    elapsed_seconds: float

    def as_json(self) -> dict[str, Any]:
        """For the run's result."""
        return asdict(self)


def run_http(
    parameters: Mapping[str, Any], *, job: Job, policy: AddressPolicy, limits: HttpLimits | None = None
) -> HttpResult:
    """Make the request and return its answer. Raises HttpFailed (one of its kinds) or HttpStopped."""
    problems = check_parameters(parameters)
    if problems:
        raise HttpNotSent("; ".join(problems))
    given = completed(parameters)
    limits = limits or HttpLimits()
    patience = Patience(job)
    patience.check()
    try:
        context = tls_context(verify=given["verify"], more_authorities=limits.authorities_file)
    except OSError as error:
        raise HttpNotSent(f"authorities cannot be read from {limits.authorities_file}: {error.strerror}") from None
    transport = _Transport(context, CheckedBackend(policy, patience))
    with httpx.Client(transport=transport, trust_env=False, headers=_own_headers(job)) as client:
        return _Exchange(client, given, job, limits).result()


def retry_after_seconds(headers: httpx.Headers) -> float | None:
    """What a server asks for: seconds, or a date by its own clock. None for what says nothing, also for "at once"."""
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        seconds = float(text[:12])
    else:
        then = _instant(text)
        if then is None:
            return None
        seconds = (then - (_instant(headers.get("date", "")) or datetime.now(UTC))).total_seconds()
    return min(seconds, RETRY_AFTER_SECONDS_MAX) if seconds > 0 else None


class _Transport(httpx.BaseTransport):
    """Between httpx and httpcore: connections by the checked backend, a new one for each request."""

    def __init__(self, context: ssl.SSLContext, backend: CheckedBackend) -> None:
        self._pool = httpcore.ConnectionPool(
            ssl_context=context, network_backend=backend, max_keepalive_connections=0, http1=True, http2=False
        )

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send it; returns when the head of the answer is there."""
        url = request.url
        assert isinstance(request.stream, httpx.SyncByteStream)
        answer = self._pool.handle_request(
            httpcore.Request(
                request.method,
                httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
                headers=request.headers.raw,
                content=request.stream,
                extensions=request.extensions,
            )
        )
        return httpx.Response(answer.status, headers=answer.headers, stream=_Body(answer))

    def close(self) -> None:
        """Close what is open."""
        self._pool.close()


class _Body(httpx.SyncByteStream):
    def __init__(self, answer: httpcore.Response) -> None:
        self._answer = answer

    def __iter__(self) -> Iterator[bytes]:
        return self._answer.iter_stream()

    def close(self) -> None:
        self._answer.close()


class _Exchange:
    """One request with its redirects."""

    def __init__(self, client: httpx.Client, given: dict[str, Any], job: Job, limits: HttpLimits) -> None:
        self._client, self._given, self._job, self._limits = client, given, job, limits
        secrets = _secrets_of(given["headers"])
        self._secrets = [re.compile("".join(map(_written, secret))) for secret in secrets]
        self._secret_characters_max = max((sum(map(_written_length, secret)) for secret in secrets), default=0)
        self._began = time.monotonic()
        self._redirects = 0

    def result(self) -> HttpResult:
        """The last answer."""
        request = self._first()
        while True:
            where = f"{request.method} {_origin(request.url)}"
            try:
                response = self._client.send(request, stream=True)
                try:
                    following = response.next_request
                    if following is None or not self._given["follow_redirects"]:
                        return self._concluded(response, where)
                finally:
                    response.close()
            except httpcore.TimeoutException as error:
                raise HttpTimedOut(f"{where}: {self._reason(error)}") from None
            except (httpcore.NetworkError, httpcore.RemoteProtocolError) as error:
                raise HttpUnreachable(f"{where}: {self._reason(error)}") from None
            except (httpx.RemoteProtocolError, UnicodeError):
                # The second for host names that its check of international ones does not expect.
                raise HttpRedirectRefused(f"{where}: redirects to something that is no URL") from None
            except (httpcore.LocalProtocolError, httpcore.UnsupportedProtocol):
                raise HttpNotSent(f"{where}: this cannot be sent as HTTP") from None
            request = self._next(request, following, where)
            self._job.log("system", f"[{where}: {response.status_code}, goes on to {_origin(request.url)}]\n")

    def _first(self) -> httpx.Request:
        given = self._given
        headers = dict(given["headers"])
        content: bytes | None = None
        if "json" in given:
            content = json.dumps(given["json"], ensure_ascii=False, allow_nan=False).encode()
        elif "body" in given:
            content = given["body"].encode()
        if content is not None and "content-type" not in {name.lower() for name in headers}:
            headers["Content-Type"] = "application/json" if "json" in given else "text/plain; charset=utf-8"
        connect, read = given["connect_timeout_seconds"], given["read_timeout_seconds"]
        try:
            return self._client.build_request(
                given["method"],
                given["url"],
                headers=headers,
                content=content,
                timeout=httpx.Timeout(connect=connect, read=read, write=read, pool=connect),
            )
        except (httpx.InvalidURL, UnicodeError) as error:
            raise HttpNotSent(f"not a valid URL: {error}") from None

    def _next(self, request: httpx.Request, following: httpx.Request, where: str) -> httpx.Request:
        """The redirected request, without what must not go where it leads."""
        self._redirects += 1
        if self._redirects > self._given["follow_redirects"]:
            raise HttpRedirectRefused(f"{where}: more than {self._given['follow_redirects']} redirects")
        old, new = request.url, following.url
        if new.scheme not in ("http", "https"):
            raise HttpRedirectRefused(f"{where}: redirects to {new.scheme[:20]}:, which is neither http nor https")
        if new.userinfo:
            raise HttpRedirectRefused(f"{where}: redirects to a URL with a user or a password in it")
        if old.scheme == "https" and new.scheme == "http":
            raise HttpRedirectRefused(f"{where}: redirects from https to http")
        if _origin(old) != _origin(new):
            if following.read():
                raise HttpRedirectRefused(f"{where}: redirects a request with a body to another origin, {_origin(new)}")
            for name in self._given["headers"]:
                if name.lower() not in _HARMLESS_HEADERS:
                    following.headers.pop(name, None)
        return following

    def _concluded(self, response: httpx.Response, where: str) -> HttpResult:
        status = response.status_code
        expected = has_status(self._given["expect_status"], status)
        body, size, truncated = self._read(response, where, whole=expected)
        elapsed = time.monotonic() - self._began
        self._job.log("system", f"[{where}: {status}, {size} bytes in {elapsed:.3f} s]\n")
        if not expected:
            retryable = has_status(self._given["retry_status"], status)
            # What the status means, not what the server says that it means.
            what = f"{status} {responses.get(status, '')}".strip()
            tail = body.strip()[:ERROR_BODY_CHARACTERS]
            raise HttpStatusUnexpected(
                f"{what} from {where}" + (f": {tail}" if tail else ""),
                status,
                retryable=retryable,
                retry_after_seconds=retry_after_seconds(response.headers) if retryable else None,
            )
        headers = {
            name: self._hidden(response.headers[name])[:_HEADER_CHARACTERS_MAX]
            for name in _KEPT_HEADERS
            if name in response.headers
        }
        return HttpResult(status, headers, body, size, truncated, self._redirects, round(elapsed, 3))

    def _read(self, response: httpx.Response, where: str, *, whole: bool) -> tuple[str, int, bool]:
        """The body as kept, its size, and whether something is missing. Raises HttpResponseTooLarge.

        whole: false for an answer that fails the run anyhow: then no more is read than is kept.
        """
        most = self._given["response_bytes_max"]
        room = self._limits.body_bytes + _MARGIN_BYTES
        kept, size = bytearray(), 0
        for part in response.iter_raw():
            size += len(part)
            kept += part[: room - len(kept)]
            if not whole and size > room:
                break
            if whole and size > most:
                raise HttpResponseTooLarge(f"{where}: {response.status_code} with more than {most} bytes")
        text = self._hidden(_decoded(bytes(kept), response.headers.get("content-type", ""), final=size <= room))
        if size > room:
            # What could be the beginning of a secret.
            text = text[: max(0, len(text) - self._secret_characters_max)]
        fitting = _fitting(text, self._limits.body_bytes)
        truncated = size > room or len(fitting) < len(text)
        return fitting + (f"\n[truncated: the body has {size} bytes]" if truncated else ""), size, truncated

    def _reason(self, error: Exception) -> str:
        """What an error says; it may hold what the server sent."""
        return self._hidden(str(error))[:ERROR_BODY_CHARACTERS]

    def _hidden(self, text: str) -> str:
        """The text without the secrets that were sent: a server may repeat what it was told."""
        for secret in self._secrets:
            text = secret.sub("***", text)
        return text


def _own_headers(job: Job) -> dict[str, str]:
    return {
        "User-Agent": "Signalbox",
        "Accept": "*/*",
        "Accept-Encoding": "identity",
        "Connection": "close",
        "Signalbox-Run-Id": str(job.run_id),
        "Signalbox-Attempt": str(job.attempt),
        "Signalbox-Idempotency-Key": job.idempotency_key,
    }


def _secrets_of(headers: Mapping[str, str]) -> list[str]:
    """Values of headers that look secret, and their parts ("Bearer …", "name=…; …"); the longest first."""
    found: set[str] = set()
    for name, value in headers.items():
        if _SECRET_HEADER.search(name):
            parts = re.split(r"[\s;,]+", value)
            found |= {value, *parts, *(part.partition("=")[2].strip('"') for part in parts)}
    long = {part for part in found if len(part) >= _SECRET_CHARACTERS_MIN and part.lower() not in _SCHEMES}
    return sorted(long, key=lambda part: (-len(part), part))


def _written(character: str) -> str:
    """A pattern for a character of a secret, as it is and as JSON may hold it; values of headers are ASCII."""
    return character if character.isalnum() else rf"(?:\\?{re.escape(character)}|\\(?i:u{ord(character):04x}))"


def _written_length(character: str) -> int:
    """The most characters that `_written` can match."""
    return 1 if character.isalnum() else len(r"\u0000")


def _origin(url: httpx.URL) -> str:
    return f"{url.scheme}://{url.netloc.decode('ascii', 'replace')}"


def _decoded(data: bytes, content_type: str, *, final: bool) -> str:
    match = re.search(r"charset\s*=\s*[\"']?([A-Za-z0-9_.:-]{1,40})", content_type, re.IGNORECASE)
    charset = "utf-8"
    if match:
        try:
            named = codecs.lookup(match[1]).name
        except LookupError:
            named = charset
        charset = named if named in _CHARSETS else charset
    # Half a character at the end is broken text, unless it was us who cut it.
    return codecs.getincrementaldecoder(charset)("replace").decode(data, final=final).replace("\x00", "\ufffd")


def _fitting(text: str, bytes_max: int) -> str:
    """The longest beginning whose JSON text has at most so many bytes."""
    fits, too_long = 0, len(text) + 1
    middle = len(text)
    while too_long - fits > 1:
        if len(json.dumps(text[:middle], ensure_ascii=False).encode("utf-8", "replace")) - 2 <= bytes_max:
            fits = middle
        else:
            too_long = middle
        middle = (fits + too_long) // 2
    return text[:fits]


def _instant(text: str) -> datetime | None:
    try:
        read = parsedate_to_datetime(text)
    except (TypeError, ValueError, OverflowError):
        return None
    return read if read.tzinfo else read.replace(tzinfo=UTC)
