"""REST for programs, under `/api/v1`: ask, search, vote, tickets, documents, conversations."""

import json
import logging
from collections.abc import Callable, Coroutine
from itertools import chain, islice
from typing import Annotated, Any
from weakref import WeakKeyDictionary

import orjson
from fastapi import APIRouter, Depends, Path, Query
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Match

import assistant.web.bodies as bodies
import assistant.web.samples as samples
from assistant.access import Person
from assistant.desk import NO_DOCUMENT
from assistant.errors import AssistantError, BadInput, IndexUnusable, NotInGuide
from assistant.frontdesk import FrontDesk
from assistant.kept import NotFound, NotSaved, Taken, TicketState
from assistant.search import Index
from assistant.web.facts import Generation, generation
from assistant.web.login import needs
from assistant.web.problems import problem

PREFIX = "/api/v1"
_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"]
_log = logging.getLogger(__name__)

Agent = Annotated[Person, Depends(needs("agent"))]
Maintainer = Annotated[Person, Depends(needs("maintainer"))]
Number = Annotated[int, Path(ge=1, le=bodies.BEYOND, description="the ticket's number")]
Conversation = Annotated[str, Path(max_length=64, description="the conversation's id")]


def api(front: FrontDesk) -> APIRouter:
    """Return the routes for programs over a desk; needs `login.sign_in_routes` beside it."""
    router = APIRouter(prefix=PREFIX, route_class=_Door)
    for add in (_asking, _voting, _tickets, _conversations, _documents):
        add(router, front)
    router.add_api_route("", _nothing(router), methods=_METHODS, include_in_schema=False)
    router.add_api_route(
        "/{rest:path}", _nothing(router), methods=_METHODS, include_in_schema=False
    )
    return router


# --- Routes --------------------------------------------------------------------------------------


def _asking(router: APIRouter, front: FrontDesk) -> None:
    # Plain functions, each in a thread: keeping an answer waits for a disk, which many answers
    # then share a write to, and for a locked database up to a second.
    @router.post("/ask", response_model=bodies.Asked, responses=samples.ASKED)
    def ask(body: bodies.Question) -> Response:
        """Answer a question with the guide's own words, or say who can."""
        return _json(bodies.asked(front.ask(body.question, body.conversation)))

    @router.post("/handoff", response_model=bodies.Asked, responses=samples.HANDED_OFF)
    def handoff(body: bodies.Question) -> Response:
        """Hand a question over to a person, with what to prepare."""
        return _json(bodies.asked(front.hand_off(body.question, body.conversation)))

    @router.post("/search", response_model=bodies.Hits, responses=samples.FOUND)
    def search(body: bodies.Search) -> Response:
        """Find passages, best first, with the raw scores that they were ranked by."""
        found = front.search(body.question, body.top_k, body.path, body.section)
        return _json(bodies.hits(found))


def _voting(router: APIRouter, front: FrontDesk) -> None:
    @router.post("/feedback", status_code=204)
    def feedback(body: bodies.Feedback) -> Response:
        """Say whether an answer helped."""
        front.rate(body.conversation, body.turn, body.value, body.reason, body.note)
        return Response(status_code=204)


def _tickets(router: APIRouter, front: FrontDesk) -> None:
    history = front.history
    shown: dict[str, Any] = {"response_model": bodies.Shown, **_signed_in(samples.TICKET)}

    @router.post(
        "/tickets", status_code=201, response_model=bodies.Opened, responses=samples.OPENED
    )
    def open_ticket(body: bodies.Request) -> Response:
        """Open the ticket of an answer that has a handoff.

        A turn has one ticket: asked again, it is given again, and takes what is said this time in
        the place of what was said before; what is left empty stays.
        """
        ticket = front.open_ticket(body.conversation, body.turn, body.filled, body.reply_to)
        return _json(bodies.opened(ticket), 201)

    @router.get("/tickets", response_model=bodies.Tickets, **_signed_in(samples.TICKETS))
    def list_tickets(
        agent: Agent,
        state: TicketState | None = None,
        mine: Annotated[bool, Query(description="those of the agent who asks alone")] = False,
        limit: Annotated[int, Query(ge=1, le=500)] = 100,
        after: Annotated[
            int | None,
            Query(ge=1, le=bodies.BEYOND, description="number of the last ticket given before"),
        ] = None,
        q: Annotated[
            str, Query(max_length=200, description="number, or part of contact, question or note")
        ] = "",
    ) -> Response:
        """List tickets: those of state new or claimed urgent first, then oldest first.

        All others come newest first. For those behind the last one given, send its number as
        `after`, with the same other parameters; nothing more comes when that was all.
        """
        owner = agent.name if mine else None
        return _json({"tickets": history.tickets(state, owner, limit, after, words=q)})

    @router.get("/tickets/{number}", **shown)
    def show_ticket(agent: Agent, number: Number) -> Response:
        """Show a ticket with its evidence and notes."""
        return _json(history.ticket(number))

    @router.post("/tickets/{number}/claim", **shown)
    def claim(agent: Agent, number: Number) -> Response:
        """Make a ticket one's own; exactly one of several who try has it."""
        return _json(history.claim(number, agent.name))

    @router.post("/tickets/{number}/takeover", **shown)
    def take_over(agent: Agent, number: Number, body: bodies.Holder) -> Response:
        """Make one's own what another holds; exactly one of several who try has it.

        A note says who took it from whom.
        """
        return _json(history.take_over(number, agent.name, body.owner))

    @router.post("/tickets/{number}/release", **shown)
    def release(agent: Agent, number: Number) -> Response:
        """Give a ticket back to all; a maintainer may also give back what another holds."""
        return _json(history.release(number, agent.name, agent.may("maintainer")))

    @router.post("/tickets/{number}/close", **shown)
    def close(agent: Agent, number: Number, body: bodies.Parting | None = None) -> Response:
        """Close a ticket, with a last note when there is something to say."""
        return _json(history.close_ticket(number, agent.name, body.note if body else ""))

    @router.post("/tickets/{number}/reopen", **shown)
    def reopen(agent: Agent, number: Number) -> Response:
        """Make a closed ticket one's own again; exactly one of several who try has it."""
        return _json(history.reopen(number, agent.name))

    @router.post("/tickets/{number}/notes", **shown)
    def add_note(agent: Agent, number: Number, body: bodies.Remark) -> Response:
        """Add a note to a ticket."""
        return _json(history.add_note(number, agent.name, body.note))


def _conversations(router: APIRouter, front: FrontDesk) -> None:
    @router.get(
        "/conversations/{conversation}",
        response_model=bodies.Conversation,
        responses=samples.CONVERSATION_KEPT,
    )
    def show_conversation(conversation: Conversation) -> Response:
        """Give what is kept of a conversation; who knows its id may read it."""
        turns = [bodies.past(turn) for turn in front.turns(conversation)]
        return _json(bodies.Conversation(conversation, turns))

    @router.delete("/conversations/{conversation}", status_code=204)
    def forget(conversation: Conversation) -> Response:
        """Forget a conversation with its votes and tickets, for good."""
        front.forget(conversation)
        return Response(status_code=204)

    @router.get("/export", response_class=_Lines, **_signed_in(samples.EXPORTED))
    def export(maintainer: Maintainer) -> Response:
        """Give every conversation as JSON lines, with its turns, votes and tickets."""
        lines = front.history.export()
        first = list(
            islice(lines, 1)
        )  # what cannot be read is said while there is a status to say it
        named = {"content-disposition": 'attachment; filename="conversations.jsonl"'}
        ended = (line + "\n" for line in chain(first, lines))
        return _Lines(ended, headers=named)


def _documents(router: APIRouter, front: FrontDesk) -> None:
    desk = front.desk
    # Titles and lengths of a guide, read once for each index.
    known: WeakKeyDictionary[Index, list[bodies.Listed]] = WeakKeyDictionary()

    @router.get("/documents", response_model=bodies.Documents, responses=samples.DOCUMENTS)
    def list_documents(
        after: Annotated[str, Query(max_length=1000, description="paths behind this one")] = "",
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    ) -> Response:
        """List the documents of the guide in use, by path."""
        if (index := desk.index) not in known:
            known[index] = [bodies.listed(document) for document in index.documents()]
        found = [one for one in known[index] if one.path > after]
        last = found[limit - 1].path if len(found) > limit else ""
        return _json(bodies.Documents(found[:limit], last))

    @router.get("/documents/{path:path}", response_model=bodies.Read, responses=samples.DOCUMENT)
    def read_document(
        path: str,
        start: Annotated[int, Query(ge=0, le=bodies.BEYOND, description="first character")] = 0,
        end: Annotated[
            int, Query(ge=0, le=bodies.BEYOND, description="behind the last")
        ] = bodies.BEYOND,
    ) -> Response:
        """Give the text of a document by characters, as quotes name it; 50,000 at most."""
        document = desk.document(path)
        if document is None:
            raise NotInGuide(NO_DOCUMENT)
        return _json(bodies.read(document, start, end))

    @router.get("/generation", response_model=Generation, responses=samples.GENERATION)
    def generation_in_use() -> Response:
        """Say which index answers, how old it is and what it was made with."""
        return _json(generation(desk))


def _nothing(router: APIRouter) -> Callable[[Request], Response]:
    """Answer what is no route: a wrong method with those that are right, all else with 404."""

    def nothing(request: Request) -> Response:
        known = [
            method
            for route in router.routes
            if isinstance(route, APIRoute) and route.include_in_schema
            if route.matches(request.scope)[0] is Match.PARTIAL
            for method in sorted(route.methods or ())
        ]
        if known:
            return problem(405, f"Use {' or '.join(known)}.", {"allow": ", ".join(known)})
        return problem(404, "There is no such route; /openapi.json lists those there are.")

    return nothing


# --- In and out ----------------------------------------------------------------------------------


def _signed_in(responses: samples.Responses) -> dict[str, Any]:
    """Describe a route that wants a token, and what it gives."""
    return {"openapi_extra": {"security": [{"token": []}]}, "responses": responses}


class _Lines(StreamingResponse):
    media_type = "application/x-ndjson"


def _json(content: Any, status: int = 200) -> Response:
    headers = {"cache-control": "no-store"}
    return Response(orjson.dumps(content), status, headers, "application/json")


class _Json(Request):
    """Read a body as JSON in UTF-8 and as nothing else."""

    async def json(self) -> Any:
        try:
            return json.loads((await self.body()).decode("utf-8-sig"))
        except (ValueError, RecursionError):
            raise HTTPException(400, "The body is not JSON in UTF-8.") from None


class _Door(APIRoute):
    """Tell a program what went wrong, and never send back what it sent."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the route's handler with problems for what it refuses."""
        answer = super().get_route_handler()
        reads = self.body_field is not None
        known = {one.alias: None for one in self.dependant.query_params}

        async def answered(request: Request) -> Response:
            request = _Json(request.scope, request.receive)
            if not request.query_params.keys() <= known.keys():
                return problem(422, bodies.misfit([{"loc": ("query",), "msg": bodies.only(known)}]))
            if reads and not await _says_json(request):
                return problem(415, "Send the body as JSON, with Content-Type: application/json.")
            try:
                return await answer(request)
            except RequestValidationError as error:
                return problem(422, bodies.misfit(error.errors()))
            except HTTPException as error:
                return problem(error.status_code, error.detail, error.headers)
            except AssistantError as error:
                return _refusal(error)

        return answered


async def _says_json(request: Request) -> bool:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return kind == "application/json" or (not kind and not await request.body())


def _refusal(error: AssistantError) -> Response:
    match error:
        case NotFound() | NotInGuide():
            return problem(404, str(error))
        case BadInput():
            return problem(422, str(error))
        case Taken():
            return problem(409, str(error))
        case NotSaved():
            _log.warning("a request was refused: %s", error)
            words = (
                "现在存不了，什么也没有保存，请稍后再试。 / The database cannot be used just now; "
                "nothing was stored. Try again shortly."
            )
            return problem(503, words, {"retry-after": "2"})
        case IndexUnusable():
            _log.error("a request was refused: %s", error)
            words = (
                "现在查不了指南，请稍后再试。 / The guide cannot be looked up just now. Try again "
                "shortly."
            )
            return problem(503, words, {"retry-after": "5"})
    raise error
