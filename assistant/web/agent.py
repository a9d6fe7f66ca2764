"""The agents' pages: look answers up, take tickets over, propose entries for the guide."""

import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from assistant.access import Person
from assistant.errors import BadInput
from assistant.frontdesk import FrontDesk
from assistant.gaps import references
from assistant.history import NotFound, NotSaved
from assistant.records import Quote
from assistant.screen import clean, screen_question
from assistant.split import find_section
from assistant.web.agent_page import (
    Agent,
    AgentRoute,
    Words,
    agent_page,
    is_number,
    packet_of,
    speech,
    ticket_number,
)
from assistant.web.agent_tickets import Tickets
from assistant.web.agent_words import Say
from assistant.web.evidence import contents, look_up
from assistant.web.office import language_of
from assistant.web.wording import half

_MOST_LISTED = 500  # documents, and headings, that a list to choose from may have
_MOST_QUESTIONS = 20
_LONGEST_ANSWER = 10_000  # what the history keeps of one
_MOST_PROPOSALS = 100
_log = logging.getLogger(__name__)


def agent_routes(front: FrontDesk) -> APIRouter:
    """Return the agents' pages over a front desk, all below `/agent`, all for agents alone."""
    router = APIRouter(prefix="/agent", route_class=AgentRoute, include_in_schema=False)
    pages = _Pages(front)
    router.add_api_route("", pages.search, methods=["GET"], response_model=None)
    router.add_api_route("/propose", pages.proposing, methods=["GET"], response_model=None)
    router.add_api_route("/propose", pages.propose, methods=["POST"], response_model=None)
    router.add_api_route("/proposals", pages.proposals, methods=["GET"], response_model=None)
    Tickets(front).add_to(router)
    router.add_api_route("/{rest:path}", _nothing, methods=["GET"], response_model=None)
    return router


def _nothing(person: Agent, rest: str) -> Response:
    """Turn away what leads nowhere below `/agent`, and put right what only ends in a slash."""
    if rest:
        raise NotFound("there is no such page")
    return RedirectResponse("/agent", 303)


@dataclass(frozen=True, slots=True)
class _Draft:
    """Hold a proposal as it stands in the form; `own` tells that the agent's own words answer."""

    questions: str
    passage: str = ""
    answer: str = ""
    own: bool = False
    ticket: str = ""


class _Pages:
    """Answer the addresses of the search and of proposals."""

    def __init__(self, front: FrontDesk) -> None:
        self._front = front

    # --- Looking up -----------------------------------------------------------------------------

    def search(
        self, request: Request, person: Agent, q: str = "", path: str = "", section: str = ""
    ) -> Response:
        """Show the search and, for a question, what was found and why."""
        findings, trouble, ticket = None, "", self._ticket_named(q)
        if q:
            try:
                findings = look_up(self._front, q, path, section)
            except BadInput as error:
                trouble = "" if ticket else half(str(error), language_of(request))
        known = contents(self._front.desk.index)
        headings = known.headings
        if sum(map(len, headings.values())) > _MOST_LISTED:
            headings = {path: headings[path]} if path in headings else {}
        return agent_page(
            self._front,
            "agent_search.html",
            request,
            person,
            400 if trouble else 200,
            q=q,
            within=path,
            section=section,
            findings=findings,
            trouble=trouble,
            ticket=ticket,
            titles=known.titles,
            headings=headings,
            most=_MOST_LISTED,
            longest=self._front.settings.max_question_chars,
        )

    def _ticket_named(self, words: str) -> int | None:
        """Return the number of the ticket that words like "#12" or "12" name, if it is there."""
        number = words.strip().lstrip("#＃")
        if not is_number(number):
            return None
        with suppress(NotFound, NotSaved):
            return self._front.history.ticket(int(number)).number
        return None

    # --- Proposing ------------------------------------------------------------------------------

    def proposing(
        self, request: Request, person: Agent, question: str = "", chunk: str = "", ticket: str = ""
    ) -> Response:
        """Show the form of a proposal, filled from a passage that was found or from a ticket."""
        quotes: Sequence[Quote] = ()
        own = False
        if ticket:
            kept = self._front.history.ticket(ticket_number(ticket))
            own = kept.reason == "out_of_guide"
            question, quotes = kept.question, () if own else packet_of(kept).quotes[:1]
        passage = self._reference(chunk, quotes)
        gone = bool(chunk or quotes) and not passage
        draft = _Draft(question, passage, own=own, ticket=ticket)
        return self._form(request, person, draft, gone=gone)

    def propose(
        self,
        request: Request,
        person: Agent,
        questions: Words = "",
        by: Words = "reference",
        passage: Words = "",
        answer: Words = "",
        ticket: Words = "",
    ) -> Response:
        """Propose an entry: ways to ask, and the section or the agent's own words that answer."""
        passage, answer = clean(passage).strip(), clean(answer).strip()
        draft = _Draft(questions, passage, answer, by == "own", ticket)
        tell = speech(request)
        try:
            asked = self._checked(draft, tell)
            origin = f"ticket {ticket_number(ticket)}" if ticket else "search"
            passage, answer = ("", answer) if draft.own else (passage, "")
            self._front.history.propose(asked, passage, answer, person.name, origin)
        except BadInput as error:
            return self._form(request, person, draft, half(str(error), language_of(request)), 400)
        except NotSaved as error:
            _log.error("a proposal was not saved: %s", error)
            return self._form(request, person, draft, tell("not_saved"), 503)
        return RedirectResponse("/agent/proposals?done=1", 303)

    def proposals(self, request: Request, person: Agent, done: str = "") -> Response:
        """Show what an agent proposed and what became of it."""
        own = [one for one in self._front.history.proposals() if one.author == person.name]
        return agent_page(
            self._front,
            "agent_proposals.html",
            request,
            person,
            proposals=own[:_MOST_PROPOSALS],
            done=bool(done),
        )

    def _form(
        self,
        request: Request,
        person: Person,
        draft: _Draft,
        trouble: str = "",
        status: int = 200,
        gone: bool = False,
    ) -> Response:
        return agent_page(
            self._front,
            "agent_propose.html",
            request,
            person,
            status,
            draft=draft,
            trouble=trouble,
            gone=gone,
            longest=_LONGEST_ANSWER,
        )

    def _reference(self, chunk: str, quotes: Sequence[Quote]) -> str:
        """Name the section of a passage, given by its id or as a quote; "" when it is gone."""
        index = self._front.desk.index
        wanted = [(one.path, one.headings, one.text) for one in quotes]
        for row, one in enumerate(index.chunks()):
            if one.id == chunk or (one.path, one.headings, one.text) in wanted:
                return references(index)[row]
        return ""

    def _checked(self, draft: _Draft, tell: Say) -> list[str]:
        """Return the questions of a draft; raise BadInput, with a sentence to show."""
        lines = [line for line in draft.questions.splitlines() if line.strip()]
        if not lines:
            raise BadInput(tell("no_question"))
        if len(lines) > _MOST_QUESTIONS:
            raise BadInput(tell("too_many", most=_MOST_QUESTIONS))
        if draft.own and not draft.answer:
            raise BadInput(tell("no_answer"))
        if len(draft.answer) > _LONGEST_ANSWER:
            raise BadInput(tell("too_long", most=_LONGEST_ANSWER, count=len(draft.answer)))
        if not draft.own and draft.answer:
            raise BadInput(tell("own_left_out"))
        if not draft.own and not self._is_section(draft.passage):
            raise BadInput(tell("no_section", words=draft.passage[:100]))
        longest = self._front.settings.max_question_chars
        return list(dict.fromkeys(screen_question(line, longest) for line in lines))

    def _is_section(self, passage: str) -> bool:
        try:
            find_section(passage, list(self._front.desk.index.chunks()))
        except BadInput:
            return False
        return True
