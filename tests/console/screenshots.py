"""`python -m tests.console.screenshots`: a picture of each page, in each theme and language, in build/screenshots."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from tests.console.site import CONSOLE, ROOT, browser, logged_in, site
from tests.servers import ValkeyServer

OUT = ROOT / "build" / "screenshots"


def main() -> int:
    """Write the pictures; 1 when there is no browser."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        print("screenshots: no Chromium here: sudo tests/servers/install.sh", file=sys.stderr)
        return 1
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as name, ValkeyServer() as broker:
        folder = Path(name)
        with site(folder, f"sqlite:///{folder / 'console.sqlite3'}", broker.url) as here, browser(chromium) as started:
            for theme in ("light", "dark"):
                for language in ("en", "zh-hans"):
                    context = logged_in(here, started, language=language, theme=theme)
                    page = context.new_page()
                    for label, path in here.pages.items():
                        page.goto(here.address + CONSOLE + path)
                        page.screenshot(path=OUT / f"{label}-{theme}-{language}.png", full_page=True)
                    context.clear_cookies(name="sessionid")
                    page.goto(here.address + CONSOLE)
                    page.screenshot(path=OUT / f"login-{theme}-{language}.png")
                    context.close()
    print(f"screenshots: {len(list(OUT.iterdir()))} in {OUT.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
