"""Hand over to a person: reason, channels, checklist and a ticket draft.

Everything shown is quoted from the guide or comes from the operator's list, `contacts.toml`; no
address is ever made up, and nobody is asked for a password, a code or a seed phrase.
"""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assistant.answer import Language, quote_chunk
from assistant.errors import BadInput
from assistant.records import Channel, ChecklistItem, Handoff, Quote, Reason
from assistant.search import Index
from assistant.split import find_section

CONTACTS = "contacts.toml"


@dataclass(frozen=True, slots=True)
class OperatorChannel:
    """Hold a channel as the operator lists it; an empty contact is never filled by a guess."""

    name: str
    name_en: str = ""
    passage: str = ""
    good_for: str = "any"
    contact: str = ""
    hours: str = ""
    languages: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class OperatorItem:
    """Hold a checklist item and the passage of the guide that asks for it."""

    item: str
    item_en: str = ""
    passage: str = ""


@dataclass(frozen=True, slots=True)
class Contacts:
    """Hold the operator's list."""

    channels: tuple[OperatorChannel, ...] = ()
    checklist: tuple[OperatorItem, ...] = ()


def read_contacts(corpus: Path) -> Contacts:
    """Read `contacts.toml` of a corpus folder; an absent file is an empty list."""
    path = corpus / CONTACTS
    try:
        values = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return Contacts()
    except (OSError, ValueError) as error:
        raise BadInput(f"cannot read {path}: {error}") from None
    try:
        return Contacts(
            tuple(_channel(entry) for entry in values.get("channel", [])),
            tuple(OperatorItem(**entry) for entry in values.get("checklist", [])),
        )
    except TypeError as error:
        raise BadInput(f"{path}: {error}; see the comments in the shipped file") from None


def _channel(entry: dict[str, Any]) -> OperatorChannel:
    return OperatorChannel(**{**entry, "languages": tuple(entry.get("languages", ()))})


_MESSAGES: dict[Reason, dict[Language, str]] = {
    "low_confidence": {
        "zh": "如果上面没有解决您的问题，可以这样联系客服：",
        "en": "If this does not solve it, this is how to reach a person:",
    },
    "ambiguous": {
        "zh": "您的问题可能指几件不同的事。请看看是哪一件，或者联系客服：",
        "en": "Your question could mean several things. See which one fits, or reach a person:",
    },
    "out_of_guide": {
        "zh": "指南没有讲到这个问题，建议联系客服：",
        "en": "The guide does not cover this; this is how to reach a person:",
    },
    "asked_for_human": {
        "zh": "好的，可以这样联系人工客服。先准备好下面的资料会更快：",
        "en": "Of course. This is how to reach a person; it is faster with the following ready:",
    },
    "urgent_account_security": {
        "zh": "这很紧急。请先按指南的步骤保护账户，同时马上联系客服：",
        "en": "This is urgent. Protect the account by the guide's steps and reach support now:",
    },
    "contact_check": {
        "zh": "我无法确认您给出的号码或链接。请只通过官方应用或官网里的方式联系客服：",
        "en": "I cannot vouch for that number or link. Use only the official app or website:",
    },
}


def hand_off(
    reason: Reason,
    question: str,
    quotes: Sequence[Quote],
    contacts: Contacts,
    index: Index | None,
    language: Language,
) -> Handoff:
    """Put together what a person needs to be helped by a person."""
    channels = sorted(contacts.channels, key=lambda channel: _order(channel, reason))
    checklist = tuple(
        ChecklistItem(_named(item.item, item.item_en, language), _quoted(index, item.passage))
        for item in contacts.checklist
    )
    return Handoff(
        reason=reason,
        message=_MESSAGES[reason][language],
        channels=tuple(
            Channel(
                name=_named(channel.name, channel.name_en, language),
                quote=_quoted(index, channel.passage),
                contact=channel.contact or None,
            )
            for channel in channels
        ),
        checklist=checklist,
        ticket_draft=_draft(reason, question, quotes, checklist, language),
    )


def _order(channel: OperatorChannel, reason: Reason) -> int:
    wanted = "urgent" if reason == "urgent_account_security" else "any"
    return 0 if channel.good_for == wanted else 1


def _named(name: str, english: str, language: Language) -> str:
    return english if language == "en" and english else name


def _quoted(index: Index | None, passage: str) -> Quote | None:
    """Quote the passage that a reference names; None when this guide has no such passage."""
    if index is None or not passage:
        return None
    try:
        rows = find_section(passage, list(index.chunks()))
    except BadInput:
        return None
    return quote_chunk(index.chunk(rows[0]))


def _draft(
    reason: Reason,
    question: str,
    quotes: Sequence[Quote],
    checklist: Sequence[ChecklistItem],
    language: Language,
) -> str:
    words = (
        ("原因", "问题", "已看过的段落", "请补充")
        if language == "zh"
        else ("Reason", "Question", "Passages already shown", "Please add")
    )
    lines = [f"{words[0]}: {reason}", f"{words[1]}: {question}"]
    if quotes:
        lines.append(f"{words[2]}:")
        lines += [f"- {' > '.join(q.headings)} ({q.path}:{q.start}-{q.end})" for q in quotes]
    if checklist:
        lines.append(f"{words[3]}:")
        lines += [f"- {entry.item}: " for entry in checklist]
    return "\n".join(lines)
