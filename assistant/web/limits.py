"""Keep one client from taking what belongs to all: a rate, a bound on work at once, a deadline."""

import asyncio
import ipaddress
import math
import mmap
import secrets
import struct
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from hashlib import blake2b

from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from assistant.settings import Settings
from assistant.web.login import bearer, person_of
from assistant.web.problems import problem

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

_MINUTE = 60.0
_SAME_TIME = 1e-6  # sums of seconds are not exact
_SHELVES, _PLACES = 8192, 8  # for 65,536 clients, in a megabyte
_SHELF = struct.Struct(f"={_PLACES}Q{_PLACES}d")
_NAME, _TIME = struct.Struct("=Q"), struct.Struct("=d")
# Neither counted nor queued: what a page is made of (some sixty files), the ear of a question that
# was counted when it was asked, and the answers that tell an overseer whether we live.
_FREE = (
    "/assets/",
    "/static/",
    "/theme.css",
    "/favicon.ico",
    "/pwa_icon",
    "/manifest.json",
    "/healthz",
    "/readyz",
    "/gradio_api/queue/data",
    "/gradio_api/heartbeat/",
    "/gradio_api/startup-events",
    "/gradio_api/app_id",
)

_CROWDED = (
    "现在提问的人太多，请稍后再试。 / Too many people are asking at once. Try again in a moment."
)


class Limits:
    """Refuse early what is too much: 429 to the one client, 503 when all places are taken.

    A client is the address of the connection, or what a trusted proxy says in its place
    (`protocol.server_options`); an IPv6 client is its /64. Whoever is signed in is a client of
    their own there: an office has one address. A request is at work until its answer
    begins, and must begin it in `request_seconds`, waiting included; what then flows, a download
    or a stream of events, takes as long as it takes. Belongs inside the Guard, which waits for
    whole bodies, so that a slow sender holds no place.
    """

    def __init__(
        self,
        app: ASGIApp,
        settings: Settings,
        rates: "Rates | None" = None,
        spares: Callable[[Request], bool] = lambda request: False,
    ) -> None:
        """Take the application, and what other workers of the service count in too.

        `spares` tells of a request whether it is not counted.
        """
        self._app = app
        self._seconds = settings.request_seconds
        self._most_waiting = settings.max_waiting
        self._places = asyncio.Semaphore(settings.max_at_once)
        self._waiting = 0
        rates = rates or Rates.of(settings)
        self._spares = spares
        self._requests, self._sign_ins = rates.requests, rates.sign_ins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Count, queue and time a request."""
        if scope["type"] != "http" or scope["path"].startswith(_FREE):
            await self._app(scope, receive, send)
            return
        client = client_of(scope)
        has_token = bearer(Request(scope)) is not None
        if seconds := self._counted(scope, client, has_token):
            wait = math.ceil(seconds)
            words = (
                f"请求太频繁了，请过 {wait} 秒再试。 / Too many requests came from you. Try "
                f"again in {wait} seconds."
            )
            answer = problem(429, words, {"retry-after": str(wait)})
        elif self._places.locked() and self._waiting >= self._most_waiting:
            answer = problem(503, _CROWDED, {"retry-after": "1"})
        elif await self._answered(
            scope, receive, self._noting(client, send) if has_token else send
        ):
            return
        else:
            words = (
                f"{self._seconds:g} 秒内没有得到回答，请稍后再试。 / No answer was found within "
                f"{self._seconds:g} seconds. Try again later."
            )
            answer = problem(503, words, {"retry-after": "5"})
        await answer(scope, receive, send)

    def _counted(self, scope: Scope, client: str, has_token: bool) -> float:
        """Count a request to whoever sent it; return how long they must wait, 0 when it is taken.

        Passwords and tokens are tries of an address. Who has none left is refused before a token
        is looked at, and a wrong one that its address's rate refuses is a try too: no refusal tells
        how good a token is.
        """
        if has_token and (seconds := self._sign_ins.wait(client)):
            return seconds
        request = Request(scope)
        person = person_of(request) if "app" in scope else None
        name = f"{person.name} at {client}" if person else client
        if seconds := 0.0 if self._spares(request) else self._requests.take(name):
            if has_token and person is None:
                self._sign_ins.take(client)
            return seconds
        tries = scope["path"] == "/login" and (
            scope["method"] == "POST" or "token" in QueryParams(scope["query_string"])
        )
        return self._sign_ins.take(client) if tries else 0.0

    def _noting(self, client: str, send: Send) -> Send:
        """Count a bearer token that was refused as a try, as the sign-in page's are."""

        async def noted(message: Message) -> None:
            if message.get("status") == 401:
                self._sign_ins.take(client)
            await send(message)

        return noted

    async def _answered(self, scope: Scope, receive: Receive, send: Send) -> bool:
        """Answer a request when there is a place; give up at the deadline, and return False."""
        place = _Place(self._places)
        begun = False

        async def answered(message: Message) -> None:
            nonlocal begun
            if deadline.expired():
                return  # a part of the work that was not told yet that it is given up
            if not begun:
                begun = True
                deadline.reschedule(None)
                place.free()
            await send(message)

        try:
            async with asyncio.timeout(self._seconds) as deadline:
                self._waiting += 1
                try:
                    await place.take()
                finally:
                    self._waiting -= 1
                await self._app(scope, receive, answered)
        except TimeoutError:
            if not deadline.expired():
                raise
            return False
        finally:
            place.free()
        return True


class _Place:
    """One of the places at work; it is freed once, however often it is said."""

    def __init__(self, places: asyncio.Semaphore) -> None:
        self._places = places
        self._taken = False

    async def take(self) -> None:
        await self._places.acquire()
        self._taken = True

    def free(self) -> None:
        if self._taken:
            self._taken = False
            self._places.release()


class Turns:
    """Let one process at a time do something; one that dies in between leaves it to the next."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  (as long as this lasts)

    def __enter__(self) -> None:
        fcntl.lockf(self._file, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        fcntl.lockf(self._file, fcntl.LOCK_UN)


class Buckets:
    """Hold a bucket per client: it takes so many requests at once and empties within a minute.

    One number a client (the generic cell rate algorithm): when its bucket will be empty. They lie
    in memory that is shared with processes forked later, which must then count by turns. A client
    has its place on one of many short shelves; who comes new to a full one takes the place of the
    bucket that is the nearest to be empty. The package `limits` was tried first: its moving window
    kept a core 75 % busy at 20,000 clients.
    """

    def __init__(
        self,
        per_minute: int,
        clock: Callable[[], float] = time.monotonic,
        turns: AbstractContextManager[None] | None = None,
    ) -> None:
        self._each = _MINUTE / per_minute if per_minute else 0.0
        self._clock = clock
        self._turns = turns or nullcontext()
        self._shelves = mmap.mmap(-1, _SHELVES * _SHELF.size)
        self._secret = secrets.token_bytes(16)  # nobody chooses whose shelf to be on

    def take(self, client: str) -> float:
        """Count a request; return 0, or the seconds until it would be taken (not counted then)."""
        if not self._each:
            return 0.0
        name, shelf = self._place(client)
        with self._turns:
            now = self._clock()
            place, empty = self._find(name, shelf)
            if seconds := self._seconds(empty, now):
                return seconds
            start = shelf * _SHELF.size
            _NAME.pack_into(self._shelves, start + place * _NAME.size, name)
            times = start + _PLACES * _NAME.size
            filled = max(empty, now) + self._each
            _TIME.pack_into(self._shelves, times + place * _TIME.size, filled)
        return 0.0

    def wait(self, client: str) -> float:
        """Return the seconds until a client's next request would be taken."""
        if not self._each:
            return 0.0
        with self._turns:
            _, empty = self._find(*self._place(client))
        return self._seconds(empty, self._clock())

    def _place(self, client: str) -> tuple[int, int]:
        """Return what a client is called here, and its shelf."""
        digest = blake2b(client.encode(), digest_size=8, key=self._secret).digest()
        name = int.from_bytes(digest)
        return name, name % _SHELVES

    def _find(self, name: int, shelf: int) -> tuple[int, float]:
        """Return the place of a client's bucket and when it will be empty; else of one to take."""
        found = _SHELF.unpack_from(self._shelves, shelf * _SHELF.size)
        names, times = found[:_PLACES], found[_PLACES:]
        if name in names:
            place = names.index(name)
            return place, times[place]
        return times.index(min(times)), 0.0

    def _seconds(self, empty: float, now: float) -> float:
        seconds = empty - (now + _MINUTE - self._each)
        return seconds if seconds > _SAME_TIME else 0.0


@dataclass(frozen=True, slots=True)
class Rates:
    """Hold what is counted a minute: requests, and sign-ins."""

    requests: Buckets
    sign_ins: Buckets

    @classmethod
    def of(
        cls,
        settings: Settings,
        clock: Callable[[], float] = time.monotonic,
        turns: AbstractContextManager[None] | None = None,
    ) -> "Rates":
        """Return empty buckets, of the sizes that the settings name."""
        limits = (settings.rate_per_minute, settings.rate_login_per_minute)
        return cls(*(Buckets(most, clock, turns) for most in limits))


def client_of(scope: Scope) -> str:
    """Return whom a request is counted to."""
    host = str(scope["client"][0]) if scope.get("client") else ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host[:64]
    if isinstance(address, ipaddress.IPv4Address):
        return host
    if address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((int(address), 64), strict=False))
