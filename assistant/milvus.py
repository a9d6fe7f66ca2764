"""Speak to a Milvus server: each call has a deadline, whatever goes wrong is one clear error."""

import logging
import re
import threading
import time
from functools import cache
from typing import Any
from urllib.parse import urlsplit

from assistant.errors import IndexUnusable, StoreDown, UsageError
from assistant.settings import Settings

_log = logging.getLogger(__name__)
_OLDEST = (2, 4)  # the first with sparse vectors
_REST_SECONDS = 1.0  # between two tries of a server that is down
_NOT_FOUND, _NOT_LOADED = 100, 101  # Milvus's codes
# The latter two are said to a caller whose connection another one gave up.
_UNREACHABLE = re.compile("Fail connecting|UNAVAILABLE|CANCELLED|closed")
_ADDRESS = re.compile(r"(?:https?|tcp)://[^/\s]+(?:/\S*)?|\S.*\.db")
_EXPECTED = "Expected http://HOST:19530, https://HOST or a local file ending in .db"
_START = "Start it, or put its address into ASSISTANT_MILVUS_URI"
_REBUILD = "Rebuild with: assistant build"


class PutAway(StoreDown):
    """Report a collection that the server has, but not in memory."""


class Server:
    """Call one server. Thread-safe.

    While the server is down one call at a time finds out whether it is back; others fail at once.
    """

    def __init__(self, uri: str, token: str, seconds: float) -> None:
        """Take an address; it is connected to by the first call."""
        self.place = _place(uri)
        self._uri, self._token, self._seconds = uri, token, seconds
        self._client: Any = None
        self._lock = threading.Lock()
        self._next_try: float | None = None
        self._problem = ""

    def call(self, method: str, *arguments: Any, seconds: float | None = None, **named: Any) -> Any:
        """Call a method of pymilvus's client; `seconds` is the deadline, else the setting's.

        Raises IndexUnusable when a collection is missing, StoreDown for all else.
        """
        errors = _errors()
        self._take_turn()
        try:
            client = self._client or self._connect()
            done = getattr(client, method)(*arguments, timeout=seconds or self._seconds, **named)
        except errors as error:
            raise self._explain(error) from None
        self._next_try = None
        return done

    def _take_turn(self) -> None:
        with self._lock:
            if self._next_try is None:
                return
            if time.monotonic() < self._next_try:
                raise StoreDown(self._problem)
            self._next_try = time.monotonic() + self._seconds + _REST_SECONDS

    def _connect(self) -> Any:
        client = library().MilvusClient(
            self._uri, token=self._token, timeout=self._seconds, dedicated=True
        )
        version = str(client.get_server_version(timeout=self._seconds))
        found = re.search(r"(\d+)\.(\d+)", version)
        if found and (int(found[1]), int(found[2])) < _OLDEST:
            client.close()
            raise StoreDown(
                f"{self.place} is version {version}, expected {'.'.join(map(str, _OLDEST))} or "
                "newer. Update the server"
            )
        self._client = client
        return client

    def _explain(self, error: Exception) -> IndexUnusable:
        """Return what went wrong in words that name the fix; the details are for the log."""
        code, words = _code(error), str(getattr(error, "message", "") or error)
        said = f"{code} {words} {error.__cause__!r}"
        if "UNAUTHENTICATED" in said or "PERMISSION_DENIED" in said:
            problem = "refuses the token. Put the right one into ASSISTANT_MILVUS_TOKEN"
        elif "local milvus" in words:
            problem = "cannot be opened: its folder is missing, or another process has it open"
        elif "milvus-lite is required" in words:
            problem = "needs milvus-lite. Install it with: pip install milvus-lite"
        elif "DEADLINE" in said or "imeout" in words:
            problem = f"did not answer within milvus_seconds = {self._seconds:g}. {_START}"
        elif _UNREACHABLE.search(said):
            problem = f"cannot be reached, or is no Milvus server. {_START}"
        else:
            return self._refused(code, words)
        _log.error("%s: %.300s", self.place, words)
        return self._rest(f"{self.place} {problem}")

    def _refused(self, code: Any, words: str) -> IndexUnusable:
        """Return what a server that is there did not do."""
        self._next_try = None
        if code == _NOT_FOUND:
            return IndexUnusable(f"{self.place} lacks the collection of this index. {_REBUILD}")
        if code == _NOT_LOADED:
            return PutAway(f"{self.place} has put the collection of this index away")
        return StoreDown(f"{self.place} did not do as asked ({words:.150}). {_REBUILD}")

    def _rest(self, problem: str) -> StoreDown:
        """Have no one wait in vain for a moment; then try with a new connection."""
        with self._lock:
            self._next_try = time.monotonic() + _REST_SECONDS
            self._problem, client, self._client = problem, self._client, None
        if client is not None:
            client.close()
        return StoreDown(problem)


def server_of(settings: Settings) -> Server:
    """Return the server of the settings; raise UsageError when they name none."""
    uri = settings.milvus_uri
    if uri is None or not _ADDRESS.fullmatch(uri):
        seen = "not set" if uri is None else f"{_place(uri).removeprefix('Milvus at ')!r}"
        raise UsageError(f"setting 'milvus_uri' is {seen}. {_EXPECTED}")
    token = settings.milvus_token.get_secret_value() if settings.milvus_token else ""
    return _server(uri, token, settings.milvus_seconds)


@cache
def _server(uri: str, token: str, seconds: float) -> Server:
    return Server(uri, token, seconds)


@cache
def library() -> Any:
    """Return pymilvus; raise UsageError, naming the extra, where it is not installed."""
    try:
        import pymilvus
    except ImportError:
        raise UsageError(
            "Milvus needs the extra 'milvus'. Install it with: pip install '.[milvus]'"
        ) from None
    # It prints each failed call with a traceback; what matters of it is said by `Server._explain`.
    logging.getLogger("pymilvus").setLevel(logging.CRITICAL)
    return pymilvus


def _errors() -> tuple[type[Exception], ...]:
    library()
    from grpc import RpcError
    from pymilvus import MilvusException

    return (MilvusException, RpcError)


def _code(error: Exception) -> Any:
    code = getattr(error, "code", "")
    return code() if callable(code) else code


def _place(uri: str) -> str:
    """Name a server by its address, without a password that this may carry."""
    if uri.endswith(".db"):
        return f"the Milvus file {uri}"
    parts = urlsplit(uri if "//" in uri else f"//{uri}")
    return f"Milvus at {parts.netloc.rpartition('@')[2]}"
