"""Guard every route: known hosts and origins, small bodies, no more than needed, safe headers."""

import asyncio
import ipaddress
import socket
from collections.abc import Iterable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from assistant.settings import Settings
from assistant.web.problems import problem

Refusal = tuple[int, str]

_SELF = "'self'"
_PAGE = ("", "/")  # the ask page: the one that other sites may frame
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
EVERYWHERE = ("0.0.0.0", "::")
_POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "script-src-attr": "'none'",
    "style-src": "'self' 'unsafe-inline'",
    "img-src": "'self' data:",
    "font-src": "'self' data:",
    "connect-src": "'self'",
    "manifest-src": "'self'",
    "base-uri": "'self'",
    "form-action": "'none'",
    "frame-ancestors": "'self'",
}
_HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "SAMEORIGIN",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}
# What of Gradio's own routes the page and its clients use; the rest (uploads, files, proxies,
# recordings, code editing, monitoring …) is not there.
_GRADIO = (
    "/gradio_api/queue/",
    "/gradio_api/info",
    "/gradio_api/cancel",
    "/gradio_api/heartbeat/",
    "/gradio_api/app_id",  # asked after a lost connection, until it is there again
    "/gradio_api/startup-events",
    "/gradio_api/dev/reload",
)
_OURS = ("/login", "/logout", "/pwa_icon")
_CLOSED = ("/gradio_api", "/proxy=", "/file", "/monitoring", "/log", "/svelte", "/pwa", "/upload")
_RESTARTING = "服务正在重启，请稍后再试。 / The service is being restarted. Try again in a moment."


def known_hosts(settings: Settings) -> set[str]:
    """Return the names that we are reached by; one that is served everywhere has addresses too."""
    own = socket.gethostname() if settings.host in EVERYWHERE else settings.host
    names = {own.lower(), f"[{own.lower()}]", *(name.lower() for name in settings.allowed_hosts)}
    return {*_LOOPBACK, *names}


def frame_ancestors(settings: Settings) -> str:
    """Return who may show the ask page in a frame: our own pages, and the sites of the setting."""
    return " ".join((_SELF, *settings.widget_origins))


def policy(nonce: str = "", ancestors: str = _SELF) -> str:
    """Return the content security policy; with a nonce, of a page whose own scripts bear it.

    `ancestors` are the sites that may show the page in a frame.

    Gradio's templates are compiled in the browser, so its page needs `unsafe-eval`; a script that
    came in through some text would still have no nonce, and no handler attribute ever runs.
    """
    scripts = f"'self' 'nonce-{nonce}' 'unsafe-eval'" if nonce else _POLICY["script-src"]
    parts = {**_POLICY, "script-src": scripts, "frame-ancestors": ancestors}
    return "; ".join(f"{name} {value}" for name, value in parts.items())


class Guard:
    """Refuse foreign hosts (DNS rebinding), foreign origins (CSRF), uploads and large bodies."""

    def __init__(self, app: ASGIApp, settings: Settings, patience: float = 20.0) -> None:
        self._app = app
        self._patience = patience
        self._most = settings.max_body_kb * 1024
        self._ancestors = frame_ancestors(settings)
        self._anywhere = settings.host in EVERYWHERE
        self._trusted = {name.lower() for name in settings.allowed_hosts}
        self._hosts = known_hosts(settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check a request, then pass it on with its whole body; whoever is cut off is told so."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        with_headers = _with_headers(send, self._ancestors if scope["path"] in _PAGE else _SELF)
        begun = False

        async def sent(message: Message) -> None:
            nonlocal begun
            begun = True
            await with_headers(message)

        try:
            await self._take(scope, receive, sent)
        except asyncio.CancelledError:  # the server ends, and waits no longer
            if begun:
                raise
            await problem(503, _RESTARTING, {"retry-after": "5"})(scope, receive, sent)

    async def _take(self, scope: Scope, receive: Receive, sent: Send) -> None:
        taken = self._refuse(scope["path"], scope["headers"]) or await self._body(receive)
        if isinstance(taken, tuple):
            status, words = taken
            await problem(status, words)(scope, receive, sent)
            return
        if scope["method"] == "HEAD":  # many of Gradio's routes know GET alone
            scope = {**scope, "method": "GET"}  # the server still sends no body
        await self._app(scope, replay(taken, receive), sent)

    def _refuse(self, path: str, headers: Iterable[tuple[bytes, bytes]]) -> Refusal | None:
        given = [(name, value.decode("latin-1").lower()) for name, value in headers]
        hosts = [value for name, value in given if name == b"host"]
        if len(hosts) != 1 or not self._known(_name(hosts[0])):
            return 400, "Unknown host: name it in the setting allowed_hosts."
        if any(name == b"origin" and not self._ours(value, hosts[0]) for name, value in given):
            return 403, "Requests from other sites are not taken."
        if path.startswith(_CLOSED) and not path.startswith(_GRADIO) and path not in _OURS:
            return 404, "There is nothing here."
        lengths = [value for name, value in given if name == b"content-length"]
        if any(not _is_length(value) or int(value) > self._most for value in lengths):
            return self._too_large()
        return None

    def _known(self, host: str) -> bool:
        """Tell whether a host name is ours; rebinding needs a name, so addresses are safe."""
        return host in self._hosts or (self._anywhere and _is_address(host))

    def _ours(self, origin: str, host: str) -> bool:
        """Tell whether a request was made by a page of ours, or of a proxy in front of us."""
        _, found, netloc = origin.partition("://")
        return bool(found) and (netloc == host or _name(netloc) in self._trusted)

    async def _body(self, receive: Receive) -> bytes | Refusal:
        """Return the body if it comes in time and is no larger than the cap, whatever it said."""
        body = b""
        try:
            async with asyncio.timeout(self._patience):
                more = True
                while more:
                    message = await receive()
                    body += message.get("body", b"")
                    more = message.get("more_body", False) and len(body) <= self._most
        except TimeoutError:
            return 408, f"The request was not sent within {self._patience:g} seconds."
        return body if len(body) <= self._most else self._too_large()

    def _too_large(self) -> Refusal:
        return 413, f"The request is larger than {self._most:,} bytes."


def replay(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that gives a body that was read already, then what comes after it."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Message:
        return messages.pop() if messages else await receive()

    return replayed


def _name(netloc: str) -> str:
    """Return a host without its port."""
    if netloc.startswith("["):
        return netloc.partition("]")[0] + "]"
    return netloc.partition(":")[0]


def _is_length(words: str) -> bool:
    return words.isdecimal() and len(words) < 19


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


def _with_headers(send: Send, ancestors: str) -> Send:
    """Add the safe headers; `ancestors` are the sites that may show this page, or its refusal."""
    extra = [(k.encode(), v.encode()) for k, v in _HEADERS.items()]
    if ancestors != _SELF:  # x-frame-options cannot name sites
        extra = [(name, value) for name, value in extra if name != b"x-frame-options"]
    extra.append((b"content-security-policy", policy(ancestors=ancestors).encode()))

    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            present = {name.lower() for name, _ in message["headers"]}
            added = [(name, value) for name, value in extra if name not in present]
            message["headers"] = [*message["headers"], *added]
        await send(message)

    return sent
