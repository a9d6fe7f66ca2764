"""Say to a person what is a problem to a program: a plain page in their language."""

from typing import Any

import orjson
from starlette.datastructures import Headers, MutableHeaders, QueryParams
from starlette.responses import HTMLResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from assistant.answer import Language
from assistant.web.problems import PROBLEM
from assistant.web.render import page_html, text
from assistant.web.wording import WORDS, preferred, say

_PROGRAMS = ("/api/", "/gradio_api/", "/mcp")
_HOMES = ("/agent", "/maintain", "/login")
_PASSING = (408, 429, 500, 503)  # what may be otherwise in a moment


def for_a_person(headers: Headers) -> bool:
    """Tell whether an answer is for the eyes of a person with a browser."""
    scheme = headers.get("authorization", "").partition(" ")[0].lower()
    return "text/html" in headers.get("accept", "") and scheme != "bearer"


def language_of_reader(scope: Scope) -> Language:
    """Return the language that a reader chose by the switch or the address, else the browser's."""
    headers, asked = Headers(scope=scope), QueryParams(scope["query_string"]).get("lang", "")
    chosen = f"{headers.get('cookie', '')}; lang={asked}"
    return preferred(headers.get("accept-language", ""), chosen)


class Plain:
    """Turn problems on their way to a browser into pages; belongs outside all that refuses."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass everything on but a problem that a person would get to see."""
        seen = scope["type"] == "http" and not scope["path"].startswith(_PROGRAMS)
        if seen and for_a_person(Headers(scope=scope)):
            send = _Refusal(scope, send)
        await self._app(scope, receive, send)


class _Refusal:
    """Hold a problem back until it is whole, then send it as a page."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self._scope = scope
        self._send = send
        self._start: Message = {}
        self._body = b""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            if Headers(raw=message["headers"]).get("content-type") == PROBLEM:
                self._start = message
                return
        elif self._start:
            self._body += message.get("body", b"")
            if message.get("more_body"):
                return
            message = await self._rewritten()
        await self._send(message)

    async def _rewritten(self) -> Message:
        """Send the head of the page and return its body."""
        headers = MutableHeaders(raw=self._start["headers"])
        problem = orjson.loads(self._body)
        page = HTMLResponse(_page(problem, self._scope, headers.get("retry-after", "")))
        for name in ("content-type", "content-length"):
            headers[name] = page.headers[name]
        headers["cache-control"] = "no-store"
        await self._send({**self._start, "headers": headers.raw})
        return {"type": "http.response.body", "body": page.body}


def _page(problem: dict[str, Any], scope: Scope, seconds: str) -> str:
    """Write what happened, what to do now, and where to go from there."""
    language = language_of_reader(scope)
    status, known = problem["status"], f"refused_{problem['status']}"
    said = say(known if known in WORDS else "refused", language).format(seconds=seconds or 1)
    home = next((one for one in _HOMES if scope["path"].startswith(one)), "/")
    parts = [f"<h1>{said}</h1>"]
    if status in _PASSING:
        again = f'<a href="">{say("again", language)}</a>'
        parts.append(f"<p>{again if scope['method'] == 'GET' else say('resend', language)}</p>")
        parts.append(f"<p>{say('not_waiting', language)}</p>" if home == "/" else "")
    parts.append(f'<p><a href="{home}">{say("to_start", language)}</a></p>')
    if known not in WORDS:  # in the words for who runs the service: nobody else meets these
        parts.append(f'<p class="meta" lang="en">{text(problem["detail"])}</p>')
    if status == 500:
        parts.append(f'<p class="meta">{say("number", language)} {text(problem["instance"])}</p>')
    return page_html(say("title", language), "".join(parts), language)
