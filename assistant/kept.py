"""What is kept: turns, votes, tickets, proposals, and why a change was refused."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, get_args

from assistant.errors import AssistantError
from assistant.records import Verdict

VoteReason = Literal["", "wrong_passage", "not_enough", "outdated", "unclear", "other"]
TicketState = Literal["new", "claimed", "closed"]
DeliveryState = Literal["off", "pending", "delivered", "undelivered"]
ProposalState = Literal["new", "accepted", "refused"]

VOTE_REASONS: tuple[str, ...] = get_args(VoteReason)

LONGEST_REPLY_TO = 200
"""Most characters of what says how a user wants to be reached."""


NO_TURN = "这个对话里没有这个问题。 / There is no such question in this conversation."
"""What is said of a turn that is none, or another conversation's."""


class NotSaved(AssistantError):
    """Report that the database cannot be used now; of a refused change nothing was stored.

    `reason` is one word for logs and metrics.
    """

    def __init__(self, words: str, reason: str = "failed") -> None:
        super().__init__(words)
        self.reason = reason


class NotFound(AssistantError):
    """Report that there is no such turn, ticket or proposal, or none of that conversation."""


class Taken(AssistantError):
    """Report a ticket that is another's, or a proposal that was decided; `owner` names who."""

    def __init__(self, words: str, owner: str) -> None:
        super().__init__(words)
        self.owner = owner


@dataclass(frozen=True, slots=True)
class Vote:
    """Hold what a user thought of an answer: 1 good, -1 bad."""

    value: int
    reason: VoteReason
    note: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Turn:
    """Hold one question as it was answered.

    `answer` is the contract object of the answer, `reason` its handoff's ("" without one),
    `ticket` the number of the ticket it became.
    """

    id: str
    conversation: str
    at: datetime
    question: str
    verdict: Verdict
    confidence: float
    reason: str
    language: str
    generation: str
    elapsed_ms: float
    answer: dict[str, Any]
    vote: Vote | None
    ticket: int | None


@dataclass(frozen=True, slots=True)
class Note:
    """Hold what an agent wrote to a ticket."""

    author: str
    at: datetime
    text: str


@dataclass(frozen=True, slots=True)
class KeptTicket:
    """Hold a ticket with its number, its owner ("" when it is nobody's) and its notes.

    `packet` is the `records.Ticket` as JSON. `reply_to` says how the user wants to be reached, ""
    when that was not said. `delivery` is the state of its webhook.
    """

    number: int
    state: TicketState
    reason: str
    urgent: bool
    question: str
    language: str
    created: datetime
    owner: str
    claimed: datetime | None
    closed: datetime | None
    conversation: str
    turn: str
    packet: dict[str, Any]
    reply_to: str
    notes: tuple[Note, ...]
    delivery: DeliveryState


@dataclass(frozen=True, slots=True)
class Proposal:
    """Hold questions that the guide should answer, proposed to its maintainers.

    `passage` is the reference of the passage that answers, `path#heading`; "" when none does and
    `answer` has the words. `origin` says where it came from: "ticket 12", "gap", "search".
    """

    id: int
    questions: tuple[str, ...]
    passage: str
    answer: str
    author: str
    origin: str
    state: ProposalState
    created: datetime
    decided: datetime | None
    decided_by: str
    note: str


@dataclass(frozen=True, slots=True)
class Day:
    """Count what happened on one day (UTC, `date` as 2026-11-26)."""

    date: str
    asks: int
    answered: int
    uncertain: int
    unanswered: int
    up: int
    down: int
    tickets: int


@dataclass(frozen=True, slots=True)
class Delivery:
    """Hold one ticket to be told to the webhook; `id` stays the same over all tries."""

    id: str
    number: int
    tries: int
    error: str
