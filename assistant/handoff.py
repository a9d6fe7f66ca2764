"""Hand over to a person: reason, channels, checklist and a ticket.

Everything shown is quoted from the guide or comes from the operator's list, `contacts.toml`; no
address is ever made up, and nobody is asked for a password, a code or a seed phrase.
"""

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from weakref import WeakKeyDictionary

from assistant.answer import Language, language_of, quote_chunk, rivals
from assistant.contacts import (
    Contacts,
    OperatorChannel,
    open_until,
    opens_at,
    unlisted,
)
from assistant.errors import BadInput
from assistant.price import is_unpriced
from assistant.records import (
    Answer,
    Channel,
    ChecklistItem,
    Filled,
    Handoff,
    Quote,
    Reason,
    Ticket,
)
from assistant.screen import clean, mask_secrets, screen_question
from assistant.search import Index
from assistant.split import find_section
from assistant.triage import Triage, TriageKind, small_talk_reply, triage

_LONG_QUESTION = 200
_LONGEST_ANSWER = 2000
_NUMBERED = re.compile(
    r"^\s*(?:[(（](?:\d+|[一二三四五六七八九十]+)[)）]|[一二三四五六七八九十]+[、.．]"
    r"|\d+(?:\.\d+)*(?:[、)）]|[.．](?!\d)))\s*"
)


@dataclass(frozen=True, slots=True)
class Case:
    """Hold a question that is handed over, secrets masked, with what was shown for it.

    `previous` is the question of the turn before, `kind` what triage recognised; `listed` tells
    that every contact in the question is on the operator's list, `stepped` that the quotes begin
    with the guide's own steps.
    """

    reason: Reason
    question: str
    language: Language
    quotes: tuple[Quote, ...] = ()
    previous: str = ""
    generation: str = ""
    kind: TriageKind | None = None
    listed: bool = False
    stepped: bool = False


def reason_of(recognised: Triage) -> Reason:
    """Return the reason to hand over what triage recognised."""
    match recognised.kind:
        case "vouch" | "small_talk":
            return "out_of_guide"
        case "secret_asked":
            return "contact_check"
        case "unreached":
            return "asked_for_human"
    return recognised.kind


def hand_off(
    case: Case, contacts: Contacts, index: Index | None = None, now: datetime | None = None
) -> Handoff:
    """Put together what a person needs to be helped by a person.

    Without an index the channels and items come without quotes. `now` is the time, with its zone.
    """
    here = (now or datetime.now(UTC)).astimezone(contacts.zone)
    ordered = sorted(contacts.channels, key=lambda channel: _order(channel, case, here))
    channels = [_channel(channel, contacts, index, here, case.language) for channel in ordered]
    checklist = tuple(
        ChecklistItem(
            _named(one.item, one.item_en, case.language), _safe(one.passage, contacts, index)
        )
        for one in contacts.checklist
    )
    return Handoff(
        reason=case.reason,
        message=_message(case, contacts),
        channels=tuple(channels),
        checklist=checklist,
        ticket_draft=ticket_text(_ticket(case, [Filled(c.item, "") for c in checklist])),
    )


def hand_off_without_index(
    question: str, contacts: Contacts, limit: int, now: datetime | None = None
) -> Answer | None:
    """Answer what must not wait for an index, from the operator's list alone; else None.

    Raises BadInput, with a sentence to show, for an empty or overlong question.
    """
    started = time.perf_counter()
    asked = screen_question(question, limit)
    if not (recognised := triage(asked)):
        return None
    case = case_of(recognised, mask_secrets(asked)[0], contacts)
    if recognised.kind == "small_talk":
        message, handoff = small_talk_reply(case.question, case.language), None
    else:
        message, handoff = lead(case), hand_off(case, contacts, now=now)
    elapsed = (time.perf_counter() - started) * 1000
    return Answer(case.question, "unanswered", 0.0, message, (), handoff, "", elapsed)


def case_of(recognised: Triage, question: str, contacts: Contacts) -> Case:
    """Return the case of a recognised question, nothing shown for it yet."""
    found = recognised.contacts
    return Case(
        reason=reason_of(recognised),
        question=question,
        language=language_of(question),
        kind=recognised.kind,
        listed=bool(found) and all(contacts.lists(contact) for contact in found),
    )


# --- The guide's own words -----------------------------------------------------------------------


def with_steps(case: Case, found: Sequence[Quote], contacts: Contacts, index: Index) -> Case:
    """Return a case with its quotes: the passages named for its reason first, then those found.

    Passages that hold a contact which is not on the operator's list are left out: in distress, or
    looking for the official number, nobody should come upon another one. Only the steps in
    distress are too needful for that; the handoff's message then warns.
    """
    if case.kind == "vouch":
        return case
    named = [step.passage for step in contacts.steps if step.reason == case.reason]
    first = [quote for passage in named if (quote := _quoted(index, passage))]
    if case.reason != "urgent_account_security":
        first = [quote for quote in first if _official(quote.text, contacts)]
    places = {(quote.path, quote.start): quote for quote in found}
    shown = [places.get((quote.path, quote.start), quote) for quote in first]
    rest = [quote for quote in found if _official(quote.text, contacts)]
    if case.reason == "contact_check" and named:
        rest = []
    quotes = (*shown, *(quote for quote in rest if quote not in shown))
    return replace(case, quotes=quotes, stepped=bool(shown))


# References are looked up once per index: that walks over all its passages.
_QUOTED: WeakKeyDictionary[Index, dict[str, Quote | None]] = WeakKeyDictionary()


def _quoted(index: Index | None, passage: str) -> Quote | None:
    """Quote the passage that a reference names; None when this guide has no such passage."""
    if index is None or not passage:
        return None
    known = _QUOTED.setdefault(index, {})
    if passage not in known:
        known[passage] = _look_up(index, passage)
    return known[passage]


def _look_up(index: Index, passage: str) -> Quote | None:
    try:
        rows = find_section(passage, list(index.chunks()))
    except BadInput:
        return None
    return quote_chunk(index.chunk(rows[0]))


def _safe(passage: str, contacts: Contacts, index: Index | None) -> Quote | None:
    """Quote a passage unless it names a contact that the operator does not list."""
    quote = _quoted(index, passage)
    return quote if quote and _official(quote.text, contacts) else None


@lru_cache(maxsize=10_000)
def _official(passage: str, contacts: Contacts) -> bool:
    """Tell whether a passage of the guide names no contact but the operator's own."""
    return not unlisted(passage, contacts)


# --- Channels ------------------------------------------------------------------------------------

_GOOD_FOR: dict[str, dict[Language, str]] = {
    "urgent": {"zh": "适合急事", "en": "for urgent matters"},
    "detail": {"zh": "适合非工作时间或需要细说的事", "en": "for long questions or out of hours"},
}
_WEEKDAYS: dict[Language, tuple[str, ...]] = {
    "zh": ("周一", "周二", "周三", "周四", "周五", "周六", "周日"),
    "en": ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"),
}


def _order(channel: OperatorChannel, case: Case, now: datetime) -> tuple[int, int]:
    """Rank a channel: open before closed, then what suits the case."""
    closed = bool(channel.hours) and open_until(channel, now) is None
    if case.reason == "urgent_account_security":
        wanted = "urgent"
    else:
        wanted = "detail" if len(case.question) > _LONG_QUESTION else "any"
    return (int(closed), 0 if channel.good_for == wanted else 1)


def _channel(
    channel: OperatorChannel,
    contacts: Contacts,
    index: Index | None,
    now: datetime,
    language: Language,
) -> Channel:
    notes = [_GOOD_FOR[channel.good_for][language]] if channel.good_for in _GOOD_FOR else []
    if channel.hours:
        notes.append(_hours(channel, now, language))
    if channel.languages:
        notes.append("/".join(channel.languages))
    name = _named(channel.name, channel.name_en, language)
    if notes:
        name += f"（{'；'.join(notes)}）" if language == "zh" else f" ({'; '.join(notes)})"
    return Channel(name, _safe(channel.passage, contacts, index), channel.contact or None)


def _hours(channel: OperatorChannel, now: datetime, language: Language) -> str:
    """Say whether a channel is open now, and until or from when."""
    if until := open_until(channel, now):
        always = (until - now).total_seconds() > 24 * 3600
        if always or all(o.end - o.start == 24 * 60 for o in channel.hours):
            return "现在有人接待" if language == "zh" else "open now"
        clock = until.strftime("%H:%M")
        return f"现在有人接待，到 {clock}" if language == "zh" else f"open now, until {clock}"
    at = opens_at(channel, now)
    if at is None:
        return "现在休息" if language == "zh" else "closed now"
    day = "" if at.date() == now.date() else _WEEKDAYS[language][at.weekday()] + " "
    clock = f"{day}{at:%H:%M}"
    return f"现在休息，{clock} 开始" if language == "zh" else f"closed now, opens {clock}"


def _named(name: str, english: str, language: Language) -> str:
    return english if language == "en" and english else name


# --- Words ---------------------------------------------------------------------------------------

_MESSAGES: dict[Reason, dict[Language, str]] = {
    "low_confidence": {
        "zh": "如果上面没有解决您的问题，可以这样联系客服：",
        "en": "If this does not solve it, this is how to reach a person:",
    },
    "ambiguous": {
        "zh": "如果都不是，可以这样联系客服：",
        "en": "If it is none of these, this is how to reach a person:",
    },
    "out_of_guide": {
        "zh": "指南没有讲到这个问题，建议联系客服：",
        "en": "The guide does not cover this; this is how to reach a person:",
    },
    "asked_for_human": {
        "zh": "先准备好下面的资料会更快。",
        "en": "It is faster with the details below ready.",
    },
    "urgent_account_security": {
        "zh": "同时请马上联系客服，请他们冻结账户。无论谁来要密码、验证码或助记词，都不要给。",
        "en": "Contact support at once as well and ask them to freeze the account. Whoever asks, "
        "do not give out a password, a code or a recovery phrase.",
    },
    "contact_check": {
        "zh": "请只通过官方应用或官网里的方式联系客服；客服不会向您要密码、验证码或助记词。",
        "en": "Reach support only through the official app or website; support never asks for a "
        "password, a code or a recovery phrase.",
    },
}
_MESSAGES_OF_KINDS: dict[TriageKind | None, dict[Language, str]] = {
    "vouch": {
        "zh": "如果有人以官方名义向您推荐，请从官方渠道核实：",
        "en": "If someone recommends it in our name, check through the official channels:",
    },
    "secret_asked": {
        "zh": "想确认对方是谁，请只从官方应用或官网里的方式联系客服：",
        "en": "To find out who it is, reach support only through the official app or website:",
    },
}
DOUBTS: tuple[Reason, ...] = ("low_confidence", "ambiguous")
"""The reasons of which passages that may help are shown."""
_WARNINGS: tuple[Reason, ...] = ("urgent_account_security", "contact_check")
_NO_CHANNEL: dict[Language, str] = {
    "zh": "运营方还没有列出联系方式；请用您在官方应用或官网里看到的方式联系客服。",
    "en": "The operator has listed no channel yet; please use the contact you know from the "
    "official app or website.",
}
_CAUTION: dict[Language, str] = {
    "zh": "指南原文里的号码、链接或账号不都在运营方公布的名单上，使用前请在官方应用或官网核对。",
    "en": "Not every number, link or id in the guide's text is on the operator's list; check it in "
    "the official app or website before you use it.",
}


def _message(case: Case, contacts: Contacts) -> str:
    said = [_MESSAGES_OF_KINDS.get(case.kind, _MESSAGES[case.reason])[case.language]]
    if not contacts.channels:  # but for the warnings, the words lead on to the channels
        said = [*said[: case.reason in _WARNINGS], _NO_CHANNEL[case.language]]
    if not all(_official(quote.text, contacts) for quote in case.quotes):
        said.insert(0, _CAUTION[case.language])
    return ("" if case.language == "zh" else " ").join(said)


_LEADS: dict[Reason, dict[Language, str]] = {
    "asked_for_human": {
        "zh": "好的，可以请客服人员来帮您。",
        "en": "Of course. A person can help you with this.",
    },
    "urgent_account_security": {
        "zh": "这很紧急，请马上按指南的步骤保护账户：",
        "en": "This is urgent. Protect the account now, by the guide's own steps:",
    },
    "contact_check": {
        "zh": "我无法确认您说的来电、号码、链接或账号是官方的，请先不要照做。"
        "官方的联系方式这样找：",
        "en": "I cannot confirm that this call, number, link or account is official; please do not "
        "act on it. This is how to find the official ways:",
    },
}
_URGENT_WITHOUT_GUIDE: dict[Language, str] = {
    "zh": "这很紧急。请马上打开官方应用或官网联系客服，请他们冻结账户。",
    "en": "This is urgent. Open the official app or website now, contact support and have the "
    "account frozen.",
}
_UNCHECKED_WITHOUT_GUIDE: dict[Language, str] = {
    "zh": "我无法确认您说的来电、号码、链接或账号是官方的，请先不要照做。",
    "en": "I cannot confirm that this call, number, link or account is official; please do not act "
    "on it.",
}
_ON_THE_LIST: dict[Language, str] = {
    "zh": "您说的联系方式在运营方公布的名单上。",
    "en": "What you name is on the operator's list of contacts.",
}
_LEADS_OF_KINDS: dict[TriageKind | None, dict[Language, str]] = {
    "vouch": {
        "zh": "我不能评价任何币、项目或收益，也不推荐任何投资；我只能引用指南的原文。",
        "en": "I cannot judge any coin, project or profit, and I recommend no investment; I can "
        "only quote the guide.",
    },
    "secret_asked": {
        "zh": "不要给。客服不会向您要密码、验证码、助记词或私钥；"
        "无论对方自称是谁，都不要说出或输入。",
        "en": "Do not give it. Support never asks for a password, a code, a recovery phrase or a "
        "private key; whoever asks, do not tell or type it.",
    },
    "unreached": {
        "zh": "联系不上时，可以换一种方式，或者换个时间再试。",
        "en": "Where one way does not answer, try another, or try again at another time.",
    },
}
_UNPRICED: dict[Language, str] = {
    "zh": "指南里最接近的段落没有提到费用：",
    "en": "The closest passages of the guide name no price:",
}
_SEVERAL: dict[Language, str] = {
    "zh": "您的问题可能指几件不同的事，请看看是哪一件：",
    "en": "Your question could mean several things; see which one fits: ",
}


def lead(case: Case) -> str:
    """Return the line above the quotes of a case, "" where the verdict's own line will do."""
    language = case.language
    if case.kind in _LEADS_OF_KINDS:
        return _LEADS_OF_KINDS[case.kind][language]
    if case.reason in DOUBTS and _names_no_price(case):
        return _UNPRICED[language]
    if case.reason == "ambiguous" and len(choices(case.quotes)) > 1:
        return _SEVERAL[language] + ("；" if language == "zh" else "; ").join(choices(case.quotes))
    if case.reason == "contact_check" and case.listed:
        return _ON_THE_LIST[language]
    if not case.stepped and case.reason == "urgent_account_security":
        return _URGENT_WITHOUT_GUIDE[language]
    if not case.stepped and case.reason == "contact_check":
        return _UNCHECKED_WITHOUT_GUIDE[language]
    return _LEADS[case.reason][language] if case.reason in _LEADS else ""


def _names_no_price(case: Case) -> bool:
    """Tell whether a price is asked for and no passage that is shown names any."""
    silent = (is_unpriced(case.question, quote) for quote in case.quotes)
    return bool(case.quotes) and all(silent)


_UNSEARCHED: dict[Language, str] = {
    "zh": "现在查不了指南，请过一会儿再问一次。",
    "en": "The guide cannot be searched right now. Please ask again in a moment.",
}


def unsearched(language: Language) -> str:
    """Return the line above the handoff of a question that could not be searched for."""
    return _UNSEARCHED[language]


def choices(quotes: Sequence[Quote]) -> tuple[str, ...]:
    """Return the sections that a question may mean, by the guide's own names, likeliest first.

    Quotes that only stand behind them, further down the ranking, are none of its meanings.
    """
    return tuple(dict.fromkeys(section_of(quote) for quote in rivals(quotes)))


def section_of(quote: Quote) -> str:
    """Return the guide's own name for where a quote stands, without the number of its place."""
    name = quote.headings[-1] if quote.headings else quote.title
    return _NUMBERED.sub("", name) or name


# --- The ticket ----------------------------------------------------------------------------------


def write_ticket(answer: Answer, filled: Mapping[str, str], previous: str = "") -> Ticket:
    """Return the ticket of an answer with what the user wrote for the checklist, secrets masked.

    `filled` maps the items of the handoff's checklist to text; raises BadInput for another item,
    for an overlong text, and for an answer that has no handoff.
    """
    if answer.handoff is None:
        raise BadInput("这个回答不需要转人工。 / This answer has no handoff.")
    items = [entry.item for entry in answer.handoff.checklist]
    if odd := [item for item in filled if item not in items]:
        named, _ = mask_secrets(clean(odd[0]))
        raise BadInput(
            f"清单里没有“{named:.40}”。 / {named:.40} is no item of the checklist; "
            f"expected {', '.join(items) or 'none'}."
        )
    case = Case(
        reason=answer.handoff.reason,
        question=answer.question,
        language=language_of(answer.question),
        quotes=answer.quotes,
        previous=_masked(previous),
        generation=answer.generation,
    )
    return _ticket(case, [Filled(item, _masked(filled.get(item, ""))) for item in items])


def _masked(text: str) -> str:
    if len(text) > _LONGEST_ANSWER:
        raise BadInput(
            f"最多写 {_LONGEST_ANSWER} 个字，请缩短。 / At most {_LONGEST_ANSWER} characters are "
            "taken: please shorten it."
        )
    return mask_secrets(clean(text).strip())[0]


def _ticket(case: Case, filled: Sequence[Filled]) -> Ticket:
    return Ticket(
        reason=case.reason,
        question=case.question,
        previous=case.previous,
        quotes=case.quotes,
        filled=tuple(filled),
        generation=case.generation,
    )


REASONS: dict[Reason, dict[Language, str]] = {
    "low_confidence": {"zh": "不能确定指南里的答案", "en": "not certain of the guide's answer"},
    "ambiguous": {"zh": "问题可能指几件事", "en": "the question could mean several things"},
    "out_of_guide": {"zh": "指南没有讲到", "en": "the guide does not cover it"},
    "asked_for_human": {"zh": "要求人工", "en": "asked for a person"},
    "urgent_account_security": {
        "zh": "紧急：账户或资金安全",
        "en": "urgent: account or money at risk",
    },
    "contact_check": {"zh": "核对联系方式的真假", "en": "asked whether a contact is genuine"},
}
_TICKET_WORDS: dict[Language, tuple[str, ...]] = {
    "zh": ("原因", "问题", "上一个问题", "已看过的段落", "请补充", "索引"),
    "en": (
        "Reason",
        "Question",
        "Question before",
        "Passages already shown",
        "Please add",
        "Index",
    ),
}


def ticket_text(ticket: Ticket) -> str:
    """Write a ticket as text to copy, in the language of its question."""
    language = language_of(ticket.question)
    reason, question, before, shown, add, index = _TICKET_WORDS[language]
    lines = [f"{reason}: {REASONS[ticket.reason][language]}", f"{question}: {ticket.question}"]
    if ticket.previous:
        lines.append(f"{before}: {ticket.previous}")
    if ticket.quotes:
        lines.append(f"{shown}:")
        lines += [f"- {_placed(quote)}" for quote in ticket.quotes]
    if ticket.filled:
        lines.append(f"{add}:")
        lines += [f"- {entry.item}: {entry.text}" for entry in ticket.filled]
    if ticket.generation:
        lines.append(f"{index}: {ticket.generation}")
    return "\n".join(lines)


def _placed(quote: Quote) -> str:
    return (
        f"{' > '.join(quote.headings)} ({quote.path}:{quote.start}-{quote.end}, "
        f"{quote.similarity:.2f}/{quote.lexical:.1f})"
    )
