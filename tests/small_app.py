"""A small application behind the product's own sign-in and limits; run as a program, it serves."""

import asyncio
import logging
import socket
import time
from pathlib import Path
from typing import Annotated

import uvicorn
from fastapi import Depends, FastAPI, Request
from starlette.responses import StreamingResponse

from assistant.access import Access, Person
from assistant.settings import Settings
from assistant.web.guard import Guard
from assistant.web.limits import Limits
from assistant.web.login import needs, sign_in_routes
from assistant.web.office import office, static_routes
from assistant.web.plain import Plain
from assistant.web.problems import Problems, problem_handlers
from assistant.web.protocol import patient, server_options

Agent = Annotated[Person, Depends(needs("agent"))]
Maintainer = Annotated[Person, Depends(needs("maintainer"))]


def create(settings: Settings) -> FastAPI:
    """Return the application, put together as the product's is."""
    app = FastAPI(openapi_url=None)
    problem_handlers(app)
    sign_in_routes(app, Access.open(settings))
    static_routes(app)
    app.state.cancelled = app.state.done = 0

    @app.get("/agent")
    def agent(request: Request, person: Agent):
        given = {"heading": "not_allowed", "words": f"hello {person.name}", "typed": ()}
        return office("refused.html", request, person, onward="", **given)

    @app.get("/maintain")
    def maintain(person: Maintainer):
        return {"name": person.name}

    @app.post("/agent/note")
    async def note(person: Agent, request: Request):
        return {"name": person.name, "fields": sorted(await request.form())}

    @app.put("/agent/json")
    async def json(person: Agent, body: dict[str, int]):
        return body

    @app.get("/healthz")
    @app.get("/ping")
    async def ping(request: Request):
        return {"client": request.client.host, "scheme": request.url.scheme}

    @app.get("/slow")
    async def slow(seconds: float):
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            app.state.cancelled += 1
            raise
        app.state.done += 1
        return {}

    @app.get("/counts")
    async def counts():
        return {"cancelled": app.state.cancelled, "done": app.state.done}

    @app.get("/thread")
    def thread(seconds: float):
        time.sleep(seconds)
        return {}

    @app.get("/events")
    async def events(seconds: float):
        async def told():
            for number in range(10):
                yield f"data: {number}\n\n"
                await asyncio.sleep(seconds / 10)

        return StreamingResponse(told(), media_type="text/event-stream")

    @app.get("/large")
    async def large():
        async def told():
            try:
                while True:
                    yield b"x" * 65536
                    await asyncio.sleep(0)
            finally:
                app.state.cancelled += 1

        return StreamingResponse(told())

    @app.get("/broken")
    def broken():
        raise RuntimeError("a secret: CANARY")

    @app.get("/late")
    def late():
        raise TimeoutError("of something else")

    app.add_middleware(Limits, settings=settings)
    app.add_middleware(Problems)
    app.add_middleware(Guard, settings=settings)
    app.add_middleware(Plain)
    return app


def serve() -> None:
    """Serve on a free port, with settings from the environment."""
    logging.basicConfig(level=logging.INFO)
    settings = Settings(users=Path("var/users.toml"))
    app = create(settings)
    access: Access = app.state.access
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    options = server_options(settings) | {"http": patient(settings.request_seconds, 2.0)}
    server = uvicorn.Server(uvicorn.Config(app, log_level="info", **options))
    for role, token in access.first_run.items():
        Path(f"{role}.token").write_text(token)
    print(f"Serving on http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    server.run(sockets=[listener])


if __name__ == "__main__":
    serve()
