"""The console in a real browser: what pages weigh, their policy and accessibility, that they live, and no scripts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import expect

from tests.console.measuring import LOOKS, complaints, seen
from tests.console.site import CONSOLE, Site, browser, logged_in, site

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(400)]

REQUESTS_MAX = 10
BYTES_MAX = 60 * 1024
#: How long to wait for what should happen soon; nothing is measured by it.
PATIENCE_MS = 40_000


@pytest.fixture(scope="module")
def here(chromium: str, valkey: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A site with a day's work in it."""
    folder = tmp_path_factory.mktemp("console")
    broker = valkey.url.rsplit("/", 1)[0] + "/6"
    with site(folder, f"sqlite:///{folder / 'console.sqlite3'}", broker) as made:
        yield made


@pytest.fixture(scope="module")
def started(chromium: str) -> Iterator[Any]:
    """A browser."""
    with browser(chromium) as found:
        yield found


@pytest.fixture
def ada(here: Site, started: Any) -> Iterator[Any]:
    """A page of somebody who is logged in; every error in it is an error of the test."""
    context = logged_in(here, started)
    page = context.new_page()
    errors = complaints(page)
    yield page
    context.close()
    assert errors == []


@pytest.mark.parametrize(("theme", "language"), LOOKS)
def test_every_page_is_light_keeps_to_the_policy_and_is_accessible(here, started, theme, language):
    pages = list(seen(here, started, theme, language))
    assert len(pages) == len(here.pages)
    for page in pages:
        assert page.shown == (theme, language), page.label
        assert page.complaints == [], page.label
        assert page.findings == [], page.label
        assert set(page.requests) == {urlsplit(here.address).netloc}, page.label
        assert len(page.requests) <= REQUESTS_MAX, page.label
        assert 1000 < page.wire_bytes <= BYTES_MAX, page.label


def test_the_badge_turns_stale_when_the_server_dies_and_recovers(here, started):
    context = logged_in(here, started)
    page = context.new_page()
    page.goto(f"{here.address}{CONSOLE}runs/")
    expect(page.locator("#badge")).to_contain_text("live", timeout=PATIENCE_MS)
    here.kill()
    try:
        page.wait_for_selector("#badge.stale", timeout=PATIENCE_MS)
        assert page.inner_text("#badge") == "STALE"
        # What was there last is still there to be read.
        assert page.locator("#rows tbody tr").count() == 50
    finally:
        here.start()
    expect(page.locator("#badge")).to_contain_text("live", timeout=PATIENCE_MS)
    expect(page.locator("#badge")).to_have_class("badge")
    context.close()


def test_a_list_says_how_many_are_new_and_shows_them_at_a_key(here, ada):
    ada.goto(f"{here.address}{CONSOLE}runs/?q=report")
    ada.wait_for_selector(".empty")
    here.run("manage.py", "run", "trigger", "report.monthly sales")
    ada.wait_for_selector("#news", timeout=PATIENCE_MS)
    assert ada.inner_text("#news").startswith("1")
    ada.keyboard.press(".")
    ada.wait_for_selector("#rows tbody tr")
    assert ada.url.endswith("?q=report")


def test_a_run_changes_before_the_readers_eyes(here, ada):
    triggered = here.run("manage.py", "run", "trigger", "image.resize", "-o", "json")
    number = json.loads(triggered)["id"]
    ada.goto(f"{here.address}{CONSOLE}runs/{number}/")
    assert "Pending" in ada.inner_text(".bar .state")
    here.run("manage.py", "run", "cancel", str(number))
    ada.wait_for_selector(".bar .state.t-quiet", timeout=PATIENCE_MS)
    assert "It was cancelled." in ada.inner_text(".why")
    ada.click("text=Retry")
    ada.wait_for_url(lambda url: url != f"{here.address}{CONSOLE}runs/{number}/")
    assert "Pending" in ada.inner_text(".bar .state")


def test_a_log_of_ten_megabytes_stays_a_small_page_and_pages_on(here, ada):
    number = here.run("-m", "tests.console.long_log").strip()
    weight = []
    ada.on("response", lambda response: weight.append(len(response.body())) if f"/{number}/" in response.url else None)
    ada.goto(f"{here.address}{CONSOLE}runs/{number}/")
    assert 64 * 1024 <= len(ada.inner_text(".log")) < 70 * 1024
    ada.click("text=More of the log")
    ada.wait_for_function("document.querySelector('.log').innerText.length > 120 * 1024")
    assert ada.inner_text(".log").startswith("Attempt 1")
    ada.click("text=its end")
    ada.wait_for_url("**/?tail=1")
    assert "[0640]" in ada.inner_text(".log")
    assert "[0636]" not in ada.inner_text(".log")
    ada.click("text=What stands before it")
    ada.wait_for_function("document.querySelector('.log').innerText.includes('[0636]')")
    log = ada.inner_text(".log")
    assert log.index("[0636]") < log.index("[0637]") < log.index("[0640]")
    # Ten megabytes are there; what the browser was sent for any of this is a page each time.
    assert max(weight) < 130 * 1024


def test_nothing_moves_under_an_open_menu_or_a_selection(here, ada):
    ada.goto(f"{here.address}{CONSOLE}runs/{here.runs['running']}/")
    ada.click(".copies summary")
    ada.wait_for_selector("#badge.paused", timeout=PATIENCE_MS)
    asked = []
    ada.on("request", lambda request: asked.append(request.url))
    ada.wait_for_timeout(4000)
    assert asked == []
    ada.keyboard.press("Escape")
    expect(ada.locator("#badge")).to_have_class("badge", timeout=PATIENCE_MS)
    ada.evaluate("getSelection().selectAllChildren(document.querySelector('.why'))")
    ada.wait_for_selector("#badge.paused", timeout=PATIENCE_MS)


@pytest.mark.parametrize("width", [420, 1440])
def test_every_menu_opens_inside_the_window(here, ada, width):
    ada.set_viewport_size({"width": width, "height": 900})
    for path in ("runs/", "tasks/", "workers/", f"runs/{here.runs['failed']}/", f"tasks/{here.runs['task']}/"):
        ada.goto(here.address + CONSOLE + path)
        for menu in ada.locator("details.menu").all():
            menu.locator("summary").click()
            box = menu.locator(".sheet").bounding_box()
            assert box["x"] >= 0, path
            assert box["x"] + box["width"] <= width, path
            ada.keyboard.press("Escape")


def test_keys_search_step_and_go(here, ada):
    ada.goto(here.address + CONSOLE)
    ada.keyboard.press("g")
    ada.keyboard.press("r")
    ada.wait_for_url(f"{here.address}{CONSOLE}runs/")
    ada.keyboard.press("/")
    ada.keyboard.type("is:quarantined")
    ada.keyboard.press("Enter")
    ada.wait_for_url("**/runs/?q=is%3Aquarantined")
    ada.keyboard.press("j")
    ada.keyboard.press("Enter")
    ada.wait_for_url(f"{here.address}{CONSOLE}runs/{here.runs['quarantined']}/")


def test_theme_and_language_are_switched_in_the_page(here, ada):
    ada.goto(f"{here.address}{CONSOLE}tasks/")
    ada.click(".side summary")
    ada.click("text=Dark")
    ada.wait_for_selector("html[data-theme=dark]")
    ada.click(".side summary")
    ada.click("text=中文")
    ada.wait_for_selector("html[lang=zh-hans]")
    assert ada.url == f"{here.address}{CONSOLE}tasks/"
    assert ada.inner_text("h1") == "任务"
    assert ada.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(14, 20, 27)"


def test_everything_works_without_scripts(here, started):
    context = logged_in(here, started, java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{here.address}{CONSOLE}runs/")
    page.click("nav.pages a[rel=next]")
    assert "before=" in page.url
    assert page.locator("#rows tbody tr").count() > 0
    page.goto(f"{here.address}{CONSOLE}runs/{here.runs['failed']}/")
    assert "warehouse" in page.inner_text(".log")
    page.click("text=Retry >> visible=true")
    assert "Pending" in page.inner_text(".bar .state")
    page.click("button.danger")
    assert "Cancelled" in page.inner_text(".bar .state")
    page.goto(f"{here.address}{CONSOLE}workers/w-01/")
    page.click("text=Drain")
    assert "Draining" in page.inner_text(".bar .state")
    page.click("text=Resume")
    assert page.locator(".why").count() == 0
    page.click(".side summary")
    page.click("text=Dark")
    assert page.locator("html[data-theme=dark]").count() == 1
    context.close()
