"""The maintainers' pages alone, behind the product's own sign-in; run as a program, it serves."""

import logging
import os
import signal
import socket
import sys
import time
from pathlib import Path

import uvicorn
from fastapi import FastAPI, Request
from faults import FEW

from assistant import calibrate
from assistant.access import Access
from assistant.desk import Desk
from assistant.frontdesk import FrontDesk
from assistant.history import History
from assistant.settings import Settings
from assistant.web.guard import Guard
from assistant.web.limits import Limits
from assistant.web.login import sign_in_routes
from assistant.web.maintain import maintain_routes
from assistant.web.office import static_routes
from assistant.web.problems import Problems, problem_handlers
from assistant.web.rebuild import Job


def create(front: FrontDesk, access: Access) -> FastAPI:
    """Return the pages over a desk, put together as the product's are."""
    app = FastAPI(openapi_url=None)
    problem_handlers(app)
    sign_in_routes(app, access)
    static_routes(app)
    app.include_router(maintain_routes(front))

    @app.get("/ask")
    def ask(question: str, request: Request) -> dict[str, object]:
        reply = front.ask(question)
        quotes = [quote.text for quote in reply.answer.quotes]
        return {"generation": reply.answer.generation, "quotes": quotes}

    app.add_middleware(Limits, settings=front.settings)
    app.add_middleware(Problems)
    app.add_middleware(Guard, settings=front.settings)
    return app


def serve(settings: Settings) -> None:
    """Serve on a free port until told to end."""
    logging.basicConfig(level=logging.INFO)
    for name, few in FEW.items():
        setattr(calibrate, name, few)
    _slow_down(float(os.environ.get("SLOW_BUILD", "0")))
    front = FrontDesk(Desk.open(settings), History.open(settings))
    app = create(front, Access.open(settings))
    listener = socket.create_server(("127.0.0.1", 0), backlog=256)
    print(f"Serving on http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    signal.signal(signal.SIGTERM, lambda *_: None)  # as the product does: ending is no failure
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=2)
    uvicorn.Server(config).run(sockets=[listener])


def _slow_down(pause: float) -> None:
    """Make every step of a build take its time, so that it can be watched."""
    tell = Job._tell

    def slowly(self, stage, done, total):
        tell(self, stage, done, total)
        time.sleep(pause)

    Job._tell = slowly


if __name__ == "__main__":
    corpus, index, state = map(Path, sys.argv[1:])
    serve(
        Settings(
            corpus=corpus,
            index=index,
            users=state / "users.toml",
            history=f"sqlite:///{state}/history.db",
            maintainer_token="maintainer-token-of-tests",
            agent_token="agent-token-of-the-tests",
            rate_per_minute=0,
        )
    )
