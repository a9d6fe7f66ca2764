"""What programs send and get over REST, with the caps of every field."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from datetime import datetime
from typing import Annotated, Any, Literal, TypeGuard, TypeVar
from urllib.parse import quote

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from assistant.errors import BadInput
from assistant.frontdesk import Reply, reply_of
from assistant.kept import LONGEST_REPLY_TO, KeptTicket, TicketState, Turn, Vote, VoteReason
from assistant.records import Answer, Chunk, Document, Handoff, Hit, Kind, Quote, Ticket
from assistant.web.render import source_url
from assistant.web.samples import CONVERSATION, TURN

BEYOND = 2**31 - 1
"""More than any offset or number here."""

MOST_TEXT = 50_000
"""Most characters of a document that are given at once."""

_TOLD = 10
Passage = TypeVar("Passage", Quote, Chunk)

_HALF = re.compile("[\ud800-\udfff]")


def _whole(value: Any) -> Any:
    """Drop halves of characters, as are left where a program cut a text between them."""
    return _HALF.sub("", value) if isinstance(value, str) else value


def _number(value: Any) -> Any:
    """Refuse what only equals a number: true, and 1.0."""
    if type(value) is not int:
        raise PydanticCustomError("number", "Input should be a whole number")
    return value


Text = Annotated[str, BeforeValidator(_whole)]
Id = Annotated[str, Field(max_length=64), BeforeValidator(_whole)]
Asking = Annotated[
    str,
    Field(description="the question", examples=["充值没到账怎么办"]),
    BeforeValidator(_whole),
]
Said = Annotated[Text, Field(description="what to add to the ticket", examples=["Called back."])]


# --- What is sent --------------------------------------------------------------------------------


class Body(BaseModel):
    """Take what is named here and nothing else; a number is no text and a text no number."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    @model_validator(mode="before")
    @classmethod
    def _named(cls, data: Any) -> Any:
        """Say which fields there are where others are sent, whose names may hold anything."""
        if isinstance(data, dict) and not data.keys() <= cls.model_fields.keys():
            raise PydanticCustomError("named", only(cls.model_fields))
        return data


class Question(Body):
    """Ask, within a conversation when it names one."""

    question: Asking
    conversation: Id = Field("", description='of an earlier answer, to follow up; "": a new one')


class Search(Body):
    """Look for passages."""

    question: Asking
    top_k: int = Field(5, ge=1, le=50, description="most passages")
    path: Text = Field("", max_length=1000, description="of this document alone")
    section: Text = Field("", max_length=1000, description="below this heading alone")


class Feedback(Body):
    """Vote on an answer; the last vote on a turn counts."""

    conversation: Id = Field(examples=[CONVERSATION])
    turn: Id = Field(examples=[TURN])
    value: Annotated[Literal[1, -1], BeforeValidator(_number)] = Field(
        description="1: it helped, -1: it did not", examples=[-1]
    )
    reason: VoteReason = Field(
        "", description="why it did not, with the value -1 alone", examples=["outdated"]
    )
    note: Text = Field("", max_length=2000, description="in the user's own words")

    @field_validator("reason")
    @classmethod
    def _of_blame(cls, reason: VoteReason, told: ValidationInfo) -> VoteReason:
        if reason and told.data.get("value") == 1:
            words = "It says why an answer did not help: send it with the value -1"
            raise PydanticCustomError("of_blame", words)
        return reason


class Request(Body):
    """Hand a turn over to support."""

    conversation: Id = Field(examples=[CONVERSATION])
    turn: Id = Field(examples=[TURN])
    filled: dict[Text, Text] = Field(
        default_factory=dict,
        max_length=50,
        description="what the user wrote for the items of the answer's checklist",
        examples=[{"手机号": "尾号 1234"}],
    )
    reply_to: Text = Field(
        "", max_length=LONGEST_REPLY_TO, description="phone or e-mail, if the user wishes"
    )


class Remark(Body):
    """Say something about a ticket."""

    note: Said = Field(min_length=1, max_length=2000)


class Parting(Body):
    """Say a last word about a ticket, when there is one."""

    note: Said = Field("", max_length=2000)


class Holder(Body):
    """Name who holds a ticket."""

    owner: Text = Field(
        min_length=1, max_length=100, description="of the ticket until now", examples=["ming"]
    )


class Span(Body):
    """Name a part of a document."""

    path: Text = Field(max_length=1000, description="of the document, as a quote names it")
    start: int = Field(0, ge=0, le=BEYOND, description="first character")
    end: int = Field(BEYOND, ge=0, le=BEYOND, description="behind the last")


_FIELDS = frozenset(name for body in Body.__subclasses__() for name in body.model_fields)


def show_limit(schema: dict[str, Any], most: int) -> None:
    """Put into the schema of a body how long a question may be, which a setting says."""
    if "question" in schema["properties"]:
        schema["properties"]["question"]["maxLength"] = most


def only(names: Iterable[str]) -> str:
    """Say what is taken where something else was sent."""
    listed = ", ".join(names)
    return f"It takes {listed} and nothing else" if listed else "It takes nothing"


def misfit(errors: Iterable[Mapping[str, Any]]) -> str:
    """Say which fields do not fit and why, without a word of what was in them."""
    told = dict.fromkeys(f"{_place(one['loc'])}: {one['msg']}" for one in errors)
    return f"The request does not fit. {'. '.join(list(told)[:_TOLD])}."


def _place(parts: tuple[int | str, ...]) -> str:
    """Name a field; a name that is none of ours is the sender's, and may hold anything."""
    if parts[:1] in (("query",), ("path",)):
        return ".".join(map(str, parts))
    return ".".join(str(part) for part in parts if part in _FIELDS) or "body"


# --- What is given -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Asked(Answer):
    """Hold an answer and where it is kept; `turn` is "" when it could not be saved."""

    conversation: str
    turn: str
    saved: bool


@dataclass(frozen=True, slots=True)
class Past(Asked):
    """Hold an earlier turn of a conversation, with its vote and the number of its ticket."""

    at: datetime
    vote: Vote | None
    ticket: int | None


@dataclass(frozen=True, slots=True)
class Conversation:
    """Hold what is kept of a conversation, oldest first; nothing of one that is unknown."""

    conversation: str
    turns: list[Past]


@dataclass(frozen=True, slots=True)
class Found:
    """Hold a found passage with its raw scores, as `records.Hit` explains them."""

    chunk: Chunk
    row: int
    passage: float
    view: float
    support: float
    best: int
    lexical: float
    coverage: float
    score: float
    similarity: float


@dataclass(frozen=True, slots=True)
class Hits:
    """Hold found passages, best first."""

    hits: list[Found]


@dataclass(frozen=True, slots=True)
class Opened:
    """Hold what a user is told of a ticket."""

    number: int
    state: TicketState
    urgent: bool
    created: datetime


@dataclass(frozen=True, slots=True)
class Shown(KeptTicket):
    """Describe all that is kept of a ticket: what `packet` holds too."""

    packet: Ticket  # type: ignore[assignment]  # it is kept, and given, as JSON


@dataclass(frozen=True, slots=True)
class Tickets:
    """Describe tickets, all that is kept of them."""

    tickets: list[Shown]


@dataclass(frozen=True, slots=True)
class Listed:
    """Name a document; `url` is its public page, or its address in the source viewer."""

    path: str
    title: str
    kind: Kind
    date: str
    url: str
    characters: int


@dataclass(frozen=True, slots=True)
class Documents:
    """Hold documents by path; `after` asks for those behind the last one, "" when that was all."""

    documents: list[Listed]
    after: str


@dataclass(frozen=True, slots=True)
class Read(Listed):
    """Hold the canonical text of a document from `start` to `end`, in characters."""

    start: int
    end: int
    text: str


_ANSWER = tuple(field.name for field in fields(Answer))
_ASKED = tuple(field.name for field in fields(Asked))
_HIT = tuple(field.name for field in fields(Hit))
_LISTED = tuple(field.name for field in fields(Listed))


def asked(reply: Reply) -> Asked:
    """Return a reply as programs get it: every quote with an address."""
    answer = reply.answer
    given = {name: getattr(answer, name) for name in _ANSWER}
    given["quotes"] = tuple(map(_addressed, answer.quotes))
    given["handoff"] = answer.handoff and _with_addresses(answer.handoff)
    return Asked(**given, conversation=reply.conversation, turn=reply.turn, saved=reply.saved)


def past(turn: Turn) -> Past:
    """Return a turn as programs get it."""
    given = asked(reply_of(turn))
    kept = {name: getattr(given, name) for name in _ASKED}
    return Past(**kept, at=turn.at, vote=turn.vote, ticket=turn.ticket)


def hits(found: Iterable[Hit]) -> Hits:
    """Return hits as programs get them: as the command line gives them, with an address each."""
    return Hits([_found(hit) for hit in found])


def _found(hit: Hit) -> Found:
    given = {name: getattr(hit, name) for name in _HIT}
    return Found(**{**given, "chunk": _addressed(hit.chunk)}, similarity=hit.similarity)


def opened(ticket: KeptTicket) -> Opened:
    """Return of a ticket what its user is told."""
    return Opened(ticket.number, ticket.state, ticket.urgent, ticket.created)


def listed(document: Document) -> Listed:
    """Return what a document is, without its text."""
    return Listed(
        path=document.path,
        title=document.title,
        kind=document.kind,
        date=document.date,
        url=document.url if _is_web(document.url) else f"/source/{quote(document.path)}",
        characters=len(document.text),
    )


def read(document: Document, start: int, end: int) -> Read:
    """Return a part of a document's text, at most MOST_TEXT; offsets beyond it are its end.

    Raises BadInput where the end lies before the start.
    """
    if end < start:
        raise BadInput("The request does not fit. end: It lies before start.")
    given = listed(document)
    known = {name: getattr(given, name) for name in _LISTED}
    start = min(start, given.characters)
    end = max(start, min(end, start + MOST_TEXT, given.characters))
    return Read(**known, start=start, end=end, text=document.text[start:end])


def _addressed(words: Passage) -> Passage:
    return words if _is_web(words.url) else replace(words, url=source_url(words))


def _is_web(url: str | None) -> TypeGuard[str]:
    return url is not None and url.startswith(("https://", "http://"))


def _with_addresses(handoff: Handoff) -> Handoff:
    return replace(
        handoff,
        channels=tuple(
            replace(one, quote=one.quote and _addressed(one.quote)) for one in handoff.channels
        ),
        checklist=tuple(
            replace(one, quote=one.quote and _addressed(one.quote)) for one in handoff.checklist
        ),
    )
