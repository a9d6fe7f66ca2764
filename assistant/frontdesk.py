"""A desk with a memory: what every door of the web product asks.

An answer never waits on the memory: when it cannot be kept, it is given all the same, marked as not
saved, and the turn is remembered by this process so that the conversation can go on.
"""

import logging
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

import orjson
from pydantic import TypeAdapter

from assistant.answer import language_of
from assistant.desk import Desk
from assistant.errors import BadInput
from assistant.handoff import write_ticket
from assistant.history import History
from assistant.kept import NO_TURN, KeptTicket, NotFound, NotSaved, TicketState, Turn, VoteReason
from assistant.records import Answer, Hit
from assistant.settings import Settings

_CONVERSATION = re.compile(r"[A-Za-z0-9_-]{22,64}")
_UNSAVED_CONVERSATIONS, _UNSAVED_TURNS = 1000, 20
_LOOKED_BACK = 10
_ANSWERS: TypeAdapter[Answer] = TypeAdapter(Answer)
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Reply:
    """Hold an answer and where it was kept; `turn` is "" when it could not be saved."""

    answer: Answer
    conversation: str
    turn: str
    saved: bool


class FrontDesk:
    """Answer within conversations, take votes and tickets. Thread-safe."""

    def __init__(self, desk: Desk, history: History) -> None:
        self.desk = desk
        self.history = history
        self.settings: Settings = desk.settings
        self.listeners: list[Callable[[Reply, float], None]] = []
        self._unsaved: OrderedDict[str, list[Turn]] = OrderedDict()

    @property
    def notes(self) -> tuple[str, ...]:
        """Return what an operator should know of the index and of the memory."""
        return (*self.desk.notes, *self.history.notes)

    def ask(self, question: str, conversation: str = "") -> Reply:
        """Answer a question as the next of its conversation; an id that is none begins one.

        Raises BadInput, with a sentence to show, for an empty or overlong question.
        """
        return self._reply(self.desk.ask, question, conversation)

    def hand_off(self, question: str, conversation: str = "") -> Reply:
        """Hand a question over to a person, as `ask` does with what it cannot answer."""
        return self._reply(self.desk.hand_off, question, conversation)

    def search(self, question: str, top_k: int = 5, path: str = "", section: str = "") -> list[Hit]:
        """Return the passages found, best first; of a document, or below a heading, if named."""
        return self.desk.search(question, top_k, path, section)

    def rate(
        self,
        conversation: str,
        turn: str,
        value: int,
        reason: VoteReason = "",
        note: str = "",
    ) -> None:
        """Keep a vote on a turn, 1 or -1; one vote a turn, the last counts."""
        self.history.vote(conversation, turn, value, reason, note)

    def open_ticket(
        self, conversation: str, turn: str, filled: Mapping[str, str], reply_to: str = ""
    ) -> KeptTicket:
        """Open the ticket of a turn that was handed over; asked again, add to it what is said.

        Raises BadInput when tickets are off, the turn has no handoff or `filled` does not fit its
        checklist; NotFound for a turn of another conversation; NotSaved.
        """
        if not self.settings.tickets:
            raise BadInput(
                "这里不收工单，请复制说明发给客服。 / Tickets are off here; copy the note instead."
            )
        kept = self.history.turn(turn)
        if kept.conversation != conversation:
            raise NotFound(NO_TURN)
        ticket = write_ticket(answer_of(kept), filled, self._before(kept))
        return self.history.open_ticket(conversation, turn, ticket, reply_to)

    def turns(self, conversation: str, limit: int = 200) -> list[Turn]:
        """Return the last turns of a conversation, oldest first, those not saved included."""
        try:
            kept = self.history.turns(conversation, limit)
        except NotSaved:
            kept = []
        loose = self._unsaved.get(conversation, [])
        return sorted([*kept, *loose], key=lambda turn: turn.at)[-limit:] if loose else kept

    def last_question(self, conversation: str, but: str = "") -> str:
        """Return what a conversation asked last, small talk and one question aside, else ""."""
        return _last_question(self.turns(conversation, _LOOKED_BACK), but)

    def states(self, numbers: Iterable[int]) -> dict[int, TicketState]:
        """Return the state of each of these tickets that is still kept."""
        found: dict[int, TicketState] = {}
        for number in numbers:
            with suppress(NotFound, NotSaved):
                found[number] = self.history.ticket(number).state
        return found

    def forget(self, conversation: str) -> int:
        """Delete all that was kept of a conversation; return the number of rows."""
        self._unsaved.pop(conversation, None)
        return self.history.forget(conversation)

    def _reply(
        self, answer_with: Callable[[str, Sequence[str]], Answer], question: str, conversation: str
    ) -> Reply:
        started = time.perf_counter()
        if not _CONVERSATION.fullmatch(conversation):
            conversation = self.history.new_conversation()
            before = []
        else:
            last = self.last_question(conversation, but=question.strip())
            before = [last] if last else []
        answer = answer_with(question, before)
        reply = self._kept(answer, conversation)
        for listener in self.listeners:
            listener(reply, time.perf_counter() - started)
        return reply

    def _kept(self, answer: Answer, conversation: str) -> Reply:
        try:
            turn = self.history.keep(conversation, answer)
        except NotSaved as error:
            _log.warning("an answer was given but not saved: %s", error)
            self._remember(answer, conversation)
            return Reply(answer, conversation, "", False)
        return Reply(answer, conversation, turn, True)

    def _remember(self, answer: Answer, conversation: str) -> None:
        """Hold a turn that could not be saved, for as long as there is room."""
        turns = self._unsaved.setdefault(conversation, [])
        turns.append(_unsaved(answer, conversation))
        del turns[:-_UNSAVED_TURNS]
        self._unsaved.move_to_end(conversation)
        while len(self._unsaved) > _UNSAVED_CONVERSATIONS:
            self._unsaved.popitem(last=False)

    def _before(self, kept: Turn) -> str:
        """Return what was asked before a turn, "" when there was nothing."""
        earlier = [turn for turn in self.turns(kept.conversation) if turn.at < kept.at]
        return _last_question(earlier, but=kept.question)


def answer_of(turn: Turn) -> Answer:
    """Return the answer of a kept turn as it was given."""
    return _ANSWERS.validate_python(turn.answer)


def is_small_talk(answer: Answer) -> bool:
    """Tell whether an answer is to a greeting or to thanks, which ask for nothing."""
    return not answer.quotes and not answer.handoff


def reply_of(turn: Turn) -> Reply:
    """Return a kept turn as it was replied."""
    return Reply(answer_of(turn), turn.conversation, turn.id, bool(turn.id))


def _last_question(turns: Sequence[Turn], but: str) -> str:
    asked = (turn for turn in reversed(turns) if turn.question != but)
    return next((turn.question for turn in asked if not is_small_talk(answer_of(turn))), "")


def _unsaved(answer: Answer, conversation: str) -> Turn:
    return Turn(
        id="",
        conversation=conversation,
        at=datetime.now(UTC),
        question=answer.question,
        verdict=answer.verdict,
        confidence=answer.confidence,
        reason=answer.handoff.reason if answer.handoff else "",
        language=language_of(answer.question),
        generation=answer.generation,
        elapsed_ms=answer.elapsed_ms,
        answer=orjson.loads(orjson.dumps(answer)),
        vote=None,
        ticket=None,
    )
