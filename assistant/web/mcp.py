"""Serve language models: MCP over streamable HTTP at `/mcp`, three tools that only read."""

import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, get_args

import anyio
import orjson
from fastapi import FastAPI
from pydantic import TypeAdapter, ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

import assistant.web.bodies as bodies
from assistant.desk import NO_DOCUMENT
from assistant.errors import AssistantError, BadInput, NotInGuide
from assistant.frontdesk import FrontDesk
from assistant.settings import Settings
from assistant.web.guard import EVERYWHERE, known_hosts, replay
from assistant.web.problems import problem, request_id

PATH = "/mcp"
_ABOUT = (
    "Answers support questions from one guide, in the guide's exact words. Pass on what `ask` "
    "quotes word for word, with its source. When the verdict is not `answered`, say so and pass on "
    "the handoff. Never add a phone number, link or address of your own."
)
_INSTALL = (
    'MCP needs an extra here: .venv/bin/pip install -c constraints.txt -e ".[mcp]", then restart.'
)
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Tool:
    """Hold what a tool is: what it takes, what it does with that, and what it gives."""

    title: str
    words: str
    takes: type[bodies.Body]
    run: Callable[[Any], Any]
    gives: type


def mount_mcp(app: FastAPI, front: FrontDesk) -> None:
    """Serve MCP while the application runs; without the extra, say at the route what to install."""
    if find_spec("mcp") is None:
        app.router.routes.append(Route(PATH, _missing, methods=["GET", "POST"]))
        return
    endpoint = _Endpoint(front)
    before = app.router.lifespan_context

    @asynccontextmanager
    async def running(app: Any) -> AsyncIterator[Any]:
        async with before(app) as state, endpoint.running():
            yield state

    app.router.lifespan_context = running
    app.router.routes.append(Route(PATH, endpoint))


def tools(front: FrontDesk) -> dict[str, Tool]:
    """Return the tools over a desk, by name; none changes anything that others see."""
    return {
        "ask": Tool(
            "Ask the guide",
            "Answer a question with the guide's exact words, a calibrated confidence and, when "
            "that is low, the way to a person. Give the `conversation` of an earlier answer to "
            "follow it up.",
            bodies.Question,
            lambda given: bodies.asked(front.ask(given.question, given.conversation)),
            bodies.Asked,
        ),
        "search": Tool(
            "Search the guide",
            "Find passages of the guide, best first, with raw scores.",
            bodies.Search,
            lambda given: bodies.hits(
                front.search(given.question, given.top_k, given.path, given.section)
            ),
            bodies.Hits,
        ),
        "get_source": Tool(
            "Read the guide",
            f"Give the text of a document by characters, {bodies.MOST_TEXT:,} at most.",
            bodies.Span,
            lambda given: _read(front, given),
            bodies.Read,
        ),
    }


def _read(front: FrontDesk, given: bodies.Span) -> bodies.Read:
    document = front.desk.document(given.path)
    if document is None:
        raise NotInGuide(NO_DOCUMENT)
    return bodies.read(document, given.start, given.end)


async def _missing(request: Request) -> Response:
    return problem(501, _INSTALL)


class _Endpoint:
    """Answer at the route: one request, one answer, no session that could be left open."""

    def __init__(self, front: FrontDesk) -> None:
        self._front = front
        self._manager: Any = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Answer for as long as this lasts."""
        self._manager = _manager(self._front)
        async with self._manager.run():
            yield

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse what is no call of MCP before it is read, or told to the log, by others."""
        request = Request(scope, receive)
        if request.method != "POST":
            refusal = problem(405, "MCP is served by POST alone.", {"allow": "POST"})
            await refusal(scope, receive, send)
        elif refused := _refusal(body := await request.body()):
            await refused(scope, receive, send)
        else:
            await self._manager.handle_request(scope, replay(body, receive), send)


def _refusal(body: bytes) -> Response | None:
    """Return, as JSON-RPC has it, what is wrong with what is no message to a server of MCP."""
    from mcp import types

    try:
        message = orjson.loads(body)
    except ValueError:
        return _error(400, None, types.PARSE_ERROR, "The body is not JSON in UTF-8.")
    try:
        if "id" not in message:
            types.JSONRPCNotification.model_validate(message)
            types.ClientNotification.model_validate(message)
            return None
        call = types.JSONRPCRequest.model_validate(message)
    except (ValueError, TypeError):
        words = "The body is no request of MCP: one JSON-RPC 2.0 object."
        return _error(400, None, types.INVALID_REQUEST, words)
    kinds = get_args(types.ClientRequest.model_fields["root"].annotation)
    if call.method not in {one.model_fields["method"].default for one in kinds}:
        return _error(200, call.id, types.METHOD_NOT_FOUND, "MCP has no such method.")
    try:
        types.ClientRequest.model_validate(message)
    except ValueError:
        words = "The params do not fit the method."
        return _error(200, call.id, types.INVALID_PARAMS, words)
    return None


def _error(status: int, id: str | int | None, code: int, words: str) -> Response:
    told = {"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": words}}
    return Response(orjson.dumps(told), status, media_type="application/json")


def _manager(front: FrontDesk) -> Any:
    """Return what speaks the protocol, over the tools of a desk."""
    from mcp import types
    from mcp.server.lowlevel import Server
    from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

    logging.getLogger("mcp").setLevel(logging.ERROR)  # it tells of every request, in its words
    known = tools(front)
    server: Any = Server("guide-assistant", version="1", instructions=_ABOUT)

    def takes(tool: Tool) -> dict[str, Any]:
        schema = tool.takes.model_json_schema()
        bodies.show_limit(schema, front.settings.max_question_chars)
        return schema

    async def list_tools() -> list[types.Tool]:
        return [
            types.Tool(
                name=name,
                title=tool.title,
                description=tool.words,
                inputSchema=takes(tool),
                outputSchema=TypeAdapter(tool.gives).json_schema(),
                annotations=types.ToolAnnotations(
                    readOnlyHint=True, destructiveHint=False, openWorldHint=False
                ),
            )
            for name, tool in known.items()
        ]

    async def call_tool(name: str, arguments: dict[str, Any]) -> types.CallToolResult:
        said, given = await anyio.to_thread.run_sync(_called, known.get(name), arguments)
        content: list[types.ContentBlock] = [types.TextContent(type="text", text=said)]
        return types.CallToolResult(content=content, structuredContent=given, isError=given is None)

    server.list_tools()(list_tools)
    server.call_tool(validate_input=False)(call_tool)
    return StreamableHTTPSessionManager(
        server,
        json_response=True,
        stateless=True,
        security_settings=_security(front.settings),
        max_request_body_size=front.settings.max_body_kb * 1024,
    )


def _called(tool: Tool | None, arguments: Mapping[str, Any]) -> tuple[str, Any]:
    """Return what a tool gives, as JSON and as an object; or a sentence, and None."""
    if tool is None:
        return "There is no tool of that name.", None
    try:
        found = orjson.dumps(tool.run(tool.takes.model_validate(arguments)))
    except ValidationError as error:
        return bodies.misfit(error.errors()), None
    except BadInput as error:
        return str(error), None
    except Exception as error:
        number = request_id()
        _log.error("request %s failed", number, exc_info=not isinstance(error, AssistantError))
        words = (
            f"我们这边出了问题，编号 {number}，请稍后再试。 / Something went wrong on our side; "
            f"its id is {number}. Try again later."
        )
        return words, None
    return found.decode(), orjson.loads(found)


def _security(settings: Settings) -> Any:
    """Return the protocol's own check of hosts and origins, beside the Guard's."""
    from mcp.server.transport_security import TransportSecuritySettings

    names = [f"{name}{port}" for name in sorted(known_hosts(settings)) for port in ("", ":*")]
    return TransportSecuritySettings(
        # It knows names alone; where we are reached by any address, the Guard is the judge.
        enable_dns_rebinding_protection=settings.host not in EVERYWHERE,
        allowed_hosts=names,
        allowed_origins=[f"{scheme}://{name}" for scheme in ("http", "https") for name in names],
    )
