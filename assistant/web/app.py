"""Put the application together and serve it."""

import logging
import os
import secrets
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import gradio as gr
import uvicorn
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from assistant.access import Access
from assistant.desk import Desk
from assistant.embed import Encoder, is_light, open_encoder
from assistant.errors import AssistantError, UsageError
from assistant.frontdesk import FrontDesk
from assistant.history import History
from assistant.settings import Settings
from assistant.terminal import Progress, safe
from assistant.web.agent import agent_routes
from assistant.web.api import api
from assistant.web.docs import docs
from assistant.web.guard import Guard, frame_ancestors
from assistant.web.limits import Limits, Rates, Turns
from assistant.web.live import restart_on_change
from assistant.web.login import sign_in_routes
from assistant.web.maintain import maintain_routes
from assistant.web.mcp import mount_mcp
from assistant.web.office import static_routes
from assistant.web.page import I18N, THEME, build_page
from assistant.web.passing import Passing, Peers
from assistant.web.plain import Plain, language_of_reader
from assistant.web.problems import HANDLERS, Problems, problem_handlers
from assistant.web.protocol import Listener, server_options, take_handles
from assistant.web.render import page_html, source_html, text
from assistant.web.shell import Shell
from assistant.web.telemetry import Counted, Telemetry, share_metrics
from assistant.web.widget import widget_routes
from assistant.web.wording import say
from assistant.webhook import Webhook
from assistant.workers import run_workers

_SOURCE_HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'self'"
}
_ICON = Path(__file__).parent / "static" / "icon.svg"
_DRAIN_SECONDS = 5
_BACKLOG = 2048
_PATIENCE = 1.5  # of a worker with another, in the seconds that a request may take


@dataclass(frozen=True, slots=True)
class Crew:
    """Hold what the workers of one service have in common, and which of them this one is.

    `metrics` is the folder of their figures, `page` what Gradio's page knows its server by. The
    encoder is there when a fork can share it.
    """

    peers: Peers
    rates: Rates
    metrics: Path
    page: int
    encoder: Encoder | None = None


def create_app(front: FrontDesk, access: Access, crew: Crew | None = None) -> FastAPI:
    """Return the application over a desk: the pages of all three, and the doors for programs."""
    app = FastAPI(title="Support assistant", docs_url=None, redoc_url=None, openapi_url=None)
    telemetry = Telemetry(front, crew.metrics if crew else None)
    page = build_page(front)
    # The last one added is the first to see a request.
    app.add_middleware(Shell, ancestors=frame_ancestors(front.settings))
    rates = crew.rates if crew else None
    app.add_middleware(Limits, settings=front.settings, rates=rates, spares=telemetry.scraped)
    app.add_middleware(Counted, telemetry=telemetry)
    app.add_middleware(Problems)
    if crew:
        page.app_id = crew.page  # else the page takes each worker for a new server
        patience = _PATIENCE * front.settings.request_seconds
        app.add_middleware(Passing, peers=crew.peers, seconds=patience)
    app.add_middleware(Guard, settings=front.settings)
    app.add_middleware(Plain)
    problem_handlers(app)
    sign_in_routes(app, access)
    static_routes(app)
    telemetry.routes(app)
    rest = api(front)
    for router in (rest, agent_routes(front), maintain_routes(front)):
        app.include_router(router)
    if front.settings.api_docs:
        app.include_router(docs(rest, front.settings))
    widget_routes(app)
    mount_mcp(app, front)
    source = _source(front.desk)
    app.add_api_route("/source/{path:path}", source, methods=["GET"], include_in_schema=False)
    mounted: FastAPI = gr.mount_gradio_app(
        app,
        page,
        path="/",
        favicon_path=str(_ICON),
        footer_links=[],
        run_history=False,
        show_error=False,
        max_file_size=1,
        ssr_mode=False,
        i18n=I18N,
        theme=THEME,
        mcp_server=False,
        enable_monitoring=False,
        app_kwargs={
            "openapi_url": None,
            "exception_handlers": dict(HANDLERS),
        },
    )
    return mounted


def _source(desk: Desk) -> Callable[[Request, str], Response]:
    def source(request: Request, path: str) -> Response:
        language = language_of_reader(request.scope)
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
    take_handles()
    with _listen(settings) as listener:  # first: a taken port is said before anything is built
        access = Access.open(settings)

        def announce() -> None:
            address = _address(listener)
            print(f"Serving on {address}", flush=True)
            for role, token in access.first_run.items():
                print(f"Sign in as {role}: {address}/login?token={token}", flush=True)

        if settings.workers > 1:
            return _serve_together(settings, listener, access, announce)
        return _serve(settings, [listener], access, announce)


def _serve_together(
    settings: Settings, listener: socket.socket, access: Access, announce: Callable[[], None]
) -> int:
    """Serve by several processes, which take connections from one socket."""
    if not (hasattr(os, "fork") and hasattr(socket, "AF_UNIX")):
        raise UsageError("several workers need Linux or macOS: set workers to 1")
    if not access.lasting:
        raise UsageError(
            f"{settings.users.parent} cannot be written to, by which workers tell each other who "
            "signed out: make it writable, name another file in users, or set workers to 1"
        )
    with TemporaryDirectory(prefix="assistant-") as name:
        folder = Path(name)
        rates, page = Rates.of(settings, turns=Turns()), secrets.randbits(52)
        encoder = open_encoder(settings) if is_light(settings) else None

        def work(number: int, ready: Callable[[], None]) -> int:
            share_metrics(folder, number)
            peers = Peers(folder, number, settings.workers)
            crew = Crew(peers, rates, folder, page, encoder)
            try:
                return _serve(settings, [listener, peers.listen()], access, ready, crew)
            except AssistantError as error:
                print(f"assistant: {safe(str(error))}", file=sys.stderr)
                return error.exit_code

        return run_workers(settings.workers, work, announce)


def _serve(
    settings: Settings,
    sockets: Sequence[socket.socket],
    access: Access,
    ready: Callable[[], None],
    crew: Crew | None = None,
) -> int:
    """Serve by this process, until it is told to end."""
    with Progress() as progress:
        desk = Desk.open(settings, progress, crew.encoder if crew else None)
    history = History.open(settings)
    front = FrontDesk(desk, history)
    application = create_app(front, access, crew)
    webhook = Webhook(history, settings)
    if crew is None:
        restart_on_change()
    if crew is None or crew.peers.number == 0:
        webhook.start()
        for note in front.notes:
            print(note, file=sys.stderr)
    config = uvicorn.Config(
        application,
        log_level="warning",
        timeout_graceful_shutdown=_DRAIN_SECONDS,
        **server_options(settings),
    )
    server = uvicorn.Server(config)

    def end(*_: object) -> None:
        server.should_exit = True

    # uvicorn drains, then raises the signal anew: to be told to end is no failure
    signal.signal(signal.SIGTERM, end)
    ready()
    server.run(sockets=list(sockets))
    webhook.stop()
    history.close()
    return 0


def _address(listener: socket.socket) -> str:
    """Return the address to open in a browser of this machine."""
    host, port = listener.getsockname()[:2]
    name = "localhost" if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
    return f"http://{name}:{port}"


def _listen(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = Listener(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
        listener.listen(_BACKLOG)  # two that only bind could share a port
    except OSError as error:
        listener.close()
        raise UsageError(
            f"cannot serve on {settings.host}:{settings.port}: {os.strerror(error.errno or 0)}. "
            "Choose another with --port (0 takes a free one) or ASSISTANT_PORT."
        ) from None
    return listener
