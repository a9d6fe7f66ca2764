"""Guard every route: known hosts and origins, small bodies, no uploads, safe headers."""

from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from assistant.settings import Settings

_LOOPBACK = ("127.0.0.1", "localhost", "[::1]", "::1")
_HEADERS = {
    "content-security-policy": (
        "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
        "style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self' data:; "
        "connect-src 'self'; object-src 'none'; base-uri 'self'; form-action 'self'; "
        "frame-ancestors 'self'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "SAMEORIGIN",
    "referrer-policy": "no-referrer",
}
_UPLOADS = ("/gradio_api/upload", "/upload")


class Guard:
    """Refuse foreign hosts (DNS rebinding), foreign origins (CSRF), uploads and large bodies."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._hosts = {*_LOOPBACK, settings.host, *settings.allowed_hosts}
        self._any_host = settings.host in {"0.0.0.0", "::"} and not settings.allowed_hosts
        self._most = settings.max_body_kb * 1024

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check a request, then pass it on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        if refused := self._refuse(scope, headers):
            status, words = refused
            response = JSONResponse({"detail": words}, status, headers=_HEADERS)
            await response(scope, receive, send)
            return
        await self._app(scope, self._capped(receive), _with_headers(send))

    def _refuse(self, scope: Scope, headers: dict[bytes, bytes]) -> tuple[int, str] | None:
        host = _name(headers.get(b"host", b"").decode("latin-1"))
        if not self._any_host and host not in self._hosts:
            return 400, "unknown host; name it in the setting allowed_hosts"
        if origin := headers.get(b"origin"):
            parts = urlsplit(origin.decode("latin-1"))
            if _name(parts.netloc) != host:
                return 403, "requests from other sites are not taken"
        if scope["path"].rstrip("/").endswith(_UPLOADS):
            return 403, "there is nothing to upload here"
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > self._most:
            return 413, f"the request is larger than {self._most:,} bytes"
        return None

    def _capped(self, receive: Receive) -> Receive:
        """Cut a body without a declared length off at the cap."""
        taken = 0

        async def capped() -> Message:
            nonlocal taken
            message = await receive()
            if message["type"] == "http.request":
                taken += len(message.get("body", b""))
                if taken > self._most:
                    return {"type": "http.disconnect"}
            return message

        return capped


def _name(netloc: str) -> str:
    """Return a host name without its port, in lower case."""
    if netloc.startswith("["):
        return netloc.partition("]")[0].lower() + "]"
    return netloc.partition(":")[0].lower()


def _with_headers(send: Send) -> Send:
    extra: Sequence[tuple[bytes, bytes]] = [(k.encode(), v.encode()) for k, v in _HEADERS.items()]

    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            present = {name.lower() for name, _ in message["headers"]}
            added = [(name, value) for name, value in extra if name not in present]
            message["headers"] = [*message["headers"], *added]
        await send(message)

    return sent
