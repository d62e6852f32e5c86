"""The http executor with real servers on loopback: what they get, what comes back, where nothing goes, how it ends.

127.0.0.1 is allowed here as an operator would allow it; 127.0.0.2 is as forbidden as any loopback address.
"""

import json
import logging
import socket
import threading
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import pytest

from tests.integration.http_servers import certificate, dripping, said, serving, silent
from tests.processes import until
from tests.servers.process import free_port
from workers_app.addresses import AddressPolicy
from workers_app.executors.http import RETRY_AFTER_SECONDS_MAX, HttpLimits, retry_after_seconds, run_http
from workers_app.executors.http_errors import (
    HttpAddressRefused,
    HttpCertificateRefused,
    HttpNotSent,
    HttpRedirectRefused,
    HttpResponseTooLarge,
    HttpStatusUnexpected,
    HttpStopped,
    HttpTimedOut,
    HttpUnreachable,
)

ALLOWED = AddressPolicy(["127.0.0.1"])


class RecordingJob:
    """A job that keeps what it is told, and stops when its `reason` says so."""

    def __init__(self, seconds=None, reason=lambda: None):
        self.run_id, self.attempt, self.idempotency_key = 7, 2, "7:2"
        self.reason, self.chunks = reason, []
        self.began, self.seconds = time.monotonic(), seconds

    def log(self, stream, text):
        self.chunks.append((stream, text))

    def stop_requested(self):
        return self.reason()

    def remaining_seconds(self):
        return None if self.seconds is None else self.began + self.seconds - time.monotonic()


def ask(url, *, job=None, policy=ALLOWED, limits=None, **parameters):
    return run_http({"url": url} | parameters, job=job or RecordingJob(), policy=policy, limits=limits)


# -- what is sent, and what comes back ---------------------------------------------------------------


def test_an_expected_answer_is_the_result():
    with serving(said(200, "hello", Content_Type="text/plain", ETag='"1"', X_Other="no")) as server:
        job = RecordingJob()
        result = ask(server.url + "/a/b?c=d", job=job).as_json()
    assert result.pop("elapsed_seconds") >= 0
    assert result == {
        "status": 200, "body": "hello", "body_bytes": 5, "truncated": False, "redirects": 0,
        "headers": {"content-length": "5", "content-type": "text/plain", "etag": '"1"'},
    }  # fmt: skip
    [asked] = server.asked
    assert (asked.method, asked.target, asked.body) == ("GET", "/a/b?c=d", b"")
    assert asked.headers["host"] == server.address
    assert asked.headers["user-agent"] == "Signalbox"
    assert asked.headers["accept-encoding"] == "identity"
    assert asked.headers["signalbox-run-id"] == "7"
    assert asked.headers["signalbox-attempt"] == "2"
    assert asked.headers["signalbox-idempotency-key"] == "7:2"
    [(stream, line)] = job.chunks
    assert stream == "system"
    assert line.startswith(f"[GET {server.url}: 200, 5 bytes in ")


@pytest.mark.parametrize(
    ("parameters", "body", "content_type"),
    [
        ({"body": "text 中"}, "text 中".encode(), "text/plain; charset=utf-8"),
        ({"json": {"a": ["中", None]}}, '{"a": ["中", null]}'.encode(), "application/json"),
        ({"json": 0}, b"0", "application/json"),
        ({"body": "<a/>", "headers": {"content-type": "text/xml"}}, b"<a/>", "text/xml"),
    ],
    ids=str,
)
def test_a_body_arrives_with_its_type(parameters, body, content_type):
    with serving(said(201)) as server:
        assert ask(server.url, method="POST", **parameters).status == 201
    [asked] = server.asked
    assert (asked.method, asked.body, asked.headers["content-type"]) == ("POST", body, content_type)


def test_headers_of_the_user_arrive():
    with serving(said(200)) as server:
        ask(server.url, headers={"Authorization": "Bearer abc", "X-Own": "y", "User-Agent": "mine"})
    headers = server.asked[0].headers
    assert (headers["authorization"], headers["x-own"], headers["user-agent"]) == ("Bearer abc", "y", "mine")


def test_an_answer_to_head_has_no_body():
    with serving(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n") as server:
        assert ask(server.url, method="HEAD").body_bytes == 0


@pytest.mark.parametrize(
    ("data", "content_type", "text"),
    [
        (b"a\x00b\xff", "application/octet-stream", "a\ufffdb\ufffd"),
        ("备份".encode("gbk"), "text/html; charset=GBK", "备份"),
        (b"caf\xe9", 'text/plain; charset="latin-1"', "caf\xe9"),
        (b"x", "text/plain; charset=idna", "x"),
        (b"x", "text/plain; charset=no-such", "x"),
        (b"x", "text/plain; charset=zlib", "x"),
    ],
)
def test_any_body_becomes_text(data, content_type, text):
    with serving(said(200, data, Content_Type=content_type)) as server:
        assert ask(server.url).body == text


def test_a_long_body_is_kept_up_to_the_limit_with_a_mark():
    with serving(said(200, "\x01ä" * 500_000)) as server:
        result = ask(server.url, limits=HttpLimits(body_bytes=1000))
    text, mark, _ = result.body.rpartition("\n[truncated: the body has 1500000 bytes]")
    assert mark
    assert result.truncated
    assert result.body_bytes == 1_500_000
    # As JSON text, where a control character takes six bytes.
    assert 990 <= len(json.dumps(text, ensure_ascii=False).encode()) - 2 <= 1000


def test_a_body_that_just_fits_is_whole():
    with serving(said(200, "x" * 1000)) as server:
        result = ask(server.url, limits=HttpLimits(body_bytes=1000))
    assert (result.body, result.truncated) == ("x" * 1000, False)


@pytest.mark.parametrize("endless", [False, True])
def test_a_response_above_its_limit_fails_the_run_for_good(endless):
    with serving(dripping if endless else said(200, "x" * 100_000)) as server:
        with pytest.raises(HttpResponseTooLarge, match="more than 20 bytes") as failed:
            ask(server.url, response_bytes_max=20)
        assert failed.value.retryable is False
        if endless:
            until(server.hung_up.is_set, "the client hung up")


def test_of_an_answer_that_fails_the_run_no_more_is_read_than_is_kept():
    head = b"HTTP/1.1 503 Busy\r\nRetry-After: 9\r\nConnection: close\r\n\r\n"

    def endless(_asked, connection, server):
        connection.sendall(head)
        while not server.over.is_set():
            connection.sendall(b"busy" * 1000)

    with serving(endless) as server:
        with pytest.raises(HttpStatusUnexpected) as failed:
            ask(server.url, response_bytes_max=20)
        until(server.hung_up.is_set, "the client hung up")
    assert (failed.value.retryable, failed.value.retry_after_seconds) == (True, 9.0)


# -- statuses ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "parameters"),
    [(200, {}), (299, {}), (404, {"expect_status": 404}), (302, {"expect_status": ["300-399"]})],
)
def test_a_status_that_is_expected_completes(status, parameters):
    with serving(said(status, Location="/elsewhere")) as server:
        assert ask(server.url, **parameters).status == status
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("status", "retryable", "parameters"),
    [
        (429, True, {}), (502, True, {}), (503, True, {}), (504, True, {}),
        (400, False, {}), (401, False, {}), (404, False, {}), (408, False, {}), (422, False, {}),
        (500, False, {}), (501, False, {}), (302, False, {}), (200, False, {"expect_status": 201}),
        (500, True, {"retry_status": "500-599"}), (503, False, {"retry_status": []}),
    ],
)  # fmt: skip
def test_a_status_that_is_not_expected_fails_and_says_whether_to_try_again(status, retryable, parameters):
    with serving(said(status, "because", Retry_After="3", Location="/elsewhere")) as server:
        with pytest.raises(HttpStatusUnexpected) as failed:
            ask(server.url + "/path", **parameters)
    assert str(failed.value).startswith(f"{status} ")
    assert str(failed.value).endswith(f"from GET {server.url}: because")
    assert failed.value.retryable is retryable
    assert failed.value.retry_after_seconds == (3.0 if retryable else None)


NOW = datetime(2026, 11, 25, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120.0), (" 120 ", 120.0), ("0", None), ("-5", None), ("1.5", None), ("soon", None), ("", None),
        ("9" * 400, RETRY_AFTER_SECONDS_MAX), (format_datetime(NOW + timedelta(seconds=90), usegmt=True), 90.0),
        (format_datetime(NOW - timedelta(seconds=90), usegmt=True), None),
        (format_datetime(NOW + timedelta(days=900), usegmt=True), RETRY_AFTER_SECONDS_MAX),
        ("Wed, 99 Nov 2026 12:00:00 GMT", None), ("\u0661", None),
    ],
)  # fmt: skip
def test_retry_after_is_seconds_or_a_date_by_the_clock_of_the_server(value, seconds):
    headers = httpx.Headers([("Retry-After", value.encode()), ("Date", format_datetime(NOW, usegmt=True))])
    assert retry_after_seconds(headers) == seconds


def test_a_date_without_a_clock_of_the_server_is_taken_by_our_own():
    then = format_datetime(datetime.now(UTC) + timedelta(hours=2), usegmt=True)
    assert 7000 < retry_after_seconds(httpx.Headers({"Retry-After": then})) <= 7200


# -- servers that fail -------------------------------------------------------------------------------


def test_nobody_there_is_worth_another_attempt():
    with pytest.raises(HttpUnreachable, match="refused") as failed:
        ask(f"http://127.0.0.1:{free_port()}/")
    assert failed.value.retryable is True


@pytest.mark.parametrize(
    "answer",
    [
        b"", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: " + b"a" * 200_000,
    ],
    ids=["nothing", "half a body", "no HTTP", "a head without end"],
)  # fmt: skip
def test_an_answer_that_is_none_is_worth_another_attempt(answer):
    with serving(answer) as server:
        with pytest.raises(HttpUnreachable) as failed:
            ask(server.url)
    assert failed.value.retryable is True


def test_a_name_that_does_not_resolve_is_worth_another_attempt():
    with pytest.raises(HttpUnreachable, match="cannot be resolved") as failed:
        ask("http://nobody.invalid/")
    assert failed.value.retryable is True


def test_a_silent_server_is_not_waited_for_longer_than_the_read_timeout():
    with serving(silent) as server:
        with pytest.raises(HttpTimedOut, match="no data in time") as failed:
            ask(server.url, read_timeout_seconds=0.2)
        assert failed.value.retryable is True
        until(server.hung_up.is_set, "the client hung up")


def full_backlog():
    """A listening socket whose queue is full: connections to it stay half open."""
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen(0)
    filling = []
    for _ in range(4):
        filling.append(socket.socket())
        filling[-1].setblocking(False)
        filling[-1].connect_ex(listening.getsockname())
    return listening, filling


def test_a_connection_is_not_waited_for_longer_than_the_connect_timeout():
    listening, filling = full_backlog()
    with pytest.raises(HttpTimedOut, match="no connection in time"):
        ask(f"http://127.0.0.1:{listening.getsockname()[1]}/", connect_timeout_seconds=0.3)
    for each in (listening, *filling):
        each.close()


# -- stops and deadlines -------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [silent, dripping], ids=["silent", "dripping"])
@pytest.mark.parametrize("reason", ["cancel", "lease", "drain"])
def test_a_stop_ends_the_request_and_the_connection(answer, reason):
    with serving(answer) as server:
        with pytest.raises(HttpStopped) as stopped:
            ask(server.url, job=RecordingJob(reason=lambda: reason if server.asked else None))
        assert stopped.value.stop_reason == reason
        until(server.hung_up.is_set, "the client hung up")


@pytest.mark.parametrize("answer", [silent, dripping], ids=["silent", "dripping"])
def test_the_deadline_of_the_run_bounds_everything(answer):
    with serving(answer) as server:
        job = RecordingJob(seconds=1.0)
        with pytest.raises(HttpStopped) as stopped:
            ask(server.url, job=job)
        assert stopped.value.stop_reason == "timeout"
        until(server.hung_up.is_set, "the client hung up")


def test_a_stop_ends_a_connection_that_is_not_there_yet():
    listening, filling = full_backlog()
    looks = iter(range(1000))
    with pytest.raises(HttpStopped):
        ask(
            f"http://127.0.0.1:{listening.getsockname()[1]}/",
            job=RecordingJob(reason=lambda: "cancel" if next(looks) > 4 else None),
        )
    for each in (listening, *filling):
        each.close()


def test_a_stop_ends_an_upload_that_nobody_takes():
    looks = iter(range(1000))
    job = RecordingJob(reason=lambda: "cancel" if next(looks) > 20 else None)
    # What the other side does not read fills the buffers of both.
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        with pytest.raises(HttpStopped):
            ask(f"http://127.0.0.1:{deaf.getsockname()[1]}/", method="POST", body="x" * 30_000_000, job=job)


def test_a_stop_does_not_wait_for_the_resolver(monkeypatch):
    release = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: release.wait(60))
    looks = iter(range(1000))
    with pytest.raises(HttpStopped):
        ask("http://slow.example/", job=RecordingJob(reason=lambda: "cancel" if next(looks) > 2 else None))
    with pytest.raises(HttpTimedOut, match="could not be resolved in time"):
        ask("http://slow.example/", connect_timeout_seconds=0.2)
    release.set()


# -- where no request goes -----------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.2", "127.2", "2130706434", "0x7f000002", "0x7f.0x2", "[::ffff:127.0.0.2]"])
def test_a_forbidden_address_is_not_even_connected_to_however_it_is_written(host):
    with serving(said(200, "secret"), host="127.0.0.2") as server:
        with pytest.raises(HttpAddressRefused, match="loopback address") as failed:
            ask(server.named(host))
        assert failed.value.retryable is False
    assert server.accepted == 0


def test_loopback_is_forbidden_by_default_by_name_too():
    with serving(said(200, "secret")) as server:
        for host in ("localhost", "127.0.0.1", "0.0.0.0", "[::]"):
            with pytest.raises(HttpAddressRefused, match=r"(loopback|unspecified) address"):
                ask(server.named(host), policy=AddressPolicy())
    assert server.accepted == 0


def test_a_name_that_the_operator_allows_is_asked():
    with serving(said(200, "hello")) as server:
        assert ask(server.named("localhost"), policy=AddressPolicy(["localhost"])).body == "hello"
        with pytest.raises(HttpAddressRefused):
            ask(server.url, policy=AddressPolicy(["localhost"]))
    assert server.asked[0].headers["host"].startswith("localhost:")


@pytest.fixture
def resolves(monkeypatch):
    """Gives a name its addresses, one list for each time that somebody asks; returns the names that were asked for."""

    def resolve(*turns):
        real, left, asked = socket.getaddrinfo, list(turns), []

        def getaddrinfo(host, port, *rest, **more):
            if host != "name.example":
                return real(host, port, *rest, **more)
            asked.append(host)
            return [info for address in left.pop(0) for info in real(address, port, *rest, **more)]

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
        return asked

    return resolve


def test_a_name_that_points_to_a_forbidden_address_is_refused(resolves):
    resolves(["127.0.0.2"])
    with serving(said(200), host="127.0.0.2") as server:
        with pytest.raises(HttpAddressRefused, match=r'"name\.example" has a loopback address'):
            ask(server.named("name.example"))
    assert server.accepted == 0


def test_the_address_that_was_checked_is_the_one_that_is_asked(resolves):
    asked = resolves(["127.0.0.1"], ["127.0.0.2"])
    with serving(said(200, "right")) as server:
        assert ask(server.named("name.example")).body == "right"
    assert asked == ["name.example"]
    assert server.asked[0].headers["host"].startswith("name.example:")


def test_of_several_addresses_only_good_ones_are_tried(resolves):
    resolves(["127.0.0.2", "127.0.0.1"])
    with serving(said(200, "right")) as server:
        port = int(server.address.rpartition(":")[2])
        with socket.create_server(("127.0.0.2", port)) as forbidden:
            assert ask(server.named("name.example")).body == "right"
            forbidden.setblocking(False)
            with pytest.raises(BlockingIOError):
                forbidden.accept()


def test_the_next_address_is_tried_when_one_does_not_answer(resolves):
    resolves(["127.0.0.3", "127.0.0.1"])
    with serving(said(200, "right")) as server:
        policy = AddressPolicy(["127.0.0.1", "127.0.0.3"])
        assert ask(server.named("name.example"), policy=policy).body == "right"


# -- redirects ------------------------------------------------------------------------------------------


def test_redirects_are_followed_as_often_as_is_allowed():
    with serving(said(302, Location="/2"), said(307, Location="/3"), said(200, "there")) as server:
        result = ask(server.url + "/1", follow_redirects=2)
    assert (result.body, result.redirects) == ("there", 2)
    assert [asked.target for asked in server.asked] == ["/1", "/2", "/3"]


def test_more_redirects_than_allowed_fail_the_run():
    with serving(said(302, Location="/again")) as server:
        with pytest.raises(HttpRedirectRefused, match="more than 3 redirects") as failed:
            ask(server.url, follow_redirects=3)
    assert failed.value.retryable is False
    assert len(server.asked) == 4


def test_a_redirect_to_a_forbidden_address_is_refused():
    with serving(said(200, "secret"), host="127.0.0.2") as inside:
        with serving(said(302, Location=inside.url)) as server:
            with pytest.raises(HttpAddressRefused, match="loopback"):
                ask(server.url, follow_redirects=5)
    assert len(server.asked) == 1
    assert inside.accepted == 0


def test_a_redirect_is_resolved_and_checked_again(resolves):
    resolves(["127.0.0.1"], ["127.0.0.2"])
    with serving(said(302, Location="/again")) as server:
        with pytest.raises(HttpAddressRefused, match="loopback"):
            ask(server.named("name.example"), follow_redirects=5)
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("location", "word"),
    [
        ("file:///etc/passwd", "neither http nor https"),
        ("ftp://127.0.0.1/", "neither http nor https"),
        ("http://user:hush@127.0.0.1/", "user or a password"),
        ("http://127.0.0.1:x/", "no URL"),
        ("http://xn--zz--/", "no URL"),
    ],
)
def test_a_redirect_to_what_is_no_plain_url_is_refused(location, word):
    with serving(said(302, Location=location)) as server:
        with pytest.raises(HttpRedirectRefused, match=word) as failed:
            ask(server.url, follow_redirects=5)
    assert "hush" not in str(failed.value)
    assert len(server.asked) == 1


def test_secrets_go_to_no_other_origin():
    headers = {"Authorization": "Bearer hush", "X-Api-Key": "hush", "Cookie": "a=hush", "Accept": "text/plain"}
    with serving(said(200)) as other:
        with serving(said(303, Location=other.url), said(307, Location="/here"), said(200)) as server:
            ask(server.url, method="POST", headers=headers, body="x", follow_redirects=1)
            assert server.asked[0].headers["x-api-key"] == "hush"
            ask(server.url, headers={"X-Api-Key": "hush"}, follow_redirects=1)
    assert "hush" not in str(other.asked[0].headers)
    assert other.asked[0].headers["accept"] == "text/plain"
    assert (other.asked[0].method, other.asked[0].body) == ("GET", b"")
    # On the same origin they go on.
    assert server.asked[2].headers["x-api-key"] == "hush"


@pytest.mark.parametrize("given", [{"method": "POST", "body": "hush"}, {"json": {"a": "hush"}}])
def test_a_body_goes_to_no_other_origin(given):
    with serving(said(200)) as other:
        with serving(said(307, Location="/here"), said(308, Location=other.url)) as server:
            with pytest.raises(HttpRedirectRefused, match="body to another origin") as failed:
                ask(server.url, follow_redirects=5, **given)
    assert failed.value.retryable is False
    assert "hush" not in str(failed.value)
    assert b"hush" in server.asked[1].body
    assert other.accepted == 0


def test_without_a_body_any_method_goes_on_to_another_origin():
    with serving(said(200)) as other:
        with serving(said(307, Location=other.url)) as server:
            ask(server.url, method="POST", follow_redirects=1)
    assert other.asked[0].method == "POST"


# -- TLS -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    return certificate(tmp_path_factory.mktemp("tls"), "localhost", "DNS:localhost")


BY_NAME = AddressPolicy(["127.0.0.0/8", "::1"])


def test_a_self_signed_certificate_is_refused(own):
    with serving(said(200), tls=own.server()) as server:
        with pytest.raises(HttpCertificateRefused, match="self-signed") as failed:
            ask(server.named("localhost"), policy=BY_NAME)
    assert failed.value.retryable is False
    assert server.asked == []


def test_a_self_signed_certificate_will_do_where_none_is_checked(own):
    with serving(said(200, "hello"), tls=own.server()) as server:
        assert ask(server.named("localhost"), policy=BY_NAME, verify=False).body == "hello"


def test_the_operators_authority_is_trusted_and_the_name_is_what_is_checked(own):
    limits = HttpLimits(authorities_file=str(own.file))
    with serving(said(200, "hello" * 100_000), tls=own.server()) as server:
        assert ask(server.named("localhost"), policy=BY_NAME, limits=limits).body_bytes == 500_000
        with pytest.raises(HttpCertificateRefused, match=r"127\.0\.0\.1"):
            ask(server.url, policy=BY_NAME, limits=limits)
    assert server.server_names[0] == "localhost"


def test_a_stop_ends_a_request_over_tls(own):
    with serving(silent, tls=own.server()) as server:
        job = RecordingJob(reason=lambda: "cancel" if server.asked else None)
        with pytest.raises(HttpStopped):
            ask(server.named("localhost"), policy=BY_NAME, verify=False, job=job)


def test_a_handshake_that_nobody_answers_times_out():
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        with pytest.raises(HttpTimedOut, match="no TLS in time"):
            ask(f"https://127.0.0.1:{deaf.getsockname()[1]}/", connect_timeout_seconds=0.3)


def test_a_redirect_from_https_to_http_is_refused(own):
    with serving(said(200)) as plain:
        with serving(said(302, Location=plain.url), tls=own.server()) as server:
            with pytest.raises(HttpRedirectRefused, match="from https to http"):
                ask(server.named("localhost"), policy=BY_NAME, verify=False, follow_redirects=5)
    assert plain.accepted == 0


def test_authorities_that_cannot_be_read_are_named():
    with pytest.raises(HttpNotSent, match="/no/such"):
        ask("https://127.0.0.1/", limits=HttpLimits(authorities_file="/no/such"))


# -- what does not leak, in or out -------------------------------------------------------------------------


def test_the_environment_has_no_say(own, monkeypatch, tmp_path):
    nowhere = f"http://127.0.0.1:{free_port()}"
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, nowhere)
    netrc = tmp_path / "netrc"
    netrc.write_text("default login me password hush\n")
    keys = tmp_path / "keys"
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("SSL_CERT_FILE", str(own.file))
    monkeypatch.setenv("SSLKEYLOGFILE", str(keys))
    with serving(said(200)) as server:
        ask(server.url)
    assert "authorization" not in server.asked[0].headers
    with serving(said(200), tls=own.server()) as server:
        with pytest.raises(HttpCertificateRefused):
            ask(server.named("localhost"), policy=BY_NAME)
        ask(server.named("localhost"), policy=BY_NAME, verify=False)
    assert not keys.exists()


def echo(status):
    """Says back all that it heard."""

    def answer(asked, connection, _server):
        heard = json.dumps(asked.headers)
        connection.sendall(
            said(status, heard, X_Request_Id=asked.headers["authorization"], Set_Cookie="own=hush-cookie")
        )

    return answer


@pytest.mark.parametrize("status", [200, 400])
def test_secrets_appear_in_no_result_error_or_log(status, caplog):
    caplog.set_level(logging.DEBUG)
    job = RecordingJob()
    headers = {"Authorization": "Bearer hush-token", "Cookie": "session=hush-session; b=c", "X-Api-Key": "hush-key"}
    with serving(echo(status)) as server:
        try:
            seen = json.dumps(ask(server.url + "/hush-path?key=hush-query", job=job, headers=headers).as_json())
        except HttpStatusUnexpected as failed:
            seen = repr(failed) + str(failed.__cause__)
    assert "hush" in str(server.asked[0].headers)
    assert "user-agent" in seen
    assert "hush" not in seen
    assert "hush" not in str(job.chunks)
    assert "hush" not in caplog.text


def test_a_secret_in_an_answer_that_is_no_http_is_hidden(caplog):
    caplog.set_level(logging.DEBUG)

    def answer(asked, connection, _server):
        connection.sendall(f"HTTP/1.1 200 OK\r\n{asked.headers['authorization']}\r\n\r\n".encode())

    with serving(answer) as server:
        with pytest.raises(HttpUnreachable, match="illegal header line") as failed:
            ask(server.url, headers={"Authorization": "Bearer hush-token"})
    assert "hush" not in str(failed.value) + caplog.text


@pytest.mark.parametrize("apart", [0, 900])
def test_a_secret_at_the_cut_is_hidden_too(apart):
    secret = "hush" * 50
    with serving(said(200, ("x" * apart + secret) * 100)) as server:
        for size in (890, 950, 1000, 1100):
            result = ask(server.url, headers={"X-Token": secret}, limits=HttpLimits(body_bytes=size))
            assert result.truncated
            assert "hush" not in result.body


@pytest.mark.parametrize("said_back", [
    r"Aa+/=<b>",  # as it was sent
    r"Aa+\/=<b>",  # PHP
    r"Aa\u002B/=\u003Cb\u003E",  # .NET
    r"Aa+/\u003d\u003cb\u003e",  # Java
])  # fmt: skip
def test_a_secret_is_hidden_however_a_server_writes_it_as_json(said_back):
    with serving(said(200, f'{{"token": "{said_back}", "other": "a\\/b"}}')) as server:
        result = ask(server.url, headers={"Authorization": "Bearer Aa+/=<b>"})
    assert result.body == '{"token": "***", "other": "a\\/b"}'


def test_half_of_a_secret_that_is_written_as_json_is_hidden_at_the_cut():
    with serving(said(200, r"\u002f" * 5000)) as server:
        result = ask(server.url, headers={"X-Token": "/" * 1400}, limits=HttpLimits(body_bytes=100))
    assert "u002f" not in result.body


def test_wrong_parameters_are_refused_here_too():
    with pytest.raises(HttpNotSent, match="url"):
        run_http({"url": "ftp://x"}, job=RecordingJob(), policy=ALLOWED)


def test_a_host_that_is_no_name_is_refused():
    with pytest.raises(HttpNotSent, match="not a valid URL"):
        ask("http://xn--zz--/")
