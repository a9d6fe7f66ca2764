"""Take the screenshots in docs/screenshots/ of the page as it is now (needs chromium)."""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

REPOSITORY = Path(__file__).parent.parent
FOLDER = REPOSITORY / "docs" / "screenshots"
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync"
).split()
DESK, PHONE = {"width": 1280, "height": 860}, {"width": 390, "height": 1100}


def main() -> int:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        print("screenshots: no chromium found; install it first", file=sys.stderr)
        return 2
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as index, sync_playwright() as playwright:
        command = [sys.executable, str(REPOSITORY / "app.py"), "--port", "0", "--index", index]
        server = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
        try:
            assert server.stdout is not None
            address = server.stdout.readline().split()[-1]
            browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
            take(browser, address)
            browser.close()
        finally:
            server.terminate()
            server.wait()
    for path in sorted(FOLDER.glob("*.png")):
        print(f"{path.relative_to(REPOSITORY)}  {path.stat().st_size / 1000:.0f} kB")
    return 0


def take(browser: Browser, address: str) -> None:
    """Take every screenshot."""
    page = asked(browser, address, "充值没到账怎么办", locale="zh-CN", viewport=DESK)
    shoot(page, "page-zh")
    page.goto(address + page.get_attribute("#answer a.open", "href"))
    shoot(page, "source")
    shoot(asked(browser, address, "How do I reset my password?", viewport=DESK), "page-en")
    phone: dict[str, Any] = {"locale": "zh-CN", "viewport": PHONE, "color_scheme": "dark"}
    shoot(asked(browser, address, "我的账户被盗了，怎么冻结", **phone), "page-phone-dark")
    page = asked(browser, address, "我要转人工", locale="zh-CN", viewport=DESK)
    page.click("#answer .channels summary")
    shoot(page, "handoff")


def asked(browser: Browser, address: str, question: str, **reader: Any) -> Page:
    """Return the page of one kind of reader with a question answered."""
    page = browser.new_context(reduced_motion="reduce", **reader).new_page()
    page.goto(address)
    page.fill("#question textarea", question)
    page.press("#question textarea", "Enter")
    page.wait_for_selector("html[data-state=done]")
    page.locator("#question textarea").blur()
    return page


def shoot(page: Page, name: str) -> None:
    page.screenshot(path=FOLDER / f"{name}.png")


if __name__ == "__main__":
    sys.exit(main())
