"""Put the application together and serve it."""

import logging
import os
import socket
import sys
from collections.abc import Callable

import gradio as gr
import uvicorn
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from assistant.answer import Language
from assistant.desk import Desk
from assistant.errors import UsageError
from assistant.settings import Settings
from assistant.terminal import Progress
from assistant.web.guard import Guard
from assistant.web.page import CSS, I18N, THEME, build_page
from assistant.web.render import page_html, source_html, text
from assistant.web.wording import say

_SOURCE_HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'self'"
}
_DRAIN_SECONDS = 10


def create_app(desk: Desk) -> FastAPI:
    """Return the application over a desk: health, source viewer, and the page at `/`."""
    app = FastAPI(title="Support assistant", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(Guard, settings=desk.settings)
    app.add_api_route("/healthz", _health(desk), include_in_schema=False)
    app.add_api_route("/source/{path:path}", _source(desk), include_in_schema=False)
    mounted: FastAPI = gr.mount_gradio_app(
        app,
        build_page(desk),
        path="/",
        footer_links=[],
        run_history=False,
        show_error=False,
        max_file_size=1,
        ssr_mode=False,
        i18n=I18N,
        theme=THEME,
        css=CSS,
        mcp_server=False,
        enable_monitoring=False,
    )
    return mounted


def _health(desk: Desk) -> Callable[[], JSONResponse]:
    def health() -> JSONResponse:
        return JSONResponse({"status": "ok", "generation": desk.generation})

    return health


def _source(desk: Desk) -> Callable[[Request, str], Response]:
    def source(request: Request, path: str) -> Response:
        chinese = "zh" in request.headers.get("accept-language", "zh")
        language: Language = "zh" if chinese else "en"
        document = desk.document(path)
        if document is None:
            words = f"<p>{text(say('no_source', language))}</p>"
            page = page_html(say("source_of", language), words, language)
            return HTMLResponse(page, 404, headers=_SOURCE_HEADERS)
        start, end = (_number(request.query_params.get(name)) for name in ("start", "end"))
        page = source_html(document, start, end, language)
        return HTMLResponse(page, headers=_SOURCE_HEADERS)

    return source


def _number(words: str | None) -> int:
    return int(words) if words and words.isascii() and words.isdigit() and len(words) < 12 else 0


def serve(settings: Settings) -> int:
    """Open the desk, building the index when there is none, and serve until stopped."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    with Progress() as progress:
        desk = Desk.open(settings, progress)
    for note in desk.notes:
        print(note, file=sys.stderr)
    listener = _listen(settings)
    host, port = listener.getsockname()[:2]
    print(f"Serving on http://{'localhost' if host == '0.0.0.0' else host}:{port}", flush=True)
    config = uvicorn.Config(
        create_app(desk),
        log_level="warning",
        timeout_graceful_shutdown=_DRAIN_SECONDS,
        server_header=False,
    )
    uvicorn.Server(config).run(sockets=[listener])
    return 0


def _listen(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        raise UsageError(
            f"cannot serve on {settings.host}:{settings.port}: {os.strerror(error.errno or 0)}. "
            "Choose another with --port (0 takes a free one) or ASSISTANT_PORT."
        ) from None
    return listener
