"""A log of ten megabytes and a result of one: read in pages, shown by their beginning, never carried along."""

import json
import random
import re

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from scheduler_project.console.pages.log import PAGE_BYTES, SHOWN_BYTES_MAX
from tasks_app import admission, logs, results, services
from tasks_app.clock import clock
from tasks_app.conf import conf
from tasks_app.models import RunLogChunk, TaskRun
from tests.integration.faces import Api, a_task, as_from_a_shell, ended, running, user

pytestmark = pytest.mark.django_db

CHUNK = 16 * 1024
#: 640 chunks of 16 KiB are ten megabytes.
CHUNKS = 640
VIEWS = ("tasks_app.view_taskrun", "tasks_app.view_task")


@pytest.fixture(autouse=True)
def fresh_backlog():
    admission.forget()


@pytest.fixture
def api():
    return Api(user(superuser=True))


@pytest.fixture
def console():
    client = Client(raise_request_exception=False)
    client.force_login(user("eve", may=VIEWS))
    return client


@pytest.fixture
def manage(capsys, monkeypatch):
    return as_from_a_shell(capsys, monkeypatch)


def line_of(number):
    return f"[{number:04d}] "


def write(run, first, last, *, attempt=1, size=CHUNK):
    """Chunks of exactly `size` bytes, each with its number in front, of characters that take three bytes."""
    rows = []
    for seq in range(first, last + 1):
        head = line_of(seq)
        rest = size - len(head) - 1
        text = head + "一" * (rest // 3) + "x" * (rest % 3) + "\n"
        assert len(text.encode()) == size
        rows.append(
            RunLogChunk(
                run=run, attempt=attempt, seq=seq, stream="stdout", text=text, token=run.correlation_id, at=clock.now()
            )
        )
    RunLogChunk.objects.bulk_create(rows)


@pytest.fixture
def written():
    """A running run that wrote ten megabytes."""
    run = running(services.trigger(a_task()))
    write(run, 1, CHUNKS)
    return run


def numbers(text):
    return [int(found) for found in re.findall(r"\[(\d{4})\]", text)]


def of_page(body):
    return [number for one in body["chunks"] for number in numbers(one["text"])]


# --- the log


def test_a_log_of_ten_megabytes_is_read_in_pages_of_bounded_size(api, written):
    seen, after, pages = [], 0, 0
    while True:
        response = api("GET", f"runs/{written.pk}/log?after={after}")
        assert len(response.content) < 2.5 * logs.PAGE_BYTES  # the characters are escaped as JSON does
        body = response.body
        if not body["chunks"]:
            break
        assert sum(len(one["text"].encode()) for one in body["chunks"]) <= logs.PAGE_BYTES
        assert body["more"] is (of_page(body)[-1] != CHUNKS)
        seen += of_page(body)
        after, pages = body["next"], pages + 1
    assert seen == list(range(1, CHUNKS + 1))
    assert pages == CHUNKS * CHUNK // logs.PAGE_BYTES
    # Only what is new since:
    write(written, CHUNKS + 1, CHUNKS + 2)
    assert of_page(api("GET", f"runs/{written.pk}/log?after={after}").body) == [CHUNKS + 1, CHUNKS + 2]


def test_a_log_is_read_from_its_end_and_backwards(api, written):
    body = api("GET", f"runs/{written.pk}/log?tail=true&bytes={4 * CHUNK}").body
    assert of_page(body) == list(range(CHUNKS - 3, CHUNKS + 1))
    assert (body["more"], body["complete"]) == (False, False)
    end = body["next"]
    older = api("GET", f"runs/{written.pk}/log?before={body['previous']}&bytes={2 * CHUNK}").body
    assert of_page(older) == [CHUNKS - 5, CHUNKS - 4]
    # Forward again from there is what was seen first.
    assert of_page(api("GET", f"runs/{written.pk}/log?after={older['next']}").body) == of_page(body)
    seen = []
    while older["previous"] is not None:
        seen = of_page(older) + seen
        older = api("GET", f"runs/{written.pk}/log?before={older['previous']}").body
    assert of_page(older) + seen == list(range(1, CHUNKS - 3))
    write(written, CHUNKS + 1, CHUNKS + 1)
    assert of_page(api("GET", f"runs/{written.pk}/log?after={end}").body) == [CHUNKS + 1]


def test_the_end_of_a_log_spans_attempts(api):
    run = running(services.trigger(a_task()))
    write(run, 1, 3, attempt=1)
    write(run, 1, 2, attempt=2)
    body = api("GET", f"runs/{run.pk}/log?tail=1&bytes={3 * CHUNK}").body
    assert [(one["attempt"], of_page({"chunks": [one]})) for one in body["chunks"]] == [(1, [3]), (2, [1]), (2, [2])]
    older = api("GET", f"runs/{run.pk}/log?before={body['previous']}").body
    assert (of_page(older), older["previous"]) == ([1, 2], None)


def test_a_chunk_larger_than_a_page_is_a_page(api):
    run = running(services.trigger(a_task()))
    write(run, 1, 2)
    for place in ("after=0", "tail=true"):
        assert len(api("GET", f"runs/{run.pk}/log?{place}&bytes=1").body["chunks"]) == 1


def test_a_page_reads_the_text_of_its_own_chunks_alone(written):
    for read in (
        lambda: logs.read_log(written, after=0, now=clock.now()),
        lambda: logs.read_tail(written, now=clock.now()),
        lambda: logs.read_before(written, before=logs.offset_of(1, 600)),
    ):
        with CaptureQueriesContext(connection) as asked:
            page = read()
        [texts] = [
            query["sql"] for query in asked
            if "runlogchunk" in query["sql"] and "LENGTH(" not in query["sql"].upper()
        ]  # fmt: skip
        with connection.cursor() as cursor:
            cursor.execute(texts)
            assert len(cursor.fetchall()) == len(page.chunks) == logs.PAGE_BYTES // CHUNK


@pytest.mark.parametrize(
    "query", ["tail=no", "tail=true&after=3", "before=x", "bytes=0", "bytes=99999999", "bytes=x", "limit=3", "before="]
)
def test_a_place_in_the_log_that_is_none_is_refused(api, written, query):
    response = api("GET", f"runs/{written.pk}/log?{query}")
    assert (response.status_code, response.body["code"]) == (400, "request.malformed")


def test_the_end_of_an_empty_log_is_empty(api):
    run = services.trigger(a_task())
    body = api("GET", f"runs/{run.pk}/log?tail=true").body
    assert (body["chunks"], body["next"], body["previous"], body["more"]) == ([], 0, None, False)


def test_the_command_begins_at_the_end_goes_on_and_looks_back(manage, written):
    number = str(written.pk)
    code, out, _ = manage("run", "log", number)
    assert (code, numbers(out)) == (0, list(range(1, CHUNKS + 1)))
    code, out, _ = manage("run", "log", number, "--tail", str(2 * CHUNK))
    assert (code, numbers(out)) == (0, [CHUNKS - 1, CHUNKS])
    page = json.loads(manage("run", "log", number, "--tail", str(2 * CHUNK), "-o", "json")[1])
    assert of_page(page) == [CHUNKS - 1, CHUNKS]
    assert numbers(manage("run", "log", number, "--after", str(page["next"]))[1]) == []
    write(written, CHUNKS + 1, CHUNKS + 1)
    assert numbers(manage("run", "log", number, "--after", str(page["next"]))[1]) == [CHUNKS + 1]
    older = numbers(manage("run", "log", number, "--before", str(page["previous"]))[1])
    assert older == list(range(CHUNKS - 1 - logs.PAGE_BYTES // CHUNK, CHUNKS - 1))


def test_the_command_follows_from_the_end(manage):
    run = ended(services.trigger(a_task()))
    write(run, 1, 3)
    code, out, _ = manage("run", "log", str(run.pk), "--tail", str(CHUNK), "--follow", "--timeout", "30")
    assert (code, numbers(out)) == (0, [3])


@pytest.mark.parametrize(
    "words", [("--tail", "0"), ("--after", "x"), ("--tail", "9", "--after", "3"), ("--follow", "-o", "json")]
)
def test_wrong_places_on_the_command_line_are_usage_errors(manage, written, words):
    assert manage("run", "log", str(written.pk), *words)[0] == 2


def test_the_page_of_a_run_stays_small_and_pages_on(console, written):
    page = console.get(f"/console/runs/{written.pk}/").content.decode()
    assert len(page.encode()) < PAGE_BYTES + 40_000
    shown = numbers(page)
    assert shown == list(range(1, PAGE_BYTES // CHUNK + 1))
    # The link works without scripts, the part with them; each goes on where the page ended.
    [(link, part)] = re.findall(r'id="log-more"><a href="([^"]+)" hx-get="([^"]+)"', page)
    assert numbers(console.get(link).content.decode())[0] == shown[-1] + 1
    body = page
    while part:
        body = console.get(part.replace("&amp;", "&"), headers={"HX-Request": "true"}).content.decode()
        assert len(body.encode()) < PAGE_BYTES + 2000
        assert numbers(body)[0] == shown[-1] + 1
        shown += numbers(body)
        found = re.findall(r'id="log-more"><a href="[^"]+" hx-get="([^"]+)"', body)
        part = found[0] if found else ""
    # One page of the browser takes no more than this; from here on the way leads to a page of its own.
    assert shown[-1] * CHUNK == SHOWN_BYTES_MAX
    [link] = re.findall(r'id="log-more"><a href="([^"]+)">', body)
    assert numbers(console.get(link).content.decode())[0] == shown[-1] + 1


def test_the_console_shows_the_end_of_a_log_what_stands_before_it_and_what_comes(console, written):
    page = console.get(f"/console/runs/{written.pk}/").content.decode()
    assert f'href="/console/runs/{written.pk}/?tail=1"' in page
    page = console.get(f"/console/runs/{written.pk}/?tail=1").content.decode()
    shown = numbers(page)
    assert shown == list(range(CHUNKS + 1 - PAGE_BYTES // CHUNK, CHUNKS + 1))
    [(link, part)] = re.findall(r'id="log-before"><a href="([^"]+)" hx-get="([^"]+)"', page)
    for address in (link, part.replace("&amp;", "&")):
        assert numbers(console.get(address).content.decode())[-1] == shown[0] - 1
    assert "log-more" not in console.get(part.replace("&amp;", "&")).content.decode()
    # It is live: what is new is appended, and nothing else.
    [live] = re.findall(r'id="log-more" data-live="busy" hx-get="([^"]+)"', page)
    write(written, CHUNKS + 1, CHUNKS + 1)
    assert numbers(console.get(live.replace("&amp;", "&")).content.decode()) == [CHUNKS + 1]


def test_a_page_that_has_enough_stops_to_grow_and_says_where_it_goes_on(console):
    run = running(services.trigger(a_task()))
    write(run, 1, 1)
    after = logs.offset_of(1, 1)
    body = console.get(f"/console/runs/{run.pk}/log/?after={after}&shown={SHOWN_BYTES_MAX}").content.decode()
    assert "data-live" not in body
    assert f'<a href="/console/runs/{run.pk}/?tail=1">' in body


@pytest.mark.parametrize("query", ["after=" + "9" * 18, "before=" + "9" * 18, "before=x", "tail=x", "shown=-1"])
def test_nonsense_in_the_address_of_a_log_is_harmless(console, written, query):
    for address in (f"/console/runs/{written.pk}/?{query}", f"/console/runs/{written.pk}/log/?{query}"):
        response = console.get(address)
        assert response.status_code == 200
        assert len(response.content) < PAGE_BYTES + 40_000


# --- the result

#: Half a megabyte of JSON that no compression makes small.
LARGE = {"rows": [f"{random.Random(7).getrandbits(400):x}"] * 2 + [f"{n:0500d}" for n in range(1000)], "name": "名"}


def finished(value, name="backup"):
    run = ended(services.trigger(a_task(name)), result_json=json.dumps(value, ensure_ascii=False))
    run.refresh_from_db()
    assert run.result == value
    return run


def test_a_small_result_is_part_of_the_run(api):
    run = finished({"rows": 3})
    body = api("GET", f"runs/{run.pk}").body
    assert (body["result"], body["result_omitted"]) == ({"rows": 3}, None)


@pytest.mark.parametrize("value", [None, 0, "", False, [], {}])
def test_a_result_that_is_empty_is_what_it_is(api, value):
    run = ended(services.trigger(a_task()), result_json=None if value is None else json.dumps(value))
    body = api("GET", f"runs/{run.pk}").body
    assert body["result"] == value
    assert type(body["result"]) is type(value)
    assert body["result_omitted"] is None


def test_a_result_at_the_bound_is_carried_and_one_beyond_it_is_not(api):
    for size, large in ((results.INLINE_BYTES - 2, False), (results.INLINE_BYTES - 1, True)):
        body = api("GET", f"runs/{finished('x' * size, name=f'report-{size}').pk}").body
        assert (body["result"] is None, body["result_omitted"] is not None) == (large, large)


def test_a_large_result_is_shown_by_its_beginning_and_has_an_address_of_its_own(api):
    run = finished(LARGE)
    with CaptureQueriesContext(connection) as asked:
        response = api("GET", f"runs/{run.pk}")
    assert not [query for query in asked if '"result" FROM' in query["sql"]]
    assert len(response.content) < 10_000
    body = response.body
    assert body["result"] is None
    omitted = body["result_omitted"]
    assert omitted["url"] == f"/api/v1/runs/{run.pk}/result"
    assert 500_000 < omitted["bytes"] < 600_000
    assert len(omitted["head"]) == results.HEAD_CHARACTERS
    assert omitted["head"].startswith("{")
    whole = api.client.get(omitted["url"], headers=api.headers)
    assert whole.streaming
    assert (whole["Content-Type"], whole["X-Content-Type-Options"]) == ("application/json", "nosniff")
    assert whole["Content-Disposition"] == f'attachment; filename="run-{run.pk}-result.json"'
    parts = list(whole.streaming_content)
    assert len(parts) > 5
    data = b"".join(parts)
    assert len(data) == int(whole["Content-Length"]) == omitted["bytes"]
    assert json.loads(data) == LARGE


def test_a_run_that_has_no_result_has_an_empty_one_at_its_address(api):
    run = services.trigger(a_task())
    assert api.client.get(f"/api/v1/runs/{run.pk}/result", headers=api.headers).getvalue() == b"null"
    assert api("GET", "runs/999999/result").body["code"] == "run.not_found"


def test_a_result_is_for_those_who_may_see_runs():
    run = finished(LARGE)
    assert Api(user("joe"))("GET", f"runs/{run.pk}/result").status_code == 403
    client = Client()
    client.force_login(user("jim"))
    assert client.get(f"/console/runs/{run.pk}/result/").status_code == 403
    assert Client().get(f"/console/runs/{run.pk}/result/").status_code == 302


def test_no_list_and_no_other_part_of_a_run_carries_a_result(api, console):
    run = finished(LARGE)
    for path in ("runs", f"tasks/{run.task_id}/runs", f"runs/{run.pk}/attempts", f"runs/{run.pk}/events",
                 f"runs/{run.pk}/log", f"runs/{run.pk}/why"):  # fmt: skip
        with CaptureQueriesContext(connection) as asked:
            assert len(api("GET", path).content) < 10_000
        assert not [query for query in asked if '"result" FROM' in query["sql"]]
    for path in ("", "runs/", f"tasks/{run.task_id}/"):
        assert len(console.get(f"/console/{path}").content) < 60_000


def test_the_console_shows_how_a_large_result_begins_and_links_to_the_whole(console):
    run = finished(LARGE)
    page = console.get(f"/console/runs/{run.pk}/").content.decode()
    assert len(page) < 60_000
    [address] = re.findall(r'id="whole-result" href="([^"]+)"', page)
    assert "KB" in page
    assert json.loads(console.get(address).getvalue()) == LARGE
    part = console.get(f"/console/runs/{run.pk}/", headers={"HX-Request": "true"}).content
    assert len(part) < 30_000


def test_the_command_shows_how_a_large_result_begins_and_prints_the_whole(manage):
    run = finished(LARGE)
    shown = json.loads(manage("run", "show", str(run.pk), "-o", "json")[1])
    assert shown["result"] is None
    assert shown["result_omitted"]["bytes"] > 500_000
    code, out, _ = manage("run", "result", str(run.pk))
    assert (code, json.loads(out)) == (0, LARGE)
    assert manage("run", "result", "999999")[0] == 1


def test_who_asks_a_run_for_its_large_result_gets_it():
    run = finished(LARGE)
    assert services.find_run(run.pk).result == LARGE
    assert TaskRun.objects.get(pk=run.pk).result == LARGE


def test_results_up_to_a_megabyte_are_kept():
    assert conf().result_bytes_max == 1024 * 1024
