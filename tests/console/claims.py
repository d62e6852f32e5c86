"""The claims about the console, with their bars: `CLAIMS` is what the registry takes. The browser's share one sitting.

Each is a pure judgement of what was seen (`*_value`), so that a test can make it fail.
"""

from __future__ import annotations

import json
import math
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any, Final

from tests.console.measuring import LOOKS, Seen, seen
from tests.console.site import CONSOLE, Site, browser, logged_in, site
from tests.prove.claim import Claim, Measured
from tests.servers import PostgresServer, ValkeyServer

OUT: Final = Path("build/console")
REQUESTS_MAX: Final = 10
BYTES_MAX: Final = 60 * 1024
LIST_MS_MAX: Final = 200
STALE_SECONDS_MAX: Final = 12
ROWS: Final = {"small": 200_000, "full": 2_000_000}

Judge = Callable[[Sequence[Seen]], tuple[float, str]]


def requests_value(pages: Sequence[Seen]) -> tuple[float, str]:
    """Of the page that asks for most; infinite when another host is asked, or nothing was seen."""
    hosts = {host for page in pages for host in page.requests}
    if len(hosts) != 1:
        return math.inf, f"hosts: {', '.join(sorted(hosts)) or 'none'}"
    most = max(pages, key=lambda page: len(page.requests))
    return float(len(most.requests)), f"{len(pages)} pages seen, most by {most.label}; no other host"


def bytes_value(pages: Sequence[Seen]) -> tuple[float, str]:
    """Of the heaviest page, all that it loads with it."""
    if not all(page.wire_bytes for page in pages) or not pages:
        return math.inf, "a page was not measured"
    most = max(pages, key=lambda page: page.wire_bytes)
    return float(most.wire_bytes), f"{len(pages)} pages seen with an empty cache, heaviest {most.label}"


def complaints_value(pages: Sequence[Seen]) -> tuple[float, str]:
    """What the browser complained about, the policy's violations among it."""
    return _listed(pages, lambda page: page.complaints)


def findings_value(pages: Sequence[Seen]) -> tuple[float, str]:
    """axe's findings at WCAG 2.2 A and AA."""
    return _listed(pages, lambda page: page.findings)


def _listed(pages: Sequence[Seen], of: Callable[[Seen], list[str]]) -> tuple[float, str]:
    if not pages:
        return math.inf, "no page was seen"
    found = [f"{page.label}: {text}" for page in pages for text in of(page)]
    return float(len(found)), "; ".join(found[:3]) or f"{len(pages)} pages seen"


def list_value(took: Mapping[str, float]) -> tuple[float, str]:
    """Of the slower of the first page and the one a thousand pages on; infinite when they were not measured."""
    pages = [ms for address, ms in took.items() if address == "runs/" or address.startswith("runs/?before=")]
    others = ", ".join(f"/console/{address} {ms} ms" for address, ms in took.items())
    return (max(pages) if len(pages) == 2 else math.inf), others


@cache
def _sitting(_scale: str) -> tuple[tuple[Seen, ...], float]:
    """Every page in every look, and the seconds from the death of the server to STALE."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        raise FileNotFoundError("no Chromium here: sudo tests/servers/install.sh")
    with tempfile.TemporaryDirectory() as name, ValkeyServer() as broker, browser(chromium) as started:
        folder = Path(name)
        with site(folder, f"sqlite:///{folder / 'console.sqlite3'}", broker.url) as here:
            pages = tuple(page for look in LOOKS for page in seen(here, started, *look))
            stale = _stale_seconds(here, started)
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "pages.json").write_text(json.dumps([asdict(page) for page in pages], indent=1))
    return pages, stale


def _stale_seconds(here: Site, started: Any) -> float:
    """The longest of some; infinite when it did not recover."""
    longest = 0.0
    context = logged_in(here, started)
    page = context.new_page()
    page.goto(f"{here.address}{CONSOLE}runs/")
    for wait_ms in (500, 2000, 3500):
        page.wait_for_timeout(wait_ms)
        here.kill()
        began = time.monotonic()
        page.wait_for_selector("#badge.stale", timeout=60_000)
        longest = max(longest, time.monotonic() - began)
        here.start()
        page.wait_for_selector("#badge:not(.stale)", timeout=60_000)
    context.close()
    return longest


def _list_took(scale: str) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as name, PostgresServer() as database:
        here = Site(Path(name), database.url, "redis://127.0.0.1:1/0")
        here.prepare(scenes=False)
        took: dict[str, float] = json.loads(here.run("-m", "tests.console.load", str(ROWS[scale]), seconds=900))
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "list.json").write_text(json.dumps({"rows": ROWS[scale], "milliseconds": took}, indent=1))
    return took


def _of_pages(judge: Judge) -> Callable[[str], Measured]:
    def measure(scale: str) -> Measured:
        return Measured(*judge(_sitting(scale)[0]), str(OUT / "pages.json"))

    return measure


def _stale(scale: str) -> Measured:
    return Measured(_sitting(scale)[1], "longest of 3 kills of the web process; it recovered each time", str(OUT))


def _list(scale: str) -> Measured:
    value, detail = list_value(_list_took(scale))
    return Measured(value, f"{ROWS[scale]:,} runs on PostgreSQL: {detail}", str(OUT / "list.json"))


_BARS: Final[Sequence[tuple[str, str, str, Callable[[float], bool], Callable[[str], Measured]]]] = (
    ("requests", "requests a page", f"at most {REQUESTS_MAX}", lambda n: n <= REQUESTS_MAX, _of_pages(requests_value)),
    ("bytes", "bytes on the wire a page", f"at most {BYTES_MAX}", lambda n: n <= BYTES_MAX, _of_pages(bytes_value)),
    ("complaints", "violations of the policy and errors", "0", lambda n: n == 0, _of_pages(complaints_value)),
    ("accessibility", "findings of axe", "0", lambda n: n == 0, _of_pages(findings_value)),
    ("stale", "seconds until STALE", f"at most {STALE_SECONDS_MAX}", lambda s: s <= STALE_SECONDS_MAX, _stale),
    ("list", "ms of the server", f"under {LIST_MS_MAX}", lambda ms: ms < LIST_MS_MAX, _list),
)
CLAIMS: Final = [Claim(f"console.first.{name}", *rest) for name, *rest in _BARS]
