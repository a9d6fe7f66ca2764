"""Take the screenshots in docs/screenshots/ of every page as it is now (needs chromium).

Every page is taken in both languages, light on a desk and dark on a phone.
"""

import io
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

REPOSITORY = Path(__file__).parent.parent
FOLDER = REPOSITORY / "docs" / "screenshots"
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync"
).split()
TOKEN = "only-for-the-screenshots-0123456789"
LOOKS = (("light", {"width": 1280, "height": 860}), ("dark", {"width": 390, "height": 844}))
LOCALES = {"zh": "zh-CN", "en": "en-US"}
QUESTIONS = {
    "zh": ("充值没到账怎么办", "怎么联系在线客服", "那邮件呢", "我的账户被盗了"),
    "en": (
        "How do I reset my password?",
        "How can I contact support?",
        "and by phone?",
        "someone hacked my account",
    ),
}
UNANSWERED = ("可以用狗狗币付款吗", "你们支持狗狗币吗", "怎么开发票", "How do I become a merchant?")
OFFICE = {
    "agent-search": "/agent?q=充值没到账",
    "agent-tickets": "/agent/tickets",
    "agent-ticket": "/agent/tickets/1",
    "agent-propose": "/agent/propose?ticket=1",
    "maintain": "/maintain",
    "maintain-gaps": "/maintain/gaps",
    "maintain-passages": "/maintain/passages",
    "maintain-proposals": "/maintain/proposals",
    "maintain-entry": "/maintain/proposals/new",
    "maintain-report": "/maintain/report",
}


def main() -> int:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        print("screenshots: no chromium found; install it first", file=sys.stderr)
        return 2
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        server = start(folder)
        try:
            assert server.stdout is not None
            lines = iter(server.stdout.readline, "")
            address = next(line for line in lines if line.startswith("Serving on ")).split()[-1]
            browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
            furnish(browser, address)
            for language in LOCALES:
                for scheme, size in LOOKS:
                    take(browser, address, language, scheme, size)
            browser.close()
        finally:
            server.terminate()
            server.wait()
    for path in sorted(FOLDER.glob("*.png")):
        print(f"{path.relative_to(REPOSITORY)}  {path.stat().st_size / 1000:.0f} kB")
    return 0


def start(folder: str) -> subprocess.Popen[str]:
    """Serve the shipped guide with an empty memory."""
    shutil.copytree(REPOSITORY / "corpus", Path(folder, "corpus"))
    variables = {"ASSISTANT_MAINTAINER_TOKEN": TOKEN, "ASSISTANT_RATE_PER_MINUTE": "0"}
    return subprocess.Popen(
        [sys.executable, str(REPOSITORY / "app.py"), "--port", "0"],
        cwd=folder,
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        text=True,
    )


def furnish(browser: Browser, address: str) -> None:
    """Give maintainers something to see: gaps, a proposal and an evaluation."""
    page = browser.new_page()
    for question in UNANSWERED:
        page.request.post(f"{address}/api/v1/ask", data={"question": question})
    page.goto(f"{address}/login?token={TOKEN}&next=/maintain/gaps")
    page.click("article a.button")
    page.fill("#passage", "")
    page.fill("#answer", "暂不支持。")
    page.click("form.stacked button:not([name])")
    page.goto(f"{address}/maintain/report")
    page.click("#measure")
    page.frame_locator("iframe.report").locator("svg").first.wait_for()
    page.context.close()


def take(browser: Browser, address: str, language: str, scheme: str, size: dict[str, int]) -> None:
    """Take every page for one kind of reader."""
    look = f"{language}-{scheme}"
    context = browser.new_context(
        locale=LOCALES[language],
        color_scheme=scheme,  # type: ignore[arg-type]
        viewport=size,  # type: ignore[arg-type]
        reduced_motion="reduce",
    )
    page = context.new_page()
    page.goto(address)
    page.wait_for_selector(".example >> visible=true")
    shoot(page, f"start-{look}")
    first, *others, last = QUESTIONS[language]
    ask(page, first)
    page.keyboard.press("Control+Home")  # the page shows the answer from its question on
    page.wait_for_timeout(300)
    shoot(page, f"page-{look}")
    source = page.get_attribute("#answer a.open", "href")
    for question in others:
        ask(page, question)
    shoot(page, f"conversation-{look}")
    ask(page, last)
    shoot(page, f"urgent-{look}")
    turn = page.locator("#answer .turn").last
    turn.locator("form.ticket-form textarea").first.fill("8812")
    turn.locator("form.ticket-form input").first.fill("li.lei@example.com")
    turn.locator("form.ticket-form button[type=submit]").click()
    turn.locator(".ticket").wait_for()
    shoot(page, f"ticket-{look}")
    page.goto(f"{address}{source}")
    shoot(page, f"source-{look}")
    page.goto(f"{address}/login")
    shoot(page, f"login-{look}")
    page.goto(f"{address}/login?token={TOKEN}")
    for name, path in OFFICE.items():
        page.goto(address + path)
        shoot(page, f"{name}-{look}")
    context.close()


def ask(page: Page, question: str) -> None:
    """Ask and wait until the answer stands there."""
    before = page.locator("#answer .turn").count()
    page.fill("#question textarea", question)
    page.press("#question textarea", "Enter")
    page.locator("#answer .turn").nth(before).wait_for()
    page.wait_for_selector("html[data-state=done]")
    page.locator("#question textarea").blur()


def shoot(page: Page, name: str) -> None:
    """Take one screenshot, with a palette: a third of the size, and the same to the eye."""
    taken = Image.open(io.BytesIO(page.screenshot(animations="disabled"))).convert("RGB")
    taken.quantize(128).save(FOLDER / f"{name}.png", optimize=True)


if __name__ == "__main__":
    sys.exit(main())
