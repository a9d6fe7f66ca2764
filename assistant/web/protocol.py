"""Close connections of clients that neither ask nor listen; uvicorn itself waits for ever."""

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from assistant.settings import Settings


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
