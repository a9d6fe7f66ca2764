"""One headless Chromium, and a wait that a strict page allows."""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync"
).split()
PATIENCE = 30
in_browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed")


@contextmanager
def chromium() -> Iterator[Any]:
    """Run a browser; keep it to one module, since Playwright keeps an event loop running."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no chromium is installed")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


def until(page: Any, expression: str) -> None:
    """Wait until a JavaScript expression holds.

    Playwright's own `wait_for_function` evaluates the text inside the page whenever it has to look
    a second time, which our pages' content policy forbids.
    """
    latest = time.monotonic() + PATIENCE
    while not _holds(page, expression):
        assert time.monotonic() < latest, f"never: {expression}"
        page.wait_for_timeout(20)


def _holds(page: Any, expression: str) -> bool:
    from playwright.sync_api import Error

    try:
        return bool(page.evaluate(expression))
    except Error as error:
        if "context was destroyed" in str(error):  # the page is being loaded anew
            return False
        raise
