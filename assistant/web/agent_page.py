"""What all of the agents' pages share: who may see them, what they know, how they refuse."""

import logging
from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import Depends, Form
from fastapi.routing import APIRoute
from markupsafe import Markup
from pydantic import TypeAdapter
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from assistant.access import Person
from assistant.answer import language_of as language_of_text
from assistant.answer import matched_words
from assistant.errors import IndexUnusable
from assistant.frontdesk import FrontDesk
from assistant.handoff import REASONS
from assistant.history import KeptTicket, NotFound, NotSaved
from assistant.records import Quote, Ticket
from assistant.web.agent_words import Say, ago, say_to_agent
from assistant.web.evidence import as_markdown
from assistant.web.login import needs, person_of
from assistant.web.office import language_of, office
from assistant.web.render import marked, source_url
from assistant.web.wording import say, tag

_DIGITS = 9
_TICKETS: TypeAdapter[Ticket] = TypeAdapter(Ticket)
_log = logging.getLogger(__name__)

Agent = Annotated[Person, Depends(needs("agent"))]
Words = Annotated[str, Form()]


class AgentRoute(APIRoute):
    """Answer what cannot be had with a page too, in the look and language of the others."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return a handler that turns what a route raises into a page."""
        handle = super().get_route_handler()

        async def answered(request: Request) -> Response:
            try:
                return await handle(request)
            except NotFound:
                words = "no_ticket" if "/tickets/" in request.url.path else "no_page"
                return await _refusal(request, 404, "not_found", words)
            except (NotSaved, IndexUnusable) as error:
                _log.error("%s cannot be answered: %s", request.url.path, error)
                words = "no_history" if isinstance(error, NotSaved) else "no_index"
                return await _refusal(request, 503, "broken", words)

        return answered


async def _refusal(request: Request, status: int, heading: str, words: str) -> Response:
    """Write a page that says why there is no other; what was typed is shown, not to be lost."""
    typed = (await request.form()).get("note", "") if request.method == "POST" else ""
    return office(
        "agent_refused.html",
        request,
        person_of(request),
        status,
        tell=speech(request),
        heading=heading,
        words=words,
        typed=typed,
    )


def is_number(words: str) -> bool:
    """Tell whether words may be the number of a ticket."""
    return words.isascii() and words.isdigit() and len(words) <= _DIGITS


def ticket_number(number: str) -> int:
    """Read the number of a ticket from an address; raise NotFound for what is none."""
    if not is_number(number):
        raise NotFound(f"{number[:20]!r} is no number of a ticket")
    return int(number)


Number = Annotated[int, Depends(ticket_number)]


def packet_of(kept: KeptTicket) -> Ticket:
    """Return the evidence packet of a kept ticket as it was put together."""
    return _TICKETS.validate_python(kept.packet)


def speech(request: Request) -> Say:
    """Return the function that says the agents' words in the language of a page."""
    return say_to_agent(language_of(request))


def agent_page(
    front: FrontDesk,
    name: str,
    request: Request,
    person: Person,
    status: int = 200,
    **values: object,
) -> HTMLResponse:
    """Return an agents' page; its template knows the functions below beside the values given."""
    language = language_of(request)
    known = {
        "tell": speech(request),
        "ago": lambda at: ago(front.desk.clock() - at, language),
        "reason_of": lambda reason: REASONS[reason][language],
        "vote_reason": lambda reason: say(reason, language),
        "marked": _marked,
        "spoken": lambda words: tag(language_of_text(words)),
        "source_url": source_url,
        "markdown": lambda quote: as_markdown(quote, _absolute(request, source_url(quote))),
    }
    return office(name, request, person, status, **{**known, **values})


def _absolute(request: Request, path: str) -> str:
    return str(request.base_url).rstrip("/") + path


def _marked(quote: Quote, question: str) -> Markup:
    """Return a passage as HTML with what answers marked and the shared words in bold."""
    return Markup(marked(quote.text, quote.highlights, matched_words(question, quote.text)))
