"""Make Gradio's outer page ours: language, title and script; nothing that points elsewhere."""

import re
import secrets
from html import escape
from pathlib import Path

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from assistant.answer import Language
from assistant.web.guard import policy
from assistant.web.plain import language_of_reader
from assistant.web.wording import say, tag

_STATIC = Path(__file__).parent / "static"
_SCRIPT = (_STATIC / "page.js").read_text("utf-8")
_STYLE = (_STATIC / "style.css").read_text("utf-8")
# Gradio's cards for other sites name Gradio, and a picture on a foreign host.
_CARDS = re.compile(r'<meta\s+(?:property="og:|name="twitter:)[^>]*>\s*')


class Shell:
    """Rewrite the page at `/`, the one response that Gradio offers no parameter for."""

    def __init__(self, app: ASGIApp, ancestors: str = "'self'") -> None:
        """Take the application, and who may show the page in a frame (`guard.frame_ancestors`)."""
        self._app = app
        self._ancestors = ancestors

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass everything on but the page itself, which is rewritten as a whole."""
        if scope["type"] != "http" or scope["path"] not in ("", "/"):
            await self._app(scope, receive, send)
            return
        plain = [(name, value) for name, value in scope["headers"] if name != b"accept-encoding"]
        page = _Page(send, language_of_reader(scope), self._ancestors)
        await self._app({**scope, "headers": plain}, receive, page)


class _Page:
    """Hold a response back until it is whole, then send it rewritten."""

    def __init__(self, send: Send, language: Language, ancestors: str) -> None:
        self._send = send
        self._language = language
        self._ancestors = ancestors
        self._start: Message = {}
        self._body = b""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._start = message
            return
        self._body += message.get("body", b"")
        if message.get("more_body"):
            return
        if self._start["status"] == 200:
            self._rewrite()
        await self._send(self._start)
        await self._send({"type": "http.response.body", "body": self._body})

    def _rewrite(self) -> None:
        nonce = secrets.token_urlsafe(16)
        self._body = rewritten(self._body.decode(), self._language, nonce).encode()
        headers = MutableHeaders(raw=self._start["headers"])
        headers["content-length"] = str(len(self._body))
        headers["content-security-policy"] = policy(nonce, self._ancestors)
        headers["cache-control"] = "no-store"
        headers["vary"] = "Accept-Language, Cookie"
        self._start["headers"] = headers.raw


def rewritten(page: str, language: Language, nonce: str) -> str:
    """Return the page in the reader's language, its scripts marked with a nonce, ours added."""
    head = (
        f"<title>{escape(say('title', language))}</title>"
        f'<meta name="description" content="{escape(say("lead", language))}">'
        '<meta name="color-scheme" content="light dark">'
        f"<style>{_STYLE}</style><script>{_SCRIPT}</script></head>"
    )
    first = (
        f'<div id="loading"><p role="status">{say("common.loading", language)}…</p>'
        "<noscript><style>#loading [role=status]{display:none}</style>"
        f"<p>{say('no_script', language)}</p></noscript>"
        f'<p class="late">{say("late", language)} {say("not_waiting", language)}</p></div>'
    )
    page = _CARDS.sub("", page).replace("</head>", head, 1)
    page = re.sub(r"<body[^>]*>", lambda found: found[0] + first, page, count=1)
    page = re.sub(r"<html(\s+)lang=\"en\"", rf'<html\1lang="{tag(language)}"', page, count=1)
    return re.sub(r"<script(?=[\s>])", f'<script nonce="{nonce}"', page)
