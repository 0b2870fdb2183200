"""A headless browser for tests of pages, where the machine has one."""

import contextlib
import dataclasses
import shutil
import time
from collections.abc import Iterator
from typing import Any

import pytest

NAMES = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "chrome",
)
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
PATIENCE = 300  # seconds, on a machine that does other things too
# Whether what has the focus shows the mask of its first picture.
FOCUSED_MASK = (
    "getComputedStyle(document.activeElement.querySelector('canvas')).opacity == 1"
)


@contextlib.contextmanager
def launched() -> Iterator[Any]:
    """Playwright's browser; skips the test, and says why, where there is none."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright absent: no browser can be driven"
    )
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip(f"no browser on this machine: none of {', '.join(NAMES)}")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=list(FLAGS))
        try:
            yield browser
        finally:
            browser.close()


@dataclasses.dataclass
class Watched:
    """Opens pages and keeps what no page may do."""

    browser: Any
    troubles: list[str] = dataclasses.field(default_factory=list)

    def open(self, path, fragment="", width=1280, height=900, **options):
        """The page of a file, in a context of its own."""
        size = {"width": width, "height": height}
        context = self.browser.new_context(viewport=size, **options)
        context.set_default_timeout(1000 * PATIENCE)
        page = context.new_page()
        address = path.as_uri()

        def requested(request):
            if not request.url.startswith((address, "data:", "blob:")):
                self.troubles.append(f"request: {request.url}")

        def answered(dialog):
            self.troubles.append(f"dialog: {dialog.message}")
            dialog.dismiss()

        def told(message):
            if message.type in ("error", "warning"):
                self.troubles.append(f"console: {message.text}")

        page.on("request", requested)
        page.on("dialog", answered)
        page.on("console", told)
        page.on("pageerror", lambda error: self.troubles.append(f"error: {error}"))
        page.goto(address + fragment)
        return page

    def close(self) -> None:
        """Closes all pages; fails if one did what it may not."""
        for context in self.browser.contexts:
            context.close()
        assert self.troubles == []


def overflow(page) -> int:
    """Pixels by which a page is wider than its window."""
    return page.evaluate("document.documentElement.scrollWidth - window.innerWidth")


def until(page, condition: str) -> None:
    """Waits for a JavaScript condition (Playwright's own way is denied by the page)."""
    end = time.monotonic() + PATIENCE
    while not page.evaluate(condition):
        assert time.monotonic() < end, f"never true: {condition}"
        page.wait_for_timeout(50)


def settle(page, milliseconds: int = 150) -> None:
    """Until the page has done what it put off for so long, and has drawn it.

    The page's own clock: however slow the machine is, its earlier timers come first.
    """
    page.evaluate(f"""() => new Promise(done => setTimeout(
      () => requestAnimationFrame(() => requestAnimationFrame(done)), {milliseconds}
    ))""")
