"""Say what went wrong to a program: `application/problem+json` (RFC 9457), with a request id."""

import logging
import secrets
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from http import HTTPStatus

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

PROBLEM = "application/problem+json"
"""The media type of an error that a program gets."""

_request_id: ContextVar[str] = ContextVar("request_id", default="")
_log = logging.getLogger(__name__)


def request_id() -> str:
    """Return the id of the request at work, the one that the log names; a new one outside."""
    return _request_id.get() or secrets.token_hex(8)


def problem(status: int, detail: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Return an error as RFC 9457 has it; `detail` is a whole sentence that says what to do.

    What a person may be shown is said in both languages, as "… / …"; what only the writer of a
    program can mend, in English.
    """
    content = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail.encode("utf-8", "replace").decode(),  # half a character is no JSON
        "instance": request_id(),
    }
    return JSONResponse(content, status, headers, PROBLEM)


def problem_handlers(app: FastAPI) -> None:
    """Make an application answer refused and unreadable requests with problems."""
    for error, answer in HANDLERS.items():
        app.add_exception_handler(error, answer)


def _refused(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return problem(error.status_code, str(error.detail), error.headers)


def _unreadable(request: Request, error: Exception) -> JSONResponse:
    """Name the fields that do not fit; their values are not sent back."""
    assert isinstance(error, RequestValidationError)
    fields = [".".join(str(part) for part in one["loc"]) for one in error.errors()]
    said = "; ".join(
        f"{name}: {one['msg']}" for name, one in zip(fields, error.errors(), strict=True)
    )
    return problem(422, f"The request could not be read: {said[:500]}.")


HANDLERS: Mapping[type[Exception], Callable[[Request, Exception], JSONResponse]] = {
    HTTPException: _refused,
    RequestValidationError: _unreadable,
}
"""What answers the errors that an application raises on purpose."""


class Problems:
    """Give every request an id, and the one that fails a plain answer that names it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on; log what breaks with the id that the answer gives."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        number = secrets.token_hex(8)
        _request_id.set(number)
        begun = ended = False

        async def numbered(message: Message) -> None:
            nonlocal begun, ended
            ended = message["type"] == "http.response.body" and not message.get("more_body")
            if message["type"] == "http.response.start":
                begun = True
                pair = (b"x-request-id", number.encode())
                message = {**message, "headers": [*message["headers"], pair]}
            await send(message)

        try:
            await self._app(scope, receive, numbered)
        except Exception as error:
            if begun and not ended and isinstance(error.__cause__, HTTPException):
                # Gradio refuses a stream within it and then raises that too: no fault, no traceback
                await numbered({"type": "http.response.body", "body": b""})
                return
            _log.exception("request %s failed", number)
            if begun:
                raise
            words = (
                "我们这边出了问题，请再试一次；如果还是这样，请把这个编号告诉我们。 / Something "
                "went wrong on our side. Try again; if it stays, tell us this id."
            )
            await problem(500, words)(scope, receive, numbered)
