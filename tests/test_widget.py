"""The widget on another site, in a real browser; and who may show which page in a frame."""

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from chromium import chromium, in_browser, until
from server import running

from assistant.settings import Settings
from assistant.web.guard import frame_ancestors

# Pages of another site: attributes of the tag, language of the page, its policy.
PAGES = {
    "/zh": ('data-lang="zh"', "en", ""),
    "/en": ('data-lang="en" data-label="Help <me>"', "zh", ""),
    "/none": ("", "zh-TW", ""),
    "/head": ("defer", "en", ""),
    "/strict": ("", "en", "default-src 'none'; script-src {server}; frame-src {server}"),
}
PAGE = """<!doctype html><html lang="{language}"><meta name="viewport" content="width=device-width">
<title>A shop</title>
<style>* {{ color: red; font-size: 40px; display: block; }} button {{ opacity: 0 }}</style>
<body style="min-height: 150vh"><a href="#x">a link</a>
<script>window.before = Object.keys(window).length</script>
<script src="{server}/widget.js" {attributes}></script></body></html>"""


class Site(ThreadingHTTPServer):
    """Another site, reached as localhost, or as 127.0.0.1 where it is not allowed to frame."""

    daemon_threads = True
    assistant = ""


class Visit(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path not in PAGES:
            self.send_error(404)
            return
        attributes, language, policy = PAGES[self.path]
        place = {"server": self.server.assistant, "attributes": attributes, "language": language}
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        if policy:
            self.send_header("Content-Security-Policy", policy.format(**place))
        self.end_headers()
        self.wfile.write(PAGE.format(**place).encode())

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def site():
    site = Site(("127.0.0.1", 0), Visit)
    thread = threading.Thread(target=site.serve_forever)
    thread.start()
    yield site
    site.shutdown()
    site.server_close()
    thread.join()


@pytest.fixture(scope="module")
def server(guide, site, tmp_path_factory):
    """The shipped guide, served to one other site."""
    command = ["-m", "assistant.cli", "serve", "--port", "0"]
    places = ["--corpus", str(guide.corpus), "--index", str(guide.index)]
    variables = {
        "ASSISTANT_WIDGET_ORIGINS": json.dumps([f"http://localhost:{site.server_port}"]),
        "ASSISTANT_RATE_PER_MINUTE": "0",
    }
    with running([*command, *places], tmp_path_factory.mktemp("widget"), **variables) as server:
        site.assistant = server.url
        yield server


# --- Who may frame what --------------------------------------------------------------------------


def test_the_ask_page_and_it_alone_may_be_framed_by_the_sites_of_the_setting(server, site):
    with server.client as client:
        page = client.get("/?embed=1")
        assert _ancestors(page) == f"'self' http://localhost:{site.server_port}"
        refused = client.post("/?embed=1", content=b"x" * 300_000)  # its refusal is seen there too
        assert (refused.status_code, _ancestors(refused)) == (413, _ancestors(page))
        assert not {"x-frame-options"} & {*page.headers, *refused.headers}
        for path in ("/login", "/docs", "/agent", "/maintain", "/source/x", "/healthz", "/nothing"):
            answer = client.get(path, headers={"Accept": "text/html"})
            assert _ancestors(answer) in ("'self'", "'none'"), path
            assert answer.headers["x-frame-options"] in ("SAMEORIGIN", "DENY"), path


def _ancestors(answer):
    return re.search(r"frame-ancestors ([^;]*)", answer.headers["content-security-policy"])[1]


def test_without_the_setting_no_other_site_may_frame_any_page():
    assert frame_ancestors(Settings()) == "'self'"


@pytest.mark.parametrize(
    "origin",
    [
        "*",
        "'none'",
        "https://a.example; script-src *",
        "https://a.example ",
        "https://a.example\n",
        "https://a.example/page",
        "https:",
        "javascript://a.example",
        "a.example",
        "",
    ],
)
def test_a_site_that_is_none_is_no_setting(origin):
    """Whatever could end up in the policy is a scheme and a host."""
    with pytest.raises(ValueError, match="widget_origins"):
        Settings(widget_origins=(origin,))
    Settings(widget_origins=("https://*.shop.example:8443", "http://localhost:3000"))


def test_the_script_may_be_loaded_by_other_sites_and_nothing_else_may(server):
    with server.client as client:
        script = client.get("/widget.js")
        assert script.headers["content-type"].startswith("text/javascript")
        assert script.headers["cross-origin-resource-policy"] == "cross-origin"
        assert "max-age" in script.headers["cache-control"]
        again = client.get("/widget.js", headers={"If-None-Match": script.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        for path in ("/", "/healthz", "/openapi.json", "/theme.css"):
            assert client.get(path).headers["cross-origin-resource-policy"] == "same-origin"


# --- In a browser --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser():
    """One browser; of this module alone, since Playwright keeps an event loop running."""
    with chromium() as browser:
        yield browser


@pytest.fixture
def visit(browser, server, site):
    """Open a page of the other site; whatever is done in it, no error is told."""
    contexts, told = [], []

    def opened(path, host="localhost", width=1280, scheme="light"):
        viewport = {"width": width, "height": 844}
        context = browser.new_context(locale="en-GB", color_scheme=scheme, viewport=viewport)
        context.set_default_timeout(30_000)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda one: one.type == "error" and told.append(one.text))
        page.on("pageerror", lambda one: told.append(str(one)))
        page.goto(f"http://{host}:{site.server_port}{path}")
        return page

    opened.told = told
    yield opened
    for context in contexts:
        context.close()
    assert [words for words in told if "404 (Not Found)" not in words] == []  # the site's favicon


def inner(page):
    """Return the ask page within the frame, once it is there."""
    page.locator("iframe").wait_for()
    frame = page.frame_locator("iframe")
    frame.locator("#ask").wait_for()
    return frame


def focused(page):
    """Return which of the widget's parts has the focus."""
    return page.evaluate("document.activeElement.shadowRoot?.activeElement?.className ?? ''")


@in_browser
def test_a_question_is_asked_and_answered_on_another_site(visit):
    page = visit("/zh")
    button = page.get_by_role("button", name="客服助手")
    assert button.get_attribute("aria-expanded") == "false"
    assert page.locator("iframe").count() == 0  # nothing is fetched before it is wanted
    button.click()
    assert button.get_attribute("aria-expanded") == "true"
    frame = inner(page)
    frame.locator("#question textarea").fill("充值没到账怎么办")
    frame.locator("#question textarea").press("Enter")
    frame.locator("#answer blockquote").first.wait_for()
    assert "充值" in frame.locator("#answer blockquote").first.text_content()
    frame.locator("#question textarea").fill("那密码呢")
    frame.locator("#question textarea").press("Enter")
    frame.locator("#answer .turn").nth(1).wait_for()  # one conversation, though nothing is kept
    assert frame.locator("#answer .turn").count() == 2
    button.click()
    assert page.locator(".panel").is_hidden()
    button.click()
    assert frame.locator("#answer blockquote").first.is_visible()  # what was asked is still there


@in_browser
def test_escape_closes_it_from_within_and_without_and_the_focus_comes_back(visit):
    page = visit("/en")
    button = page.get_by_role("button", name="Help <me>")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    assert focused(page) == "open"
    page.keyboard.press("Enter")
    frame = inner(page)
    assert page.evaluate("document.activeElement.shadowRoot.activeElement.localName") == "iframe"
    frame.locator("#question textarea").focus()
    page.keyboard.press("Escape")
    until(page, "!document.activeElement.shadowRoot?.querySelector('.panel:not([hidden])')")
    assert button.get_attribute("aria-expanded") == "false"
    assert focused(page) == "open"
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Close").focus()
    page.keyboard.press("Escape")
    assert button.get_attribute("aria-expanded") == "false"
    assert focused(page) == "open"
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Close").click()
    assert page.get_by_role("dialog").count() == 0


@in_browser
@pytest.mark.parametrize(
    ("path", "label", "title"),
    [
        ("/zh", "客服助手", "客服助手"),
        ("/en", "Help <me>", "Support assistant"),
        ("/none", "客服助手", "客服助手"),
        ("/head", "Support assistant", "Support assistant"),
    ],
)
def test_it_speaks_the_language_of_the_tag_or_of_the_page_around_it(visit, path, label, title):
    page = visit(path)
    page.get_by_role("button", name=label).click()
    inner(page)
    assert page.frames[-1].title() == title
    language = page.frames[-1].evaluate("document.documentElement.lang")
    assert language == ("zh-CN" if title == "客服助手" else "en")
    assert page.locator("iframe").get_attribute("title") == label


@in_browser
def test_the_page_around_it_is_left_as_it_was(visit):
    """No global, no cookie, no style: neither of ours on the page nor of the page's on ours."""
    page = visit("/zh")
    page.get_by_role("button", name="客服助手").click()
    inner(page)
    assert page.evaluate("Object.keys(window).length - window.before") == 1  # `before` itself
    assert page.context.cookies(page.url) == []
    assert page.evaluate("localStorage.length + sessionStorage.length") == 0
    assert page.evaluate("document.querySelectorAll('style, link').length") == 1
    button = page.locator("button.open")
    style = "one => [getComputedStyle(one).color, getComputedStyle(one).opacity]"
    assert button.evaluate(style) == ["rgb(255, 255, 255)", "1"]
    assert button.bounding_box()["width"] == 56


@in_browser
def test_it_works_on_a_page_with_a_strict_policy(visit):
    page = visit("/strict")
    # the page's own style and script are refused by its policy, and the widget's are not
    page.get_by_role("button", name="Support assistant").click()
    inner(page)
    assert page.locator("button.open").evaluate("one => getComputedStyle(one).position") == "fixed"
    visit.told[:] = [words for words in visit.told if "nline" not in words]


@in_browser
def test_on_a_phone_it_fills_the_screen_and_can_be_closed(visit):
    page = visit("/zh", width=390)
    page.get_by_role("button", name="客服助手").click()
    inner(page)
    assert page.locator(".panel").bounding_box() == {"x": 0, "y": 0, "width": 390, "height": 844}
    frame = page.locator("iframe").bounding_box()
    assert frame["height"] > 700
    assert page.frames[-1].evaluate("document.documentElement.scrollWidth") <= 390
    page.get_by_role("button", name="关闭").click()
    assert page.locator("button.open").is_visible()


@in_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_light_or_dark_as_the_reader_wants(visit, scheme):
    page = visit("/zh", scheme=scheme)
    page.get_by_role("button", name="客服助手").click()
    inner(page)
    paper = page.locator(".panel").evaluate("one => getComputedStyle(one).backgroundColor")
    assert paper == {"light": "rgb(255, 255, 255)", "dark": "rgb(10, 15, 30)"}[scheme]


@in_browser
def test_a_site_that_the_setting_does_not_name_shows_no_page_of_ours(visit):
    page = visit("/zh", host="127.0.0.1")
    with page.expect_console_message(lambda one: "frame-ancestors" in one.text):
        page.get_by_role("button", name="客服助手").click()
    assert "frame-ancestors" in " ".join(visit.told)
    visit.told.clear()


@in_browser
def test_only_our_own_frame_can_close_it(visit):
    page = visit("/en")
    button = page.get_by_role("button", name="Help <me>")
    button.click()
    inner(page)
    page.evaluate("postMessage('assistant:close', '*')")
    page.wait_for_timeout(200)
    assert button.get_attribute("aria-expanded") == "true"
