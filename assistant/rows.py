"""Write and read the history's rows, each function within the transaction it is given."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import orjson
from sqlalchemy import (
    ColumnElement,
    Connection,
    CursorResult,
    Row,
    Select,
    and_,
    case,
    delete,
    func,
    insert,
    literal_column,
    or_,
    select,
    true,
    update,
)

from assistant.kept import (
    NO_TURN,
    Day,
    Delivery,
    KeptTicket,
    Note,
    NotFound,
    Proposal,
    ProposalState,
    Taken,
    TicketState,
    Turn,
    Vote,
)
from assistant.schema import facts, notes, outbox, proposals, tickets, turns, votes

Values = dict[str, Any]


def _new_key(result: CursorResult[Any]) -> int:
    """Return the key that the database gave to an inserted row."""
    assert result.inserted_primary_key is not None
    return int(result.inserted_primary_key[0])


# --- Turns --------------------------------------------------------------------------------------

_ADD_TURN = insert(turns)
_TURNS = (
    select(
        *(column for column in turns.c if column.name not in ("seq", "kept")),
        votes.c.value,
        votes.c.reason.label("vote_reason"),
        votes.c.note,
        votes.c.at.label("voted"),
        tickets.c.number,
    )
    .outerjoin(votes, votes.c.turn == turns.c.seq)
    .outerjoin(tickets, tickets.c.turn == turns.c.seq)
)


def add_turn(connection: Connection, values: Values) -> None:
    """Store one turn."""
    connection.execute(_ADD_TURN, values)


def turns_of(connection: Connection, conversation: str, limit: int | None) -> list[Turn]:
    """Return the last turns of a conversation, oldest first."""
    asked = _TURNS.where(turns.c.conversation == conversation)
    found = connection.execute(asked.order_by(turns.c.seq.desc()).limit(limit))
    return [_turn(row) for row in found][::-1]


def turn(connection: Connection, id: str) -> Turn:
    """Return a turn; raise NotFound when there is none."""
    row = connection.execute(_TURNS.where(turns.c.id == id)).first()
    if row is None:
        raise NotFound(NO_TURN)
    return _turn(row)


def gaps(connection: Connection, since: datetime, limit: int) -> list[Turn]:
    """Return turns that went unanswered (but for small talk) or were voted down, newest first."""
    unanswered = and_(turns.c.verdict == "unanswered", turns.c.reason != "")
    asked = _TURNS.where(turns.c.at >= since, or_(unanswered, votes.c.value < 0))
    return [
        _turn(row) for row in connection.execute(asked.order_by(turns.c.seq.desc()).limit(limit))
    ]


def days(connection: Connection, since: datetime) -> list[Day]:
    """Return what happened on each day on which something was asked, oldest first."""
    # Written out: PostgreSQL takes two parameters that are equal for two different columns.
    day = func.substr(turns.c.at, literal_column("1"), literal_column("10"))

    def count(condition: ColumnElement[bool]) -> ColumnElement[int]:
        return func.count(1).filter(condition)

    asked = (
        select(
            day,
            func.count(),
            *(count(turns.c.verdict == name) for name in ("answered", "uncertain", "unanswered")),
            count(votes.c.value > 0),
            count(votes.c.value < 0),
            count(tickets.c.number.is_not(None)),
        )
        .select_from(turns)
        .outerjoin(votes, votes.c.turn == turns.c.seq)
        .outerjoin(tickets, tickets.c.turn == turns.c.seq)
        .where(turns.c.at >= since)
        .group_by(day)
        .order_by(day)
    )
    return [Day(*row) for row in connection.execute(asked)]


def set_vote(connection: Connection, conversation: str, id: str, values: Values) -> None:
    """Store the vote on a turn in the place of one before."""
    seq = _seq(connection, conversation, id)
    if not connection.execute(update(votes).where(votes.c.turn == seq), values).rowcount:
        connection.execute(insert(votes), {"turn": seq, **values})


def forget(connection: Connection, conversation: str) -> int:
    """Delete the turns of a conversation with all that hangs on them; return how many."""
    return connection.execute(delete(turns).where(turns.c.conversation == conversation)).rowcount


def _seq(connection: Connection, conversation: str, id: str) -> int:
    asked = select(turns.c.seq).where(turns.c.id == id, turns.c.conversation == conversation)
    seq: int | None = connection.scalar(asked)
    if seq is None:
        raise NotFound(NO_TURN)
    return seq


def _turn(row: Row[*tuple[Any, ...]]) -> Turn:
    vote = None
    if row.value is not None:
        vote = Vote(row.value, row.vote_reason, row.note, row.voted)
    return Turn(
        id=row.id,
        conversation=row.conversation,
        at=row.at,
        question=row.question,
        verdict=row.verdict,
        confidence=row.confidence,
        reason=row.reason,
        language=row.language,
        generation=row.generation,
        elapsed_ms=row.elapsed_ms,
        answer=orjson.loads(row.answer),
        vote=vote,
        ticket=row.number,
    )


# --- Tickets ------------------------------------------------------------------------------------

_TICKETS = (
    select(
        *(column for column in tickets.c if column.name != "turn"),
        turns.c.id,
        turns.c.conversation,
        turns.c.language,
        outbox.c.state.label("delivery"),
    )
    .join(turns, turns.c.seq == tickets.c.turn)
    .outerjoin(outbox, outbox.c.ticket == tickets.c.number)
)


def add_ticket(
    connection: Connection, conversation: str, turn: str, values: Values, delivery: str
) -> KeptTicket:
    """Store the ticket of a turn, once; with an id of a delivery, for the webhook too.

    Opened again, it takes what is said this time in the place of what was said before.
    """
    seq = _seq(connection, conversation, turn)
    asked = select(tickets.c.number, tickets.c.packet, tickets.c.reply_to)
    kept = connection.execute(asked.where(tickets.c.turn == seq)).first()
    if kept is not None:
        again = update(tickets).where(tickets.c.number == kept.number)
        connection.execute(again, _said_again(kept, values))
        return ticket(connection, kept.number)
    number = _new_key(connection.execute(insert(tickets), {"turn": seq, **values}))
    if delivery:
        waiting = {"id": delivery, "ticket": number, "due": values["created"]}
        connection.execute(insert(outbox), {**waiting, "state": "pending", "tries": 0, "error": ""})
    return ticket(connection, number)


def _said_again(kept: Row[*tuple[Any, ...]], values: Values) -> Values:
    """Return what of a ticket is new when it is opened again; what is left empty stays."""
    packet, again = orjson.loads(kept.packet), orjson.loads(values["packet"])
    said = {one["item"]: one for one in again["filled"] if one["text"]}
    packet["filled"] = [said.get(one["item"], one) for one in packet["filled"]]
    return {
        "packet": orjson.dumps(packet).decode(),
        "reply_to": values["reply_to"] or kept.reply_to,
    }


def ticket(connection: Connection, number: int) -> KeptTicket:
    """Return a ticket; raise NotFound when there is none."""
    found = _tickets(connection, _TICKETS.where(tickets.c.number == number))
    if not found:
        raise NotFound(f"没有第 {number} 号工单。 / There is no ticket {number}.")
    return found[0]


def list_tickets(
    connection: Connection,
    state: TicketState | None,
    owner: str | None,
    not_owner: str | None,
    words: str,
    limit: int,
    after: int | None,
) -> list[KeptTicket]:
    """Return tickets; open ones urgent first, then oldest first; else newest first."""
    asked = _TICKETS.where(_holds(words)).limit(limit)
    if state is not None:
        asked = asked.where(tickets.c.state == state)
    if owner is not None:
        asked = asked.where(tickets.c.owner == owner)
    if not_owner is not None:
        asked = asked.where(tickets.c.owner != not_owner)
    if state in ("new", "claimed"):
        if after is not None:
            asked = asked.where(_behind(after))
        return _tickets(connection, asked.order_by(tickets.c.urgent.desc(), tickets.c.number))
    if after is not None:
        asked = asked.where(tickets.c.number < after)
    return _tickets(connection, asked.order_by(tickets.c.number.desc()))


def _behind(after: int) -> ColumnElement[bool]:
    """Tell what stands behind a ticket among open ones, whatever became of it meanwhile."""
    place = tickets.alias()
    urgent = select(place.c.urgent).where(place.c.number == after).scalar_subquery()
    # Behind one that was withdrawn some are shown twice, which is better than not at all.
    at = func.coalesce(urgent, 1)
    return or_(tickets.c.urgent < at, and_(tickets.c.urgent == at, tickets.c.number > after))


def _holds(words: str) -> ColumnElement[bool]:
    """Tell which tickets words are about: as number, contact, or part of question or notes."""
    if not words:
        return true()
    digits = words.lstrip("#＃")
    number = int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 10 else 0
    contact = func.replace(tickets.c.reply_to, " ", "")
    noted = select(notes.c.ticket).where(notes.c.text.icontains(words, autoescape=True))
    return or_(
        tickets.c.number == number,
        contact.icontains(words.replace(" ", ""), autoescape=True),
        turns.c.question.icontains(words, autoescape=True),
        tickets.c.number.in_(noted),
    )


def tickets_of(connection: Connection, conversation: str) -> list[KeptTicket]:
    """Return the tickets of a conversation, oldest first."""
    asked = _TICKETS.where(turns.c.conversation == conversation).order_by(tickets.c.number)
    return _tickets(connection, asked)


def counts(connection: Connection, owner: str | None, words: str) -> dict[str, int]:
    """Count tickets by state."""
    asked = select(tickets.c.state, func.count()).group_by(tickets.c.state)
    if words:
        asked = asked.join(turns, turns.c.seq == tickets.c.turn).where(_holds(words))
    if owner is not None:
        asked = asked.where(tickets.c.owner == owner)
    return {"new": 0, "claimed": 0, "closed": 0} | dict(connection.execute(asked).tuples().all())


def claim(connection: Connection, number: int, agent: str, now: datetime) -> KeptTicket:
    """Make a ticket an agent's; exactly one of many wins."""
    free = and_(tickets.c.number == number, tickets.c.owner == "", tickets.c.state == "new")
    taken = {"owner": agent, "state": "claimed", "claimed": now}
    won = connection.execute(update(tickets).where(free), taken).rowcount
    found = ticket(connection, number)
    if not won and (found.owner, found.state) != (agent, "claimed"):
        raise _taken(found)
    return found


def take_over(
    connection: Connection, number: int, agent: str, owner: str, now: datetime
) -> KeptTicket:
    """Make a ticket that its owner holds an agent's; exactly one of many wins."""
    won = connection.execute(
        update(tickets).where(_held(number, owner)), {"owner": agent, "claimed": now}
    ).rowcount
    found = ticket(connection, number)
    if not won and (found.owner, found.state) != (agent, "claimed"):
        raise _taken(found)
    if not won or owner == agent:
        return found
    words = f"接手，原来由 {owner} 处理。 / Taken over from {owner}."
    return add_note(connection, number, agent, words, now)


def release(
    connection: Connection, number: int, agent: str, anyones: bool, now: datetime
) -> KeptTicket:
    """Give an agent's ticket, or anyone's, back to all."""
    owner = ticket(connection, number).owner if anyones else agent
    free = {"owner": "", "state": "new", "claimed": None}
    done = connection.execute(update(tickets).where(_held(number, owner)), free).rowcount
    found = ticket(connection, number)
    if not done and found.state != "new":
        raise _taken(found)
    if not done or owner == agent:
        return found
    words = f"放回，原来由 {owner} 处理。 / Released from {owner}."
    return add_note(connection, number, agent, words, now)


def reopen(connection: Connection, number: int, agent: str, now: datetime) -> KeptTicket:
    """Make a closed ticket an agent's again; exactly one of many wins."""
    closed = and_(tickets.c.number == number, tickets.c.state == "closed")
    taken = {"owner": agent, "state": "claimed", "claimed": now, "closed": None}
    if connection.execute(update(tickets).where(closed), taken).rowcount:
        return add_note(connection, number, agent, "重新打开。 / Reopened.", now)
    found = ticket(connection, number)
    if (found.owner, found.state) != (agent, "claimed"):
        raise _taken(found)
    return found


def _held(number: int, owner: str) -> ColumnElement[bool]:
    return and_(tickets.c.number == number, tickets.c.owner == owner, tickets.c.state == "claimed")


def close(
    connection: Connection, number: int, agent: str, text: str, now: datetime, kept: float
) -> KeptTicket:
    """Close a ticket that is the agent's or nobody's; its age counts from now.

    Closed again, as in a second tab, it keeps a note that it lacks.
    """
    open_ = and_(
        tickets.c.number == number,
        tickets.c.owner.in_(("", agent)),
        tickets.c.state != "closed",
    )
    closed = {"owner": agent, "state": "closed", "closed": now}
    done = connection.execute(update(tickets).where(open_), closed).rowcount
    found = ticket(connection, number)
    if not done:
        if found.owner != agent:
            raise _taken(found)
        said = [note.text for note in found.notes if note.author == agent]
        again = not text or said[-1:] == [text]
        return found if again else add_note(connection, number, agent, text, now)
    together = turns.c.conversation == found.conversation
    connection.execute(update(turns).where(together, turns.c.kept < kept), {"kept": kept})
    return add_note(connection, number, agent, text, now) if text else found


def add_note(
    connection: Connection, number: int, agent: str, text: str, now: datetime
) -> KeptTicket:
    """Add a note to a ticket."""
    ticket(connection, number)
    note = {"ticket": number, "author": agent, "at": now, "text": text}
    connection.execute(insert(notes), note)
    return ticket(connection, number)


def _taken(found: KeptTicket) -> Taken:
    number, owner, state = found.number, found.owner, found.state
    if not owner:
        words = (
            f"第 {number} 号工单没有人在处理（{state}）。 / Ticket {number} is nobody's ({state})."
        )
        return Taken(words, owner)
    return Taken(
        f"第 {number} 号工单已由 {owner} 处理（{state}）。 / "
        f"Ticket {number} is {owner}'s ({state}).",
        owner,
    )


def _tickets(connection: Connection, asked: Select[Any]) -> list[KeptTicket]:
    found = connection.execute(asked).all()
    written: dict[int, list[Note]] = {row.number: [] for row in found}
    for note in connection.execute(
        select(notes).where(notes.c.ticket.in_(list(written))).order_by(notes.c.seq)
    ):
        written[note.ticket].append(Note(note.author, note.at, note.text))
    return [_ticket(row, written[row.number]) for row in found]


def _ticket(row: Row[*tuple[Any, ...]], written: Sequence[Note]) -> KeptTicket:
    packet = orjson.loads(row.packet)
    return KeptTicket(
        number=row.number,
        state=row.state,
        reason=row.reason,
        urgent=bool(row.urgent),
        question=packet["question"],
        language=row.language,
        created=row.created,
        owner=row.owner,
        claimed=row.claimed,
        closed=row.closed,
        conversation=row.conversation,
        turn=row.id,
        packet=packet,
        reply_to=row.reply_to,
        notes=tuple(written),
        delivery=row.delivery or "off",
    )


# --- Age ----------------------------------------------------------------------------------------

_LEAP = 366 * 86400.0


def set_clock(connection: Connection, now: float) -> None:
    """Let ages count from a clock that may jump; call it before a purge, and now and then.

    Nothing is younger than now: what was stored while the clock was ahead ages from now on. When
    more than a year has passed since the last call, the clock is taken to have leapt, and all ages
    stay what they were.
    """
    seen = connection.scalar(select(facts.c.value).where(facts.c.name == "seen"))
    leap = now - seen if seen is not None and now - seen > _LEAP else 0.0
    for table in (turns, proposals):
        aged = table.c.kept + leap
        moved = update(table).values(kept=case((aged > now, now), else_=aged))
        connection.execute(moved if leap else moved.where(table.c.kept > now))
    if seen is None:
        connection.execute(insert(facts), {"name": "seen", "value": now})
    else:
        connection.execute(update(facts).where(facts.c.name == "seen"), {"value": now})


def purge(connection: Connection, before: float, limit: int) -> int:
    """Delete turns and decided proposals that are too old, at most so many; return how many.

    A conversation stays whole while one of its tickets is open.
    """
    open_ = (
        select(turns.c.conversation)
        .join(tickets, tickets.c.turn == turns.c.seq)
        .where(tickets.c.state != "closed")
    )
    old = select(turns.c.seq).where(turns.c.kept < before, turns.c.conversation.not_in(open_))
    decided = select(proposals.c.id).where(proposals.c.kept < before, proposals.c.state != "new")
    return sum(
        connection.execute(delete(table).where(key.in_(which.limit(limit)))).rowcount
        for table, key, which in ((turns, turns.c.seq, old), (proposals, proposals.c.id, decided))
    )


def conversations(connection: Connection) -> list[str]:
    """Return every conversation, in the order in which they began."""
    began = func.min(turns.c.seq)
    asked = select(turns.c.conversation).group_by(turns.c.conversation).order_by(began)
    return list(connection.scalars(asked))


# --- Proposals ----------------------------------------------------------------------------------


def add_proposal(connection: Connection, values: Values) -> Proposal:
    """Store a proposal."""
    return proposal(connection, _new_key(connection.execute(insert(proposals), values)))


def proposal(connection: Connection, id: int) -> Proposal:
    """Return a proposal; raise NotFound when there is none."""
    row = connection.execute(select(proposals).where(proposals.c.id == id)).first()
    if row is None:
        raise NotFound(f"没有第 {id} 号建议。 / There is no proposal {id}.")
    return _proposal(row)


def list_proposals(connection: Connection, state: ProposalState | None) -> list[Proposal]:
    """Return proposals, newest first."""
    asked = select(proposals).order_by(proposals.c.id.desc())
    if state is not None:
        asked = asked.where(proposals.c.state == state)
    return [_proposal(row) for row in connection.execute(asked)]


def decide(connection: Connection, id: int, values: Values) -> Proposal:
    """Decide a proposal that nobody decided yet."""
    waiting = and_(proposals.c.id == id, proposals.c.state == "new")
    done = connection.execute(update(proposals).where(waiting), values).rowcount
    found = proposal(connection, id)
    if not done:
        raise Taken(
            f"第 {id} 号建议已由 {found.decided_by} 决定（{found.state}）。 / Proposal {id} was "
            f"decided by {found.decided_by} ({found.state}).",
            found.decided_by,
        )
    return found


def _proposal(row: Row[*tuple[Any, ...]]) -> Proposal:
    return Proposal(
        id=row.id,
        questions=tuple(orjson.loads(row.questions)),
        passage=row.passage,
        answer=row.answer,
        author=row.author,
        origin=row.origin,
        state=row.state,
        created=row.created,
        decided=row.decided,
        decided_by=row.decided_by,
        note=row.note,
    )


# --- Outbox -------------------------------------------------------------------------------------

_LONGEST_WAIT = timedelta(days=1)


def due(connection: Connection, now: datetime, limit: int) -> list[Delivery]:
    """Return deliveries whose time has come; one set for after the longest wait is due too.

    Only a clock that went back makes such a one.
    """
    come = or_(outbox.c.due <= now, outbox.c.due > now + _LONGEST_WAIT)
    asked = select(outbox.c.id, outbox.c.ticket, outbox.c.tries, outbox.c.error)
    waiting = asked.where(outbox.c.state == "pending", come).order_by(outbox.c.ticket)
    return [Delivery(*row) for row in connection.execute(waiting.limit(limit))]


def set_delivery(connection: Connection, id: str, values: Values) -> None:
    """Change a delivery."""
    connection.execute(update(outbox).where(outbox.c.id == id), values)


def redeliver(connection: Connection, number: int, now: datetime) -> KeptTicket:
    """Make a delivery due again; raise NotFound for a ticket that has none."""
    again = {"state": "pending", "tries": 0, "due": now, "error": ""}
    if not connection.execute(update(outbox).where(outbox.c.ticket == number), again).rowcount:
        raise NotFound(f"第 {number} 号工单没有通知。 / Ticket {number} has no delivery.")
    return ticket(connection, number)
