"""Close connections of clients that neither ask nor listen; uvicorn itself waits for ever."""

import asyncio
import errno
import logging
import os
import socket
import time
from contextlib import suppress
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from assistant.settings import Settings

try:
    import resource
except ImportError:  # not on Windows
    resource = None  # type: ignore[assignment]

_MOST_HANDLES = 65_536
_SAY_EVERY = 60.0
_log = logging.getLogger(__name__)


def server_options(settings: Settings) -> dict[str, Any]:
    """Return what `uvicorn.Config` needs to be told: patience, proxies, and nothing to spare.

    A trusted proxy's X-Forwarded-For and X-Forwarded-Proto become the request's client and scheme;
    without one, both are what the connection is. No request line is logged: it may hold a token.
    """
    return {
        "http": patient(settings.request_seconds),
        "ws": "none",
        "proxy_headers": True,
        "forwarded_allow_ips": [str(network) for network in settings.trusted_proxies],
        "access_log": False,
        "server_header": False,
    }


def take_handles() -> None:
    """Let this process have as many files and connections open as the system lets it."""
    if resource:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = _MOST_HANDLES if hard == resource.RLIM_INFINITY else min(hard, _MOST_HANDLES)
        with suppress(ValueError, OSError):  # macOS has a limit below "unlimited"
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))


class Listener(socket.socket):
    """Listen; while no handle is left, hang up on whoever comes.

    asyncio would let them wait and try again, thousands of times a second, a traceback for each.
    """

    def __init__(self, family: int) -> None:
        # named, for asyncio sets TCP_NODELAY on TCP alone, and without it each answer waits 40 ms
        super().__init__(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self._spare: int | None = os.open(os.devnull, os.O_RDONLY)
        self._said = -_SAY_EVERY

    def accept(self) -> tuple[socket.socket, Any]:
        """Return a connection; raise BlockingIOError when there is none, or it was closed."""
        try:
            return super().accept()
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                raise
            self._hang_up()
            raise BlockingIOError(error.errno, "no handle is left") from None

    def close(self) -> None:
        """Let go of the port."""
        super().close()
        self._give_spare()

    def _hang_up(self) -> None:
        """Take a connection by a handle that was kept for this, and close it."""
        self._give_spare()
        with suppress(OSError):
            super().accept()[0].close()
        with suppress(OSError):
            self._spare = os.open(os.devnull, os.O_RDONLY)
        if time.monotonic() - self._said > _SAY_EVERY:
            self._said = time.monotonic()
            _log.error("no handle is left: connections are refused until others end (ulimit -n)")

    def _give_spare(self) -> None:
        if self._spare is not None:
            os.close(self._spare)
            self._spare = None


def patient(asking: float, listening: float = 60.0) -> type[H11Protocol]:
    """Return uvicorn's protocol with a limit to its patience, in seconds.

    Closed is a connection whose request head is not whole within `asking` of connecting or, after
    an answer, of its first byte; and one that takes less than some 50 kB of what it is sent within
    `listening`.
    """

    class Patient(H11Protocol):
        _head: asyncio.TimerHandle | None = None
        _stalled: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._watch()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._watch()

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            _cancel(self._head)
            _cancel(self._stalled)

        def pause_writing(self) -> None:
            super().pause_writing()
            self._stalled = self.loop.call_later(listening, self.transport.abort)

        def resume_writing(self) -> None:
            super().resume_writing()
            _cancel(self._stalled)

        def _watch(self) -> None:
            """Time the wait for a request as a whole, not for its next byte."""
            if self.conn.their_state is not h11.IDLE or self.transport.is_closing():
                _cancel(self._head)
                self._head = None
            elif self._head is None:
                self._head = self.loop.call_later(asking, self.timeout_keep_alive_handler)

    return Patient


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
