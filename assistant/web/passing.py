"""Pass a request on to the worker that it belongs to, where several serve on one address.

Any worker answers most of what is asked. What lives in one process has one owner: a session of
Gradio's, whose questions and answers take two connections, the worker that its hash names; the
maintainers' work, which goes on for minutes, the first. The kernel hands connections to whichever
worker is free, so that one may have to ask the owner in place of the client, over a socket in a
folder that only this user can open.
"""

import asyncio
import logging
import socket
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import orjson
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from assistant.web.guard import replay
from assistant.web.problems import problem

_MAINTAINERS = "/maintain"
_HEARTBEAT = "/gradio_api/heartbeat/"
_TOLD = ("/gradio_api/queue/join", "/gradio_api/cancel")  # the body names the session
_LISTENED = "/gradio_api/queue/data"
_CLIENT, _SCHEME = b"x-worker-client", b"x-worker-scheme"
_HOPS = {  # what belongs to a connection, and what is written anew
    *(b"connection", b"keep-alive", b"transfer-encoding", b"te", b"trailer", b"upgrade"),
    *(b"date", _CLIENT, _SCHEME),
}
_BACKLOG = 512
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Peers:
    """Hold which worker of how many this one is, and the folder of their sockets."""

    folder: Path
    number: int
    count: int

    def socket_of(self, number: int) -> str:
        """Return the path at which a worker listens to the others."""
        return str(self.folder / f"{number}.sock")

    def listen(self) -> socket.socket:
        """Return the socket at which the others ask this worker, in the place of one that died."""
        path = Path(self.socket_of(self.number))
        path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(str(path))
        listener.listen(_BACKLOG)
        return listener

    def owner(self, path: str, query: bytes, body: bytes) -> int:
        """Return the number of the worker that must answer; this one's when any may."""
        if path == _MAINTAINERS or path.startswith(f"{_MAINTAINERS}/"):
            return 0
        session = _session(path, query, body)
        return (
            zlib.crc32(session.encode("utf-8", "replace")) % self.count if session else self.number
        )


def _session(path: str, query: bytes, body: bytes) -> str:
    """Return the hash of the Gradio session that a request is about, "" for none."""
    if path.startswith(_HEARTBEAT):
        return path.removeprefix(_HEARTBEAT).strip("/")
    if path.startswith(_LISTENED):
        return QueryParams(query).get("session_hash", "")
    if path.startswith(_TOLD):
        try:
            told = orjson.loads(body)
        except ValueError:
            return ""
        session = told.get("session_hash") if isinstance(told, dict) else None
        return session if isinstance(session, str) else ""
    return ""


class Passing:
    """Answer a request, or have its owner answer it. Belongs inside the Guard, before all else.

    What another worker passes on arrives with the client and scheme of the request it was given,
    is counted here and nowhere else, and is answered here whoever owns it.
    """

    def __init__(self, app: ASGIApp, peers: Peers, seconds: float) -> None:
        """Take the application, the workers, and how long an owner may take to begin."""
        self._app = app
        self._peers = peers
        self._seconds = seconds
        self._own = peers.socket_of(peers.number)
        self._ways: dict[int, httpx.AsyncHTTPTransport] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or down."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif (scope.get("server") or ("",))[0] == self._own:
            await self._app(_as_it_came(scope), receive, send)
        else:
            request = Request(scope, receive)
            body = await request.body()  # the Guard has it already
            owner = self._peers.owner(scope["path"], scope["query_string"], body)
            if owner == self._peers.number:
                await self._app(scope, replay(body, receive), send)
            else:
                await self._pass_on(owner, body, scope, receive, send)

    async def _pass_on(
        self, owner: int, body: bytes, scope: Scope, receive: Receive, send: Send
    ) -> None:
        request = httpx.Request(
            scope["method"],
            httpx.URL(scheme="http", host="worker", raw_path=_target(scope)),
            headers=[*_kept(scope["headers"]), *_origin(scope)],
            content=body,
        )
        try:
            async with asyncio.timeout(self._seconds):
                answer = await self._way_to(owner).handle_async_request(request)
        except (httpx.TransportError, TimeoutError) as error:
            _log.warning("worker %d does not answer: %s", owner, type(error).__name__)
            words = (
                "这部分服务正在重启，请稍后再试。 / This part of the service starts anew. Try "
                "again in a moment."
            )
            await problem(503, words, {"retry-after": "1"})(scope, receive, send)
            return
        try:
            response = StreamingResponse(answer.aiter_raw(), answer.status_code)
            response.raw_headers = list(_kept(answer.headers.raw))
            await response(scope, receive, send)
        finally:
            await answer.aclose()

    def _way_to(self, owner: int) -> httpx.AsyncHTTPTransport:
        if owner not in self._ways:
            # A connection for each request: one that is kept may be closed just when it is used.
            limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
            path = self._peers.socket_of(owner)
            self._ways[owner] = httpx.AsyncHTTPTransport(uds=path, limits=limits, trust_env=False)
        return self._ways[owner]


def _target(scope: Scope) -> bytes:
    path, query = scope["raw_path"], scope["query_string"]
    return bytes(path + b"?" + query if query else path)


def _kept(headers: Iterable[tuple[bytes, bytes]]) -> Iterator[tuple[bytes, bytes]]:
    return ((name, value) for name, value in headers if name.lower() not in _HOPS)


def _origin(scope: Scope) -> list[tuple[bytes, bytes]]:
    """Return headers that say from where a request came to us."""
    client = scope.get("client") or ("", 0)
    return [
        (_CLIENT, str(client[0]).encode("latin-1", "replace")),
        (_SCHEME, scope["scheme"].encode()),
    ]


def _as_it_came(scope: Scope) -> Scope:
    """Return a request as it came to the worker that passed it on."""
    headers = dict(scope["headers"])
    kept = [(name, value) for name, value in scope["headers"] if name not in (_CLIENT, _SCHEME)]
    client = (headers.get(_CLIENT, b"").decode("latin-1"), 0)
    scheme = headers.get(_SCHEME, b"http").decode("latin-1")
    return {**scope, "headers": kept, "client": client, "scheme": scheme}
