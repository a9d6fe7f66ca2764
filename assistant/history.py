"""The memory: turns, votes, tickets and proposals, kept in a database."""

import math
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

import orjson
from sqlalchemy import Connection

from assistant import rows
from assistant.answer import language_of
from assistant.database import Database
from assistant.errors import BadInput
from assistant.kept import (
    LONGEST_REPLY_TO,
    VOTE_REASONS,
    Day,
    Delivery,
    DeliveryState,
    KeptTicket,
    Note,
    NotFound,
    NotSaved,
    Proposal,
    ProposalState,
    Taken,
    TicketState,
    Turn,
    Vote,
    VoteReason,
)
from assistant.records import Answer, Ticket
from assistant.screen import clean, mask_secrets
from assistant.settings import Settings
from assistant.writer import Job, Writer

__all__ = [
    "Day",
    "Delivery",
    "DeliveryState",
    "History",
    "KeptTicket",
    "NotFound",
    "NotSaved",
    "Note",
    "Proposal",
    "ProposalState",
    "Taken",
    "TicketState",
    "Turn",
    "Vote",
    "VoteReason",
]

Result = TypeVar("Result")
_LONG, _SHORT = 2000, 200
_CONTACT = ("email", "mobile")  # how a user is to be reached, said there or heard by an agent
_OPENING_SECONDS = 3.0
_PURGE_SECONDS = 3600.0
_SLICE = 500
# What some programs take for the end of a line, though JSON does not.
_LINE_ENDS = {ord(end): f"\\u{ord(end):04x}" for end in "\x85\u2028\u2029"}


def now() -> datetime:
    """Return the time."""
    return datetime.now(UTC)


class History:
    """Keep what was asked and what came of it. Thread-safe.

    Every text is cleaned, its secrets masked and its length bounded before it is stored; names of
    agents are theirs, and stay. Every method that changes something raises NotSaved, within about a
    second, when that could not be stored; one that reads raises it when it cannot be read.
    """

    def __init__(
        self, settings: Settings, database: Database, clock: Callable[[], datetime]
    ) -> None:
        self._settings, self._database, self._clock = settings, database, clock
        self._seen = 0.0
        self._purged = -math.inf
        self._writer = Writer(database)

    @classmethod
    def open(cls, settings: Settings, clock: Callable[[], datetime] = now) -> "History":
        """Open the database of the settings, making it when there is none.

        Raises UsageError for an address that is none. Whatever is wrong with the database itself,
        a history is returned: `saving` and `notes` tell, and it recovers when the database does.
        """
        history = cls(settings, Database(settings.history, clock), clock)
        with suppress(NotSaved):
            history.purge()
        return history

    @property
    def saving(self) -> bool:
        """Tell whether the last change could be stored."""
        return self._writer.failure is None

    @property
    def notes(self) -> tuple[str, ...]:
        """Return what an operator should know."""
        failure = self._writer.failure
        return (*self._database.notes, *([str(failure)] if failure else []))

    # --- Turns ------------------------------------------------------------------------------

    def new_conversation(self) -> str:
        """Return a new, unguessable id; nothing is stored."""
        return secrets.token_urlsafe(24)

    def keep(self, conversation: str, answer: Answer) -> str:
        """Store an answer as the next turn of a conversation; return the turn's id."""
        at = self._clock()
        self._purge_now_and_then()
        turn = secrets.token_urlsafe(18)
        answer = _screened(answer)
        values = {
            "id": turn,
            "conversation": _key(conversation),
            "at": at,
            "kept": self._age(at),
            "question": answer.question,
            "verdict": answer.verdict,
            "confidence": answer.confidence,
            "reason": answer.handoff.reason if answer.handoff else "",
            "language": language_of(answer.question),
            "generation": answer.generation,
            "elapsed_ms": answer.elapsed_ms,
            "answer": orjson.dumps(answer).decode(),
        }
        self._write(lambda connection: rows.add_turn(connection, values))
        return turn

    def turns(self, conversation: str, limit: int = 200) -> list[Turn]:
        """Return the last turns of a conversation, oldest first; none for an unknown id."""
        return self._read(lambda connection: rows.turns_of(connection, _key(conversation), limit))

    def turn(self, id: str) -> Turn:
        """Return a turn; raise NotFound when there is none."""
        return self._read(lambda connection: rows.turn(connection, _key(id)))

    def vote(
        self, conversation: str, turn: str, value: int, reason: VoteReason = "", note: str = ""
    ) -> None:
        """Store what a user thought of a turn: 1 good, -1 bad; of several votes the last counts."""
        if value not in (1, -1) or reason not in VOTE_REASONS:
            raise BadInput(
                f"A vote is 1 or -1, its reason one of {', '.join(VOTE_REASONS[1:])} or empty."
            )
        values = {"value": value, "reason": reason, "note": _text(note), "at": self._clock()}
        key, of = _key(conversation), _key(turn)
        self._write(lambda connection: rows.set_vote(connection, key, of, values))

    def gaps(self, days: int = 30, limit: int = 2000) -> list[Turn]:
        """Return turns that went unanswered or were voted down, newest first."""
        since = self._clock() - timedelta(days=days)
        return self._read(lambda connection: rows.gaps(connection, since, limit))

    def days(self, days: int = 30) -> list[Day]:
        """Count what happened on each of the last days (UTC) on which anything did."""
        since = self._clock() - timedelta(days=days)
        return self._read(lambda connection: rows.days(connection, since))

    # --- Tickets ----------------------------------------------------------------------------

    def open_ticket(
        self, conversation: str, turn: str, ticket: Ticket, reply_to: str = ""
    ) -> KeptTicket:
        """Give a turn's ticket a number and store it; a turn has one ticket.

        Opened again, it takes what is said this time in the place of what was said before.
        """
        values = {
            "state": "new",
            "urgent": int(ticket.reason == "urgent_account_security"),
            "reason": ticket.reason,
            "created": self._clock(),
            "owner": "",
            "packet": orjson.dumps(_screened_ticket(ticket)).decode(),
            "reply_to": _text(reply_to, LONGEST_REPLY_TO, spare=_CONTACT),
        }
        delivery = secrets.token_urlsafe(18) if self._settings.webhook_url else ""
        key, of = _key(conversation), _key(turn)
        return self._write(
            lambda connection: rows.add_ticket(connection, key, of, values, delivery)
        )

    def tickets(
        self,
        state: TicketState | None = None,
        owner: str | None = None,
        limit: int = 100,
        after: int | None = None,
        *,
        not_owner: str | None = None,
        words: str = "",
    ) -> list[KeptTicket]:
        """Return tickets: new or claimed ones urgent first, then oldest first; else newest first.

        `after` is the number of the last ticket that was given, to go on behind it. `words` are the
        number or part of the contact, the question or a note of the tickets that are wanted.
        """
        wanted = state, owner, not_owner, clean(words).strip(), limit, after
        return self._read(lambda connection: rows.list_tickets(connection, *wanted))

    def ticket(self, number: int) -> KeptTicket:
        """Return a ticket; raise NotFound when there is none."""
        return self._read(lambda connection: rows.ticket(connection, number))

    def claim(self, number: int, agent: str) -> KeptTicket:
        """Make a ticket an agent's; raise Taken when it is another's."""
        name, at = _name(agent), self._clock()
        return self._write(lambda connection: rows.claim(connection, number, name, at))

    def take_over(self, number: int, agent: str, owner: str) -> KeptTicket:
        """Make a ticket that `owner` holds an agent's; raise Taken when it is no longer so."""
        name, of, at = _name(agent), clean(owner).strip(), self._clock()
        return self._write(lambda connection: rows.take_over(connection, number, name, of, at))

    def release(self, number: int, agent: str, anyones: bool = False) -> KeptTicket:
        """Give a ticket back to all; raise Taken when it is another's, unless anyone's will do."""
        name, at = _name(agent), self._clock()
        return self._write(lambda connection: rows.release(connection, number, name, anyones, at))

    def reopen(self, number: int, agent: str) -> KeptTicket:
        """Make a closed ticket an agent's again; raise Taken when it is open and another's."""
        name, at = _name(agent), self._clock()
        return self._write(lambda connection: rows.reopen(connection, number, name, at))

    def close_ticket(self, number: int, agent: str, note: str = "") -> KeptTicket:
        """Close a ticket that is the agent's or nobody's; raise Taken when it is another's."""
        name, at, text = _name(agent), self._clock(), _text(note, spare=_CONTACT)
        kept = self._age(at)
        return self._write(lambda connection: rows.close(connection, number, name, text, at, kept))

    def add_note(self, number: int, agent: str, text: str) -> KeptTicket:
        """Add an agent's note to a ticket."""
        name, at, words = _name(agent), self._clock(), _required(text, _CONTACT)
        return self._write(lambda connection: rows.add_note(connection, number, name, words, at))

    def counts(self, owner: str | None = None, words: str = "") -> dict[str, int]:
        """Count tickets by state; as `tickets`, of an owner, or those that words are about."""
        wanted = owner, clean(words).strip()
        return self._read(lambda connection: rows.counts(connection, *wanted))

    # --- Proposals --------------------------------------------------------------------------

    def propose(
        self, questions: Sequence[str], passage: str, answer: str, author: str, origin: str
    ) -> Proposal:
        """Propose to the maintainers that the guide answer these questions."""
        at = self._clock()
        values = {
            "questions": orjson.dumps([_text(one) for one in questions]).decode(),
            "passage": _text(passage),
            "answer": _text(answer, 10_000),
            "author": _name(author),
            "origin": _text(origin, _SHORT),
            "state": "new",
            "created": at,
            "kept": self._age(at),
            "decided_by": "",
            "note": "",
        }
        return self._write(lambda connection: rows.add_proposal(connection, values))

    def proposals(self, state: ProposalState | None = None) -> list[Proposal]:
        """Return proposals, newest first."""
        return self._read(lambda connection: rows.list_proposals(connection, state))

    def decide(self, id: int, accepted: bool, by: str, note: str = "") -> Proposal:
        """Accept or refuse a proposal; raise Taken when that was decided before."""
        at = self._clock()
        values = {
            "state": "accepted" if accepted else "refused",
            "decided": at,
            "kept": self._age(at),
            "decided_by": _name(by),
            "note": _text(note),
        }
        return self._write(lambda connection: rows.decide(connection, id, values))

    # --- Keeping and forgetting -------------------------------------------------------------

    def forget(self, conversation: str) -> int:
        """Delete a conversation with its votes and tickets; return how many turns it had.

        Nothing of it is left in the file or its log, see `Database.scrub`.
        """
        key = _key(conversation)
        return self._writer.do(lambda connection: rows.forget(connection, key), scrub=True)

    def purge(self) -> int:
        """Delete what is older than the settings keep; return how many turns and proposals.

        Runs when the history is opened and at most hourly while it is used. Ages are counted by
        `rows.set_clock`: a clock that leaps by years makes nothing old.
        """
        deleted, found = 0, _SLICE
        while found >= _SLICE:
            found = self._writer.do(self._purge, scrub=True, patience=_OPENING_SECONDS)
            self._purged = time.monotonic()
            deleted += found
        return deleted

    def export(self) -> Iterator[str]:
        """Yield one JSON record a conversation, on one line, with its turns, votes and tickets."""
        for conversation in self._read(rows.conversations):
            with self._database.reading() as connection:
                record = {
                    "conversation": conversation,
                    "turns": rows.turns_of(connection, conversation, None),
                    "tickets": rows.tickets_of(connection, conversation),
                }
            yield orjson.dumps(record).decode().translate(_LINE_ENDS)

    def backup(self, path: Path) -> None:
        """Write a copy of the database to a file, whole even while it is written to.

        To restore it, stop the program, put the copy in the place of the database's file and delete
        the files beside it that end in -wal and -shm.
        """
        self._database.backup(path)

    def close(self) -> None:
        """Store what waits and let go of the database."""
        self._writer.close()
        self._database.close()

    # --- Outbox -----------------------------------------------------------------------------

    def due(self, now: datetime, limit: int = 20) -> list[Delivery]:
        """Return what the webhook is to be told now, oldest first."""
        return self._read(lambda connection: rows.due(connection, now, limit))

    def trying(self, delivery: Delivery, next_try: datetime) -> None:
        """Count a try that is about to be made; without a word of it, the next is due then."""
        self._deliver(delivery.id, tries=delivery.tries + 1, due=next_try)

    def delivered(self, delivery: Delivery) -> None:
        """Mark a delivery as received."""
        self._deliver(delivery.id, state="delivered", error="")

    def failed(self, delivery: Delivery, error: str, last: bool) -> None:
        """Say why a try failed; after the last one the ticket is shown as undelivered."""
        state = "undelivered" if last else "pending"
        self._deliver(delivery.id, state=state, error=_text(error, _SHORT))

    def redeliver(self, number: int) -> KeptTicket:
        """Make the delivery of a ticket due again; raise NotFound when it has none."""
        at = self._clock()
        return self._write(lambda connection: rows.redeliver(connection, number, at))

    def _deliver(self, delivery: str, **values: object) -> None:
        self._write(lambda connection: rows.set_delivery(connection, delivery, values))

    def _write(self, job: Job[Result]) -> Result:
        return self._writer.do(job)

    def _read(self, job: Job[Result]) -> Result:
        with self._database.reading() as connection:
            return job(connection)

    def _age(self, at: datetime) -> float:
        """Return when an age begins: never before the last purge, whatever the clock says."""
        return max(at.timestamp(), self._seen)

    def _purge(self, connection: Connection) -> int:
        now = self._clock().timestamp()
        rows.set_clock(connection, now)
        self._seen = now
        days = self._settings.retention_days
        return rows.purge(connection, now - days * 86400, _SLICE) if days else 0

    def _purge_now_and_then(self) -> None:
        if time.monotonic() - self._purged > _PURGE_SECONDS:
            self._purged = time.monotonic()
            self._writer.later(self._purge_further, scrub=True)

    def _purge_further(self, connection: Connection) -> int:
        found = self._purge(connection)
        if found >= _SLICE:
            self._writer.later(self._purge_further, scrub=True)
        return found


def _key(text: str) -> str:
    return clean(text)[:64]


def _text(text: str, limit: int = _LONG, spare: Sequence[str] = ()) -> str:
    """Return text that may be stored: clean, secrets masked, of bounded length."""
    return mask_secrets(clean(text[: 10 * limit]).strip(), spare)[0][:limit]


def _name(text: str) -> str:
    """Return who did something, as access knows them: an e-mail address is no secret here."""
    if name := clean(text[:1000]).strip()[:100]:
        return name
    raise BadInput("名字是空的，请写明是谁。 / The name is empty: say who it is.")


def _required(text: str, spare: Sequence[str] = ()) -> str:
    if words := _text(text, spare=spare):
        return words
    raise BadInput("备注是空的，请写点什么。 / The note is empty: write at least a word.")


def _screened(answer: Answer) -> Answer:
    """Mask what of an answer is the user's; the guide's own words stay."""
    question = _text(answer.question, 20_000)
    if question == answer.question:
        return answer
    handoff = answer.handoff
    if handoff:
        handoff = replace(handoff, ticket_draft=_text(handoff.ticket_draft, 50_000))
    message = _text(answer.message)
    return replace(answer, question=question, message=message, handoff=handoff)


def _screened_ticket(ticket: Ticket) -> Ticket:
    filled = tuple(replace(one, text=_text(one.text)) for one in ticket.filled)
    return replace(
        ticket,
        question=_text(ticket.question, 20_000),
        previous=_text(ticket.previous),
        filled=filled,
    )
