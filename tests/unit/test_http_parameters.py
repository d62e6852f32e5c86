"""What an HTTP request's parameters may be."""

import pytest

from tasks_app.http_parameters import check_parameters, completed, has_status, without_secrets

URL = {"url": "https://example.org/a?b=c"}


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"method": "DELETE", "headers": {"X-Empty": "", "Authorization": "Bearer a b", "Accept": "a/b;q=0.1"}},
        {"method": "POST", "body": "text\r\nof any kind 中"},
        {"method": "POST", "json": {"a": [1, None]}},
        {"json": False},
        {"expect_status": 204},
        {"expect_status": "200-204"},
        {"expect_status": [200, "300-399"], "retry_status": []},
        {
            "connect_timeout_seconds": 0.5,
            "read_timeout_seconds": 86400,
            "response_bytes_max": 1,
            "follow_redirects": 10,
        },
        {"verify": False},
        dict.fromkeys(("method", "headers", "body", "json", "expect_status", "follow_redirects", "verify")),
        {"url": "http://[2001:db8::1]:8080/"},
        {"url": "http://例子.测试/路"},
        {"url": "https://example.org"},
    ],
    ids=str,
)
def test_good_parameters_have_no_problems(parameters):
    assert check_parameters(URL | parameters) == []


@pytest.mark.parametrize(
    ("parameters", "word"),
    [
        ({"url": None}, "begins with http"),
        ({"url": 3}, "begins with http"),
        ({"url": ""}, "begins with http"),
        ({"url": "example.org"}, "begins with http"),
        ({"url": "ftp://example.org"}, "begins with http"),
        ({"url": "file:///etc/passwd"}, "begins with http"),
        ({"url": "http://"}, "no host"),
        ({"url": "http://:80/"}, "no host"),
        ({"url": "http://user@example.org"}, "user or a password"),
        ({"url": "http://user:hush@example.org"}, "user or a password"),
        ({"url": "http://@example.org"}, "user or a password"),
        ({"url": "http://example.org:99999/"}, "valid URL"),
        ({"url": "http://example.org:0/"}, "valid URL"),
        ({"url": "http://example.org:x/"}, "valid URL"),
        ({"url": "http://[::1"}, "valid URL"),
        ({"url": "http://example.org/a b"}, "percent-encoded"),
        ({"url": "http://example.org/\n"}, "percent-encoded"),
        ({"url": "http://a.example\\@b.example/"}, "percent-encoded"),
        ({"url": "http://example.org/\ud800"}, "percent-encoded"),
        ({"url": "http://example.org/" + "a" * 8000}, "at most"),
        ({"method": "get"}, "method"),
        ({"method": "CONNECT"}, "method"),
        ({"method": ["GET"]}, "method"),
        ({"headers": ["A"]}, "headers"),
        ({"headers": {"A": 1}}, "headers"),
        ({"headers": {"": "x"}}, "name of a header"),
        ({"headers": {"A:": "x"}}, "name of a header"),
        ({"headers": {"A\r\nB": "x"}}, "name of a header"),
        ({"headers": {"A": "hush\r\nB: c"}}, '"A" must be one line'),
        ({"headers": {"A": "hush\n"}}, '"A" must be one line'),
        ({"headers": {"A": " hush"}}, '"A" must be one line'),
        ({"headers": {"A": "hush\u00e9"}}, '"A" must be one line'),
        ({"headers": {"Host": "hush"}}, '"Host" cannot be set'),
        ({"headers": {"content-length": "3"}}, "cannot be set"),
        ({"headers": {"Transfer-Encoding": "chunked"}}, "cannot be set"),
        ({"headers": {"Signalbox-Run-Id": "1"}}, "cannot be set"),
        ({"headers": {"A": "x", "a": "y"}}, "given twice"),
        ({"body": {"a": 1}}, '"body" must be a text'),
        ({"body": "a", "json": 1}, "not both"),
        ({"body": "\ud800"}, "Unicode"),
        ({"expect_status": 99}, "expect_status"),
        ({"expect_status": 600}, "expect_status"),
        ({"expect_status": True}, "expect_status"),
        ({"expect_status": "2xx"}, "expect_status"),
        ({"expect_status": "300-200"}, "expect_status"),
        ({"retry_status": [500, "x"]}, "retry_status"),
        ({"connect_timeout_seconds": 0}, "connect_timeout_seconds"),
        ({"connect_timeout_seconds": "3"}, "connect_timeout_seconds"),
        ({"read_timeout_seconds": float("nan")}, "read_timeout_seconds"),
        ({"response_bytes_max": 0}, "response_bytes_max"),
        ({"response_bytes_max": 1.5}, "response_bytes_max"),
        ({"follow_redirects": True}, "follow_redirects"),
        ({"follow_redirects": 11}, "follow_redirects"),
        ({"verify": "no"}, "verify"),
        ({"timeout": 3}, "unknown parameter 'timeout'"),
    ],
    ids=str,
)
def test_bad_parameters_are_named_and_no_value_is_repeated(parameters, word):
    problems = check_parameters(URL | parameters)
    assert len(problems) == 1
    assert word in problems[0]
    assert "hush" not in problems[0]


def test_what_is_not_given_has_a_default_and_null_is_not_given():
    given = completed(URL | {"method": None, "expect_status": [404], "json": None})
    assert (given["method"], given["follow_redirects"], given["verify"]) == ("GET", 0, True)
    assert given["expect_status"] == [404]
    assert "json" not in given


@pytest.mark.parametrize(
    ("statuses", "inside", "outside"),
    [(204, {204}, {200, 205}), ("200-299", {200, 299}, {199, 300}), ([404, "500-502"], {404, 500, 502}, {403, 503})],
)
def test_codes_and_ranges_say_which_statuses_they_hold(statuses, inside, outside):
    assert all(has_status(statuses, status) for status in inside)
    assert not any(has_status(statuses, status) for status in outside)


def test_what_others_may_see_holds_no_secret():
    shown = without_secrets(
        {
            "url": "https://example.org/a?key=hush#hush",
            "headers": {"Authorization": "Bearer hush"},
            "json": {"a": "hush"},
        }
    )
    assert shown == {"url": "https://example.org/a", "headers": {"Authorization": "***"}, "json": "***"}
