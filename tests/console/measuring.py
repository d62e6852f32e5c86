"""What a page asks of the browser and what the browser says of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

from axe_playwright_python.sync_playwright import Axe

from tests.console.site import CONSOLE, Site, logged_in

LOOKS: Final = tuple((theme, language) for theme in ("light", "dark") for language in ("en", "zh-hans"))
_WCAG: Final = {
    "runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"],
    "resultTypes": ["violations"],
}
#: Pages that are the answer to a mistake; the browser names their status, and that is no mistake of the page.
_REFUSING: Final = {"runs-refused": "400 (Bad Request)", "problem": "404 (Not Found)"}


@dataclass
class Seen:
    """One page in one look, loaded with an empty cache."""

    name: str
    theme: str
    language: str
    requests: list[str] = field(default_factory=list)
    wire_bytes: int = 0
    complaints: list[str] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)
    shown: tuple[str, str] = ("", "")

    @property
    def label(self) -> str:
        """Which it is."""
        return f"{self.name} {self.theme} {self.language}"


def seen(site: Site, started: Any, theme: str, language: str) -> Iterator[Seen]:
    """Every page, in one theme and language."""
    context = logged_in(site, started, theme=theme, language=language)
    try:
        for name, path in site.pages.items():
            yield _look(context, site.address + CONSOLE + path, Seen(name, theme, language))
    finally:
        context.close()


def complaints(page: Any) -> list[str]:
    """What the browser complains about from now on: the policy, scripts, missing files."""
    found: list[str] = []
    page.on("console", lambda message: found.append(message.text) if message.type in {"error", "warning"} else None)
    page.on("pageerror", lambda error: found.append(str(error)))
    return found


def _look(context: Any, address: str, one: Seen) -> Seen:
    page = context.new_page()
    complained = complaints(page)
    network = context.new_cdp_session(page)
    network.send("Network.enable")
    network.send("Network.setCacheDisabled", {"cacheDisabled": True})

    def loaded(event: dict[str, Any]) -> None:
        one.wire_bytes += event["encodedDataLength"]

    network.on("Network.loadingFinished", loaded)
    page.on("request", lambda request: one.requests.append(urlsplit(request.url).netloc))
    page.goto(address)
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    one.shown = ("dark" if background == "rgb(14, 20, 27)" else "light", page.evaluate("document.documentElement.lang"))
    one.findings = [
        f"{rule['id']}: {rule['nodes'][0]['html'][:200]}"
        for rule in Axe().run(page, options=_WCAG).response["violations"]
    ]
    expected = _REFUSING.get(one.name)
    one.complaints = [text for text in complained if not (expected and text.endswith(f"status of {expected}"))]
    page.close()
    return one
