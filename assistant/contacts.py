"""Find numbers, links and ids in a text, and read the operator's list of the official ones.

`contacts.toml` of the corpus folder is the only source of addresses besides the guide's own words.
"""

import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from pathlib import Path
from typing import Any, Literal, cast, get_args
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from assistant.errors import BadInput
from assistant.records import Chunk, Document, Reason, Skipped
from assistant.screen import clean
from assistant.split import unresolved

CONTACTS = "contacts.toml"

# --- Contacts in a text --------------------------------------------------------------------------

ContactKind = Literal["email", "link", "id", "phone"]


@dataclass(frozen=True, slots=True)
class Contact:
    """Hold a number, link, address or id found in a text, with its span."""

    kind: ContactKind
    text: str
    start: int
    end: int


_TLDS = (
    "com|cn|net|org|io|app|xyz|top|vip|cc|info|site|online|shop|tw|hk|mo|sg|jp|kr|us|uk|eu|ru|club|"
    "link|live|pro|wallet|finance|example|test|co|ly|gg|im|la|to|tv|biz|tech|store|win|bid|icu|"
    "work|support|help|chat|pay|money|bank|me|ai|dev|xn--[a-z0-9]{2,20}"
)
# A link ends where Chinese begins; other letters stay, so that a look-alike is seen whole.
_IN_LINK = r"[^\s<>\"'`|“”‘’\u2e80-\u9fff\uff00-\uffef]"
_LETTER = r"[^\W_\u2e80-\u9fff\uff00-\uffef]"
_EMAIL = r"(?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,4}|\[(?:邮箱|e-mail)\]"
_LINK = (
    rf"(?:https?|hxxps?|ftp)[:：]//{_IN_LINK}{{1,400}}|(?<![a-z0-9_.@-])www\.{_IN_LINK}{{3,400}}|"
    rf"(?<![a-z0-9_.@/-])(?:{_LETTER}(?:{_LETTER}|-){{0,62}}\.){{1,4}}(?:{_TLDS})(?![a-z0-9_-]|\.[a-z0-9])"
    rf"(?:/{_IN_LINK}{{0,300}})?"
)
_APPS = (
    r"(?:企业微信|微信公众号|公众号|微信群|微信|薇信|威信|v信|vx|wechat|weixin|qq群|扣扣群|qq|扣扣|企鹅号|telegram|"
    r"电报群|电报|纸飞机|飞机号|tg|whatsapp|line|skype|discord|signal|飞书|钉钉)"
)
_ID = (
    rf"{_APPS}(?:客服|官方|账号|帐号|群号|号码|号|群|id|频道|account|number|group|user(?:name)?)?"
    r"\s{0,3}(?:是|为|叫|is)?\s{0,3}[:：=]?\s{0,3}(@?[a-z0-9][a-z0-9_-]{4,31})(?![a-z0-9_@.-])|"
    r"(?<![\w.@-])(@[a-z][a-z0-9_]{4,31})(?![\w.@-])|"
    r"(?<![\w.@-])([a-z][a-z0-9_-]{4,31}) (?:on|at) (?:wechat|telegram|whatsapp|line|skype|qq)\b"
)
_PHONE = (
    r"(?<![\w.+-])(?:\+|00)[0-9]{1,3}[ -]{0,2}(?:\(?[0-9]{1,5}\)?[ -]{0,2}){1,5}[0-9]{2,6}(?![\w])|"
    r"(?<![\w.-])1?[ -]?[48]00[ -]{0,2}[0-9x*]{3,4}(?:[ -]{0,2}[0-9x*]{3,4})?(?![\w])|"
    r"(?<![\w.-])[48]00[ -]{0,2}[x*?_…-]{2,10}|"
    r"(?<![\w.-])0[0-9]{2,3}[ -]{0,2}[0-9]{3,4}[ -]{0,2}[0-9]{3,4}(?![\w])|"
    r"(?<![\w.-])(?:1[ -])?\(?[2-9][0-9]{2}\)?[ -][0-9]{3}[ -][0-9]{4}(?![\w])|"
    r"(?<![\w.-])1[3-9][0-9](?:[ .-]?[0-9]{4}){2}(?![\w])|"
    r"(?<![\w.-])(?:95|96)[0-9]{3,4}(?![\w.])|\[(?:手机号|phone number)\]"
)
# Each with what no contact of its kind is without. The patterns look ahead first at what they begin
# with: most places of most texts need no more.
_RULES: tuple[tuple[ContactKind, re.Pattern[str], re.Pattern[str]], ...] = (
    ("email", re.compile(r"[@\[]"), re.compile(_EMAIL, re.IGNORECASE | re.ASCII)),
    ("link", re.compile(r"[./]"), re.compile(rf"(?={_LETTER})(?:{_LINK})", re.IGNORECASE)),
    (
        "id",
        re.compile(r"[a-z0-9]", re.IGNORECASE),
        re.compile(rf"(?=[a-z@企微公薇威扣电纸飞钉])(?:{_ID})", re.IGNORECASE),
    ),
    (
        "phone",
        re.compile(r"[0-9\[]"),
        re.compile(rf"(?=[-+0-9( \[])(?:{_PHONE})", re.IGNORECASE | re.ASCII),
    ),
)
# Numbers behind these words are no telephone numbers.
_OTHER_NUMBER = re.compile(
    r"(?:订单|單號|单号|流水|编号|編號|交易号|交易號|尾号|尾號|卡号|卡號|身份证|金额|金額|版本|验证码|驗證碼|快递|工单|"
    r"错误|代码|哈希|order|transaction|txn|\bid|error|code|version|invoice|ticket|ref(?:erence)?|"
    r"amount|tracking)[\s#号號码碼:：是为為noNO.]{0,8}$",
    re.IGNORECASE,
)


def contacts_in(text: str) -> list[Contact]:
    """Find phone numbers, links, e-mail addresses and messenger ids; spans do not overlap."""
    found: list[Contact] = []
    taken = bytearray(len(text))
    for kind, sign, pattern in _RULES:
        for match in pattern.finditer(text) if sign.search(text) else ():
            start, end = _trimmed(text, *_group(match))
            if not any(taken[start:end]) and _is_contact(kind, text, start, end, match):
                taken[start:end] = b"\1" * (end - start)
                found.append(Contact(kind, text[start:end], start, end))
    return sorted(found, key=lambda contact: contact.start)


def _group(match: re.Match[str]) -> tuple[int, int]:
    return match.span(match.lastindex or 0)


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    """Leave out what belongs to the sentence."""
    while end > start and text[end - 1] in " .,;:!?)]}…-" and text[start] != "[":
        end -= 1
    return start, end


def _is_contact(kind: ContactKind, text: str, start: int, end: int, match: re.Match[str]) -> bool:
    if kind == "phone":
        if len(set(re.sub(r"\D", "", text[start:end]))) == 1 and text[start:end].isdigit():
            return False
        return not _OTHER_NUMBER.search(text, max(0, start - 24), start)
    if kind == "id" and not text[start:end].startswith("@"):
        # A word behind the name of a messenger is an id when no plain word looks like it.
        named = re.search("[号:：=是为]|id", match[0][: start - match.start()], re.IGNORECASE)
        return bool(named or re.search("[0-9_-]", text[start:end]))
    return True


def _key(contact: Contact) -> tuple[str, str]:
    """Return what two writings of one contact share."""
    if contact.kind == "phone":
        digits = re.sub(r"\D", "", contact.text)
        return "phone", re.sub(r"^(?:00)?86(?=1[3-9]\d{9}$|0?\d{9,11}$|[48]00\d{7}$)", "", digits)
    if contact.kind == "link":
        return "link", _place(contact.text)
    return contact.kind, contact.text.lower().removeprefix("@")


def _place(link: str) -> str:
    """Return a link's host and path, "" when it hides its host (user names, odd characters)."""
    try:
        parts = urlsplit(link if "://" in link else f"https://{link}")
        port = parts.port
    except ValueError:
        return ""
    host = (parts.hostname or "").rstrip(".").removeprefix("www.")
    plain = parts.scheme in ("http", "https") and "@" not in parts.netloc and "\\" not in link
    if not plain or not host.isascii() or port not in (None, 80, 443):
        return ""
    return host + parts.path.rstrip("/")


# --- The operator's list -------------------------------------------------------------------------

GoodFor = Literal["urgent", "detail", "any"]


@dataclass(frozen=True, slots=True)
class Opening:
    """Hold one stretch of business hours: weekdays (0 is Monday), minutes of the day."""

    days: frozenset[int]
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class OperatorChannel:
    """Hold a channel as the operator lists it; an empty contact is never filled by a guess."""

    name: str
    name_en: str = ""
    passage: str = ""
    good_for: GoodFor = "any"
    contact: str = ""
    hours: tuple[Opening, ...] = ()
    languages: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class OperatorItem:
    """Hold a checklist item and the passage of the guide that asks for it."""

    item: str
    item_en: str = ""
    passage: str = ""


@dataclass(frozen=True, slots=True)
class Steps:
    """Name the passage of the guide to quote first when a question is handed over for a reason."""

    reason: Reason
    passage: str


@dataclass(frozen=True, slots=True)
class Contacts:
    """Hold the operator's list."""

    channels: tuple[OperatorChannel, ...] = ()
    checklist: tuple[OperatorItem, ...] = ()
    steps: tuple[Steps, ...] = ()
    official: tuple[str, ...] = ()
    examples: tuple[str, ...] = ()
    zone: tzinfo = UTC

    def __hash__(self) -> int:
        """Return a hash of a part: the whole list is hashed for every passage that is checked."""
        return hash((len(self.channels), self.official))

    @property
    def addresses(self) -> tuple[str, ...]:
        """Return every address on the list."""
        return (*(c.contact for c in self.channels if c.contact), *self.official)

    def lists(self, contact: str) -> bool:
        """Tell whether a contact found in a text is on the list, or a page of a listed site."""
        known = {_key(one) for address in self.addresses for one in contacts_in(address)}
        seen = [_key(one) for one in contacts_in(contact)]
        return contact in self.addresses or (bool(seen) and all(_on(key, known) for key in seen))


def _on(key: tuple[str, str], known: set[tuple[str, str]]) -> bool:
    kind, value = key
    if kind != "link":
        return key in known
    parts = value.split("/")
    return bool(value) and any(
        ("link", "/".join(parts[:count])) in known for count in range(1, len(parts) + 1)
    )


def unlisted(text: str, contacts: Contacts) -> list[Contact]:
    """Return the contacts in a text that are not on the operator's list."""
    return [found for found in contacts_in(text) if not contacts.lists(found.text)]


_MOST_FLAGGED = 20


def flag_unlisted(documents: Iterable[Document], contacts: Contacts) -> tuple[Skipped, ...]:
    """Return a warning for every guide file that names contacts not on the operator's list."""
    flagged = []
    for document in documents:
        odd = list(dict.fromkeys(one.text for one in unlisted(document.text, contacts)))
        if odd:
            more = f" and {len(odd) - _MOST_FLAGGED} more" if len(odd) > _MOST_FLAGGED else ""
            named = ", ".join(odd[:_MOST_FLAGGED])
            reason = f"contacts that are not on the operator's list ({CONTACTS}): {named}{more}"
            flagged.append(Skipped(document.path, reason))
    return tuple(flagged)


def flag_list(corpus: Path, contacts: Contacts, passages: Sequence[Chunk]) -> tuple[Skipped, ...]:
    """Return what wants a look in the operator's list: no channel, references to nowhere."""
    said = []
    if not contacts.channels:
        there = (corpus / CONTACTS).exists()
        said.append(
            f"{'it has no [[channel]]' if there else 'there is none'}: whoever needs a person is "
            "shown no way to one. The shipped one explains how to write it"
        )
    named = [
        *(("channel", n, one.passage) for n, one in enumerate(contacts.channels, 1)),
        *(("checklist", n, one.passage) for n, one in enumerate(contacts.checklist, 1)),
        *(("steps", n, one.passage) for n, one in enumerate(contacts.steps, 1)),
    ]
    problems = unresolved((passage for *_, passage in named if passage), passages)
    said += [
        f"[[{table}]] number {number}: {problems[passage]}; nothing is quoted for it"
        for table, number, passage in named
        if passage in problems
    ]
    return tuple(Skipped(CONTACTS, reason) for reason in said)


# --- Business hours ------------------------------------------------------------------------------

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAY = 24 * 60
_STRETCH = re.compile(
    r"(?:([a-z]{3})(?:-([a-z]{3}))?\s+)?([0-2]?[0-9]):([0-5][0-9])\s*-\s*([0-2]?[0-9]):([0-5][0-9])"
)


def open_until(channel: OperatorChannel, now: datetime) -> datetime | None:
    """Return when an open channel closes, None when it is closed; `now` is in the list's zone."""
    ends = [end for start, end in _stretches(channel, now) if start <= now < end]
    return max(ends, default=None)


def opens_at(channel: OperatorChannel, now: datetime) -> datetime | None:
    """Return when a closed channel opens next."""
    return min((start for start, _ in _stretches(channel, now) if start > now), default=None)


def _stretches(channel: OperatorChannel, now: datetime) -> Iterator[tuple[datetime, datetime]]:
    """Yield the stretches from yesterday (one may run past midnight) to a week ahead."""
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    for day in (midnight + timedelta(days=offset) for offset in range(-1, 8)):
        for opening in channel.hours:
            if day.weekday() in opening.days:
                end = opening.end if opening.end > opening.start else opening.end + _DAY
                yield (
                    day + timedelta(minutes=opening.start),
                    day + timedelta(minutes=end),
                )


# --- Reading -------------------------------------------------------------------------------------

_CHANNEL_KEYS = ("name", "name_en", "passage", "good_for", "contact", "hours", "languages")
_ITEM_KEYS = ("item", "item_en", "passage")
_STEP_KEYS = ("reason", "passage")
_TOP_KEYS = ("channel", "checklist", "steps", "official", "examples", "time_zone")
_LONGEST = 200
_SECRETS = re.compile(
    r"密码|密碼|口令|验证码|驗證碼|动态码|助记词|助記詞|私钥|私鑰|cvv|\bpin\b|pass(?:word|code)|"
    r"seed|recovery phrase|private key|verification code|one-time code|\botp\b|"
    # The number of a bank's card, or of one not named; a library has cards as well.
    r"(?:银行|銀行|信用|借记|借記|储蓄|儲蓄|支付|完整|完整的|全部)卡的?(?:号|號)|"
    r"(?<![\u3400-\u9fff])卡(?:号|號)|[的您你]卡(?:号|號)|"
    r"(?:bank|credit|debit|payment|full|whole|complete|the|your|my)[ -]card[ -]number|"
    r"(?<![a-z][ -])card[ -]number",
    re.IGNORECASE,
)


class _Wrong(ValueError):
    """Say what is wrong in one entry."""


def read_contacts(corpus: Path) -> Contacts:
    """Read `contacts.toml` of a corpus folder; an absent file is an empty list.

    Raises BadInput, naming file and entry, for anything that is not as the shipped file explains.
    """
    path = corpus / CONTACTS
    try:
        return _contacts(tomllib.loads(path.read_text("utf-8-sig")))
    except FileNotFoundError:
        return Contacts()
    except _Wrong as error:
        raise BadInput(f"{path}: {error}") from None
    except (OSError, ValueError) as error:
        raise BadInput(f"cannot read {path}: {error}") from None


def _contacts(values: dict[str, Any]) -> Contacts:
    _only("the file", values, _TOP_KEYS)
    return Contacts(
        channels=tuple(_each("channel", values, _channel)),
        checklist=tuple(_each("checklist", values, _item)),
        steps=tuple(_each("steps", values, _steps)),
        official=tuple(_texts("official", values.get("official", []))),
        examples=tuple(_texts("examples", values.get("examples", []))),
        zone=_zone(values),
    )


def _each(table: str, values: dict[str, Any], read: Callable[[dict[str, Any]], Any]) -> list[Any]:
    entries = values.get(table, [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise _Wrong(f"{table!r} is {entries!r:.40}; write each one as a [[{table}]] table")
    read_entries = []
    for number, entry in enumerate(entries, 1):
        try:
            read_entries.append(read(entry))
        except _Wrong as error:
            raise _Wrong(f"[[{table}]] number {number}: {error}") from None
    return read_entries


def _channel(entry: dict[str, Any]) -> OperatorChannel:
    _only("it", entry, _CHANNEL_KEYS)
    good_for = _text(entry, "good_for", "any")
    if good_for not in get_args(GoodFor):
        raise _Wrong(f'good_for is {good_for!r}; expected "urgent", "detail" or "any"')
    return OperatorChannel(
        name=_required(entry, "name"),
        name_en=_text(entry, "name_en"),
        passage=_text(entry, "passage"),
        good_for=cast(GoodFor, good_for),
        contact=_text(entry, "contact"),
        hours=_hours(_text(entry, "hours")),
        languages=tuple(_texts("languages", entry.get("languages", []))),
    )


def _item(entry: dict[str, Any]) -> OperatorItem:
    _only("it", entry, _ITEM_KEYS)
    item = OperatorItem(_required(entry, "item"), _text(entry, "item_en"), _text(entry, "passage"))
    if secret := _SECRETS.search(f"{item.item} {item.item_en}"):
        raise _Wrong(f"it asks for {secret[0]!r}; nobody may be asked for a secret")
    return item


def _steps(entry: dict[str, Any]) -> Steps:
    _only("it", entry, _STEP_KEYS)
    reason = _required(entry, "reason")
    if reason not in get_args(Reason):
        raise _Wrong(f"reason is {reason!r}; expected one of {', '.join(get_args(Reason))}")
    return Steps(cast(Reason, reason), _required(entry, "passage"))


def _only(what: str, values: dict[str, Any], keys: Sequence[str]) -> None:
    if odd := [key for key in values if key not in keys]:
        raise _Wrong(f"{what} has {odd[0]!r}, which is no key; expected {', '.join(keys)}")


def _required(entry: dict[str, Any], key: str) -> str:
    if not (text := _text(entry, key)):
        raise _Wrong(f"{key!r} is missing or empty")
    return text


def _text(entry: dict[str, Any], key: str, default: str = "") -> str:
    return _checked(key, entry.get(key, default))


def _texts(key: str, values: object) -> list[str]:
    if not isinstance(values, list):
        raise _Wrong(f"{key!r} is {values!r:.40}; expected a list of texts")
    return [_checked(key, value) for value in values]


def _checked(key: str, value: object) -> str:
    if not isinstance(value, str) or "\n" in value or clean(value) != value:
        raise _Wrong(f"{key!r} is {value!r:.40}; expected one line of plain text")
    if len(value) > _LONGEST:
        raise _Wrong(f"{key!r} has {len(value)} characters; at most {_LONGEST} are taken")
    return value.strip()


def _zone(values: dict[str, Any]) -> tzinfo:
    name = _text(values, "time_zone")
    if not name:
        if any(entry.get("hours") for entry in values.get("channel", [])):
            raise _Wrong('hours are given but no time_zone; write time_zone = "+08:00" at the top')
        return UTC
    if offset := re.fullmatch(r"([+-])([01]?[0-9]):?([0-5][0-9])", name):
        minutes = int(offset[2]) * 60 + int(offset[3])
        return timezone(timedelta(minutes=-minutes if offset[1] == "-" else minutes))
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise _Wrong(
            f'time_zone is {name!r}; expected an offset such as "+08:00", or a name such as '
            '"Asia/Shanghai" that this system knows'
        ) from None


def _hours(text: str) -> tuple[Opening, ...]:
    if text.lower() in ("24h", "24/7", "24 h"):
        text = "00:00-24:00"
    return tuple(_opening(part.strip()) for part in text.split(",") if part.strip())


def _opening(text: str) -> Opening:
    found = _STRETCH.fullmatch(text.lower())
    first, last = (found[1] or "mon", found[2] or found[1] or "sun") if found else ("", "")
    if not found or first not in _DAYS or last not in _DAYS:
        raise _hours_wrong(text)
    start, end = int(found[3]) * 60 + int(found[4]), int(found[5]) * 60 + int(found[6])
    if start >= _DAY or end > _DAY or start == end:
        raise _hours_wrong(text)
    begin = _DAYS.index(first)
    count = (_DAYS.index(last) - begin) % 7 + 1
    return Opening(frozenset((begin + i) % 7 for i in range(count)), start, end)


def _hours_wrong(text: str) -> _Wrong:
    return _Wrong(
        f'hours is {text!r}; expected "09:00-21:00", "Mon-Fri 09:00-18:00, Sat 10:00-16:00" '
        'or "24h"'
    )
