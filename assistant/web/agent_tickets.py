"""The agents' tickets: the queue, one ticket with its evidence, and what an agent does to it."""

import logging
from collections.abc import Callable
from typing import Any, Literal, get_args

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response

from assistant.access import Person
from assistant.answer import language_of
from assistant.frontdesk import FrontDesk, answer_of
from assistant.handoff import ticket_text
from assistant.history import KeptTicket, NotSaved, Taken
from assistant.screen import clean
from assistant.web.agent_page import (
    Agent,
    Number,
    Words,
    agent_page,
    is_number,
    packet_of,
    speech,
)
from assistant.web.agent_words import say_to_agent
from assistant.web.evidence import place_now

_Tab = Literal["new", "mine", "others", "closed"]
_TABS: tuple[_Tab, ...] = get_args(_Tab)
_AT_ONCE = 100
_LONGEST_NOTE = 2000  # what the history keeps of one
_LONG_QUESTION = 200  # characters, beyond which a ticket shows the rest of it on demand
_log = logging.getLogger(__name__)


class Tickets:
    """Answer the addresses of tickets."""

    def __init__(self, front: FrontDesk) -> None:
        self._front = front
        self._history = front.history

    def add_to(self, router: APIRouter) -> None:
        """Add every route to the agents' router."""
        for path, answer in (
            ("/tickets", self.queue),
            ("/tickets/{number}", self.ticket),
            ("/tickets/{number}/text", self.export),
        ):
            router.add_api_route(path, answer, methods=["GET"], response_model=None)
        for path, change in (
            ("/tickets/{number}/claim", self.claim),
            ("/tickets/{number}/takeover", self.take_over),
            ("/tickets/{number}/release", self.release),
            ("/tickets/{number}/note", self.note),
            ("/tickets/{number}/close", self.close),
            ("/tickets/{number}/reopen", self.reopen),
        ):
            router.add_api_route(path, change, methods=["POST"], response_model=None)
            # A refused form is shown at its own address; reloaded or in the other language, too.
            router.add_api_route(path, self.back, methods=["GET"], response_model=None)

    # --- Reading --------------------------------------------------------------------------------

    def queue(
        self, request: Request, person: Agent, state: str = "new", after: str = "", q: str = ""
    ) -> Response:
        """Show the tickets of one tab, or those of them that `q` is about, and count every tab."""
        tab: _Tab = next((tab for tab in _TABS if tab == state), "new")
        listed = self._listed(tab, person, q, after)
        return agent_page(
            self._front,
            "agent_queue.html",
            request,
            person,
            tab=tab,
            q=q,
            counts=self._counts(person, q),
            tickets=listed[:_AT_ONCE],
            more=len(listed) > _AT_ONCE,
        )

    def ticket(self, request: Request, person: Agent, number: Number) -> Response:
        """Show one ticket: the conversation, the packet, the notes, and what may be done."""
        return self._shown(request, person, number)

    def back(self, request: Request, person: Agent, number: Number) -> Response:
        """Lead from the address of a change to the ticket."""
        return RedirectResponse(f"/agent/tickets/{number}?{request.url.query}".rstrip("?"), 303)

    def export(self, request: Request, person: Agent, number: Number) -> Response:
        """Give one ticket as text, to keep or to send on, in the language of its question."""
        kept = self._history.ticket(number)
        tell = say_to_agent(language_of(kept.question))
        lines = [tell("ticket", number=number), ticket_text(packet_of(kept))]
        if kept.reply_to:
            lines.append(f"{tell('reply_to')}: {kept.reply_to}")
        lines += [f"{note.at:%Y-%m-%d %H:%M} UTC {note.author}: {note.text}" for note in kept.notes]
        named = {
            "content-disposition": f'attachment; filename="ticket-{number}.txt"',
            "cache-control": "no-store",
        }
        return PlainTextResponse("\n".join(lines) + "\n", headers=named)

    def _shown(
        self,
        request: Request,
        person: Person,
        number: int,
        status: int = 200,
        trouble: str = "",
        typed: str = "",
    ) -> Response:
        kept = self._history.ticket(number)
        packet = packet_of(kept)
        document = self._front.desk.document
        return agent_page(
            self._front,
            "agent_ticket.html",
            request,
            person,
            status,
            ticket=kept,
            packet=packet,
            placed=[place_now(quote, document(quote.path)) for quote in packet.quotes],
            generation=self._front.desk.generation,
            turns=[(turn, answer_of(turn)) for turn in self._front.turns(kept.conversation)],
            trouble=trouble,
            typed=typed,
            longest=_LONGEST_NOTE,
            long=len(kept.question) > _LONG_QUESTION,
        )

    def _listed(self, tab: _Tab, person: Person, q: str, after: str) -> list[KeptTicket]:
        """Return the tickets of a page, and one more where more follow."""
        whose: dict[_Tab, dict[str, Any]] = {
            "new": {"state": "new"},
            "mine": {"state": "claimed", "owner": person.name},
            "others": {"state": "claimed", "not_owner": person.name},
            "closed": {"state": "closed"},
        }
        behind = int(after) if is_number(after) else None
        return self._history.tickets(**whose[tab], limit=_AT_ONCE + 1, after=behind, words=q)

    def _counts(self, person: Person, q: str) -> dict[_Tab, int]:
        counts = self._history.counts(words=q)
        own = self._history.counts(person.name, q)["claimed"]
        return {
            "new": counts["new"],
            "mine": own,
            "others": counts["claimed"] - own,
            "closed": counts["closed"],
        }

    # --- Changing -------------------------------------------------------------------------------

    def claim(self, request: Request, person: Agent, number: Number) -> Response:
        """Make a ticket the agent's, or tell whose it is."""
        return self._changed(
            request, person, number, lambda: self._history.claim(number, person.name)
        )

    def take_over(
        self, request: Request, person: Agent, number: Number, owner: Words = ""
    ) -> Response:
        """Make the agent's what another holds, or tell who has it by now."""
        return self._changed(
            request, person, number, lambda: self._history.take_over(number, person.name, owner)
        )

    def release(self, request: Request, person: Agent, number: Number) -> Response:
        """Give a ticket back to all; a maintainer may also give back what another holds."""
        anyones = person.may("maintainer")
        return self._changed(
            request, person, number, lambda: self._history.release(number, person.name, anyones)
        )

    def note(self, request: Request, person: Agent, number: Number, note: Words = "") -> Response:
        """Add a note to a ticket."""
        if not clean(note).strip():
            return self._shown(request, person, number, 400, speech(request)("no_note"))
        return self._changed(
            request, person, number, lambda: self._history.add_note(number, person.name, note), note
        )

    def close(self, request: Request, person: Agent, number: Number, note: Words = "") -> Response:
        """Close a ticket, with a last note or without."""
        return self._changed(
            request,
            person,
            number,
            lambda: self._history.close_ticket(number, person.name, note),
            note,
        )

    def reopen(self, request: Request, person: Agent, number: Number) -> Response:
        """Make a closed ticket the agent's again."""
        return self._changed(
            request, person, number, lambda: self._history.reopen(number, person.name)
        )

    def _changed(
        self,
        request: Request,
        person: Person,
        number: int,
        change: Callable[[], KeptTicket],
        note: str = "",
    ) -> Response:
        """Change a ticket and lead to it; a note that was not taken is shown again."""
        tell = speech(request)
        if len(note) > _LONGEST_NOTE:
            words = tell("too_long", most=_LONGEST_NOTE, count=len(note))
            return self._shown(request, person, number, 400, words, note)
        try:
            change()
        except Taken:
            kept = self._history.ticket(number)
            return agent_page(
                self._front, "agent_taken.html", request, person, 409, ticket=kept, typed=note
            )
        except NotSaved as error:
            _log.error("ticket %d was not changed: %s", number, error)
            return self._shown(request, person, number, 503, tell("not_saved"), note)
        return RedirectResponse(f"/agent/tickets/{number}", 303)
