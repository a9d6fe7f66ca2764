"""The one input boundary: clean text, cap its size, mask secrets.

It runs before anything is embedded, stored, logged or sent on. Time grows linearly with the text:
patterns repeat within bounds, and what has no bound is walked once.
"""

import re
import unicodedata
from collections.abc import Callable, Container, Iterable, Iterator
from functools import lru_cache
from pathlib import Path

from assistant.errors import BadInput

Span = tuple[int, int]

# --- Cleaning -----------------------------------------------------------------------------------

_SPACES = re.compile("[\u200b\u2028\u2029\x0b\x0c\x85]")
_NONCHARACTERS = "\ufdd0-\ufdef" + "".join(
    f"{chr(plane << 16 | 0xFFFE)}{chr(plane << 16 | 0xFFFF)}" for plane in range(17)
)
# Controls, surrogates, and what Unicode names default-ignorable (Tags, bidi controls, byte-order
# marks, soft hyphens, fillers …) with the layout controls of rarer scripts. Not in it: the joiners
# U+200C and U+200D, which shape emoji, Indic and Arabic, and variation selectors.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e"
    "\u200e\u200f\u202a-\u202e\u2060-\u206f\u3164\ud800-\udfff\ufeff\uffa0\ufff0-\ufffb"
    "\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    f"\U000e0000-\U000e00ff\U000e01f0-\U000e0fff{_NONCHARACTERS}]"
)
_SELECTORS = "\u180b-\u180d\u180f\ufe00-\ufe0f\U000e0100-\U000e01ef"
# A second selector in a row has no meaning: rows of them are a way to hide text.
_EXTRA_SELECTORS = re.compile(f"(?<=[{_SELECTORS}])[{_SELECTORS}]+")
# Ten characters in a row outside the common scripts: only there can a run of marks be too long.
_UNUSUAL = re.compile(
    "[^\\x00-\u02ff\u2010-\u20cf\u2100-\u2cee\u3000-\u3029\u3030-\u3098\u309b-\ua66e"
    "\uac00-\ud7a3\uff01-\uffee\U0001f000-\U0001faff]{10}"
)
_MARKS_IN_A_ROW = 30
_MARKS_TO_SORT = 300


def clean(text: str) -> str:
    """Return text that every later step can take; total, and idempotent.

    Line ends become newlines. Dropped: lone surrogates, noncharacters, control characters, Unicode
    Tags, bidi controls, byte-order marks, soft hyphens and other invisible characters, all but the
    first of a row of variation selectors, and combining marks after thirty in a row. Zero-width
    spaces and odd line separators become spaces. The result is in NFC.
    """
    if text.isascii() and text.isprintable():
        return text
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    text = _INVISIBLE.sub("", _SPACES.sub(" ", text))
    if text.isascii():
        return text
    text = _EXTRA_SELECTORS.sub("", text)
    if _UNUSUAL.search(text):
        # Marks are counted in the decomposed text, so that NFC and NFD forms are cut alike; the
        # first cut is wide and bounds the quadratic sorting of marks in `normalize`.
        decomposed = unicodedata.normalize("NFD", _cut_marks(text, _MARKS_TO_SORT))
        text = _cut_marks(decomposed, _MARKS_IN_A_ROW)
    return unicodedata.normalize("NFC", text)


def _cut_marks(text: str, most: int) -> str:
    """Drop combining marks and joiners after `most` of them in a row."""
    kept = []
    run = 0
    for character in text:
        joined = character in "\u200c\u200d" or unicodedata.category(character)[0] == "M"
        run = run + 1 if joined else 0
        if run <= most:
            kept.append(character)
    return "".join(kept)


def hidden(text: str) -> list[str]:
    """Return the characters of a text that a reader cannot see and `clean` would drop."""
    if text.isascii():
        return _INVISIBLE.findall(text)
    return [*_INVISIBLE.findall(text), *"".join(_EXTRA_SELECTORS.findall(text))]


def screen_question(text: str, limit: int) -> str:
    """Return a clean question; raise BadInput, with a sentence to show, for one that is none."""
    if not isinstance(text, str):
        seen = type(text).__name__
        raise BadInput(
            f"问题必须是文字（str），收到的是 {seen}。 / A question must be text (str), not {seen}."
        )
    if len(text) > limit:
        raise BadInput(
            f"问题有 {len(text)} 个字，最多 {limit} 个，请缩短后再问。 / The question has "
            f"{len(text)} characters, at most {limit} are taken: please shorten it."
        )
    question = clean(text).strip()
    if not any(character.isalnum() for character in question):
        raise BadInput(
            "没有看到文字，请用一句话描述您的问题。 / There are no words in it: please describe "
            "your problem in a sentence."
        )
    return question


# --- Secrets ------------------------------------------------------------------------------------

_HAN = re.compile("[\u3400-\u9fff]")
# Full-width characters, odd spaces and dashes as ASCII, one for one: offsets stay.
_ASCII_FORMS = str.maketrans(
    {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}
    | dict.fromkeys([0xA0, *range(0x2000, 0x200B), 0x202F, 0x205F, 0x3000], " ")
    | dict.fromkeys([*range(0x2010, 0x2016), 0x2212], "-")
)


def mask_secrets(text: str, spare: Container[str] = ()) -> tuple[str, tuple[str, ...]]:
    """Replace secrets by what they are; return the text and the kinds found, those to spare too.

    Masked: bank cards and resident ids (by their checksum, or where they are called so), bank
    accounts (IBAN), CN mobile numbers, e-mail addresses, access keys, one-time codes, card codes,
    passwords and private keys in context, and recovery phrases; in Chinese words, in English where
    the text has no Chinese. `spare` names kinds that stay: how a person asks to be reached is no
    secret from those who shall do it.
    """
    plain = text.translate(_ASCII_FORMS)
    masks: dict[Span, str] = {}
    kinds: dict[str, None] = {}
    english = not _HAN.search(text)
    there = set(plain)
    for kind, one_of, find in _RULES:
        if one_of and one_of.isdisjoint(there):
            continue
        if found := _apart(find(plain)):
            kinds[kind] = None
            if kind not in spare:
                masks |= dict.fromkeys(found, _MASKS[kind][english])
            plain = _replaced(plain, {span: "\0" * (span[1] - span[0]) for span in found})
    return _replaced(text, masks), tuple(kinds)


def _apart(spans: Iterable[Span]) -> list[Span]:
    """Return spans in order without those that overlap an earlier one."""
    kept: list[Span] = []
    for begin, end in sorted(spans):
        if not kept or begin >= kept[-1][1]:
            kept.append((begin, end))
    return kept


def _replaced(text: str, by: dict[Span, str]) -> str:
    """Return the text with spans, none of which overlap, replaced."""
    parts = []
    done = 0
    for (begin, end), words in sorted(by.items()):
        parts += [text[done:begin], words]
        done = end
    return "".join([*parts, text[done:]])


# Numbers that say how much, when or how often are no secrets.
_NO_UNIT = (
    r"(?!\s?(?:元|块|万|年|月|日|号|点|时|分|秒|次|个|位|天|小时|%|usd|cny|rmb|dollars?\b|yuan\b|"
    r"times\b|days?\b|hours?\b|minutes?\b|characters?\b|digits?\b|letters?\b|[-./:年]\s?[0-9]))"
)
_DIGITS = r"(?<![0-9])(?:[0-9]{3}[ -][0-9]{3}|[0-9]{4,8})(?![0-9])"
_TOKEN = r"(?=[A-Za-z]{0,7}[0-9])[A-Za-z0-9]{4,8}(?![A-Za-z0-9])"
_CODE_WORDS = (
    r"(?:验证码|驗證碼|校验码|校驗碼|动态码|動態碼|认证码|認證碼|短信码|動態密碼|动态密码|动态口令|"
    r"一次性密码|(?:verification|security|one[- ]time|sms|auth(?:entication|enticator)?|"
    r"confirmation|login|2fa|mfa|access|activation|pass)[- ]?(?:pass)?code|"
    r"one[- ]time pass(?:word)?|\botp|\bcode)"
)
_CODE = re.compile(
    _CODE_WORDS
    + r"(?:(?:[\s是为為:=\"'“「我你您他的了收到填输入写给发显示告诉就都一直#,，]|is|was|it|"
    r"says?|that|got|received|the|number|i\b|and){0,12}?"
    rf"({_DIGITS}{_NO_UNIT})|\s?(?:[是为為:=]|is)\s?({_TOKEN}))",
    re.IGNORECASE,
)
_CODE_AFTER = re.compile(
    rf"((?:\bG-)?{_DIGITS})\s?(?:这个|這個)?(?:是|为|為|is)?\s?(?:[我你您]的?|my|your|the)?\s?"
    + _CODE_WORDS,
    re.IGNORECASE,
)
# What else is called a code: error codes and the like help finding, and are public.
_PUBLIC_CODE = re.compile(
    r"(?:error|status|zip|postal|post|country|area|promo|promotion|qr|response|reason|bank|swift|"
    r"branch|sort|invite|invitation|referral|http|dial|voucher|discount|coupon|result|exit|return|"
    r"product|tracking|order|refusal|failure|fault|source)[\s-]{0,3}$",
    re.IGNORECASE,
)


def _codes(text: str) -> Iterator[Span]:
    for found in _CODE.finditer(text):
        if not _PUBLIC_CODE.search(text, max(0, found.start() - 16), found.start()):
            yield found.span(1 if found[1] else 2)
    for found in _CODE_AFTER.finditer(text):
        yield found.span(1)


_PASSWORD_WORDS = (
    r"(?:密码|密碼|口令|pin码|pin ?code|password|passcode|passwd|passphrase|\bpwd\b|\bpin\b)"
)
_PASSWORD = re.compile(
    _PASSWORD_WORDS
    + r"((?:[\s是为為:=\"'“「就设成改我的叫]|is\b|was\b){0,8})([!-~]{4,64})"
    + _NO_UNIT,
    re.IGNORECASE,
)
_SAID_TO_BE = re.compile(r"[是为為:=叫成]|is|was", re.IGNORECASE)
# What people say about a password, so that no word of their trouble is taken for one.
_ABOUT_PASSWORDS = re.compile(
    r"(?:.*(?:ed|ing|en|ly|ble)|wrong|incorrect|invalid|correct|right|good|fine|okay|weak|strong|"
    r"short|long|lost|gone|same|different|safe|secure|unsafe|empty|blank|null|none|what|where|"
    r"when|there|here|this|that|from|with|your|mine|only|also|just|very|still|always|never|again|"
    r"about|already|please|help|reset|change|email|error|login|page|link|field|required|case|"
    r"too|sensitive|out|saved|known|unknown|hard|easy|simple|needed|have|must|should|will|"
    r"would|could|cannot|does|password|topay|wallet|account|sent|enter|type|select|choose|click)",
    re.IGNORECASE,
)


def _passwords(text: str) -> Iterator[Span]:
    for found in _PASSWORD.finditer(text):
        token = found[2].lstrip("\"'(<[").rstrip(".,!?;:\"')>]")
        begin = found.start(2) + found[2].index(token) if token else 0
        said = bool(_SAID_TO_BE.search(found[1]))
        if len(token) >= 4 and _is_password(token, said):
            yield begin, begin + len(token)


def _is_password(token: str, said: bool) -> bool:
    """Tell whether a word behind "password" is one; `said`: an "is" or a colon stood between."""
    if any(c.isdigit() for c in token):
        return said or (token[0].isalnum() and not token.startswith("http"))
    return said and not _ABOUT_PASSWORDS.fullmatch(token)


_PRIVATE_KEY = re.compile(
    r"(?:私钥|私鑰|private key|secret key)(?:[\s是为為:=\"'“]|is\b){0,8}([A-Za-z0-9+/=]{32,128})",
    re.IGNORECASE,
)
_EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,4}", re.ASCII)
_ID_CARD = re.compile(
    r"(?<![0-9A-Za-z])[1-9][0-9]{5}[ -]?[0-9]{8}[ -]?[0-9]{3}[0-9Xx](?![0-9A-Za-z])"
)
_MOBILE = re.compile(r"(?<![0-9+])(?:(?:\+|00)?86[ -]?)?1[3-9][0-9](?:[ .-]?[0-9]{4}){2}(?![0-9])")
_ID_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)


def _id_cards(text: str) -> Iterator[Span]:
    """Find Chinese resident ids with their checksum (GB 11643)."""
    for found in _ID_CARD.finditer(text):
        number = re.sub("[ -]", "", found[0]).upper()
        total = sum(int(d) * w for d, w in zip(number[:17], _ID_WEIGHTS, strict=True))
        if "10X98765432"[total % 11] == number[17]:
            yield found.span()


# A number that is called one is masked though its checksum is wrong: people mistype.
_CALLED = r"(?:[\s是为為:=#.(（]|is\b|no\b|num(?:ber)?\b|[号號]码?碼?){0,6}"
_NAMED_CARD = re.compile(
    r"(?:卡号|卡號|(?:银行|銀行|信用|借记|借記|储蓄|儲蓄)卡|\bcard)"
    rf"{_CALLED}([0-9](?:[ -]?[0-9]){{11,18}})(?![0-9])",
    re.IGNORECASE,
)
_NAMED_ID = re.compile(
    rf"(?:身份证|身份證|\b(?:id card|identity(?: card)?)){_CALLED}"
    r"([0-9](?:[ -]?[0-9]){13,16}[0-9Xx])(?![0-9A-Za-z])",
    re.IGNORECASE,
)
_CARD_CODE = re.compile(
    r"(?:cvv2?|cvc2?|安全码|安全碼)(?:[\s是为為:=]|is\b){0,4}([0-9]{3,4})(?![0-9])", re.IGNORECASE
)
_ACCESS_KEY = re.compile(
    r"(?<![A-Za-z0-9])(?:(?:sk|pk|rk|ghp|gho|xox[abp])[-_][A-Za-z0-9_-]{16,200}|"
    r"eyJ[A-Za-z0-9_-]{8,2000}\.[A-Za-z0-9_-]{4,2000}(?:\.[A-Za-z0-9_-]{0,2000})?)"
)
_IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]){11,30}(?![A-Za-z0-9])")


def _ibans(text: str) -> Iterator[Span]:
    """Find bank account numbers with their checksum (ISO 13616)."""
    for found in _IBAN.finditer(text):
        number = found[0].replace(" ", "")
        if int("".join(str(int(c, 36)) for c in number[4:] + number[:4])) % 97 == 1:
            yield found.span()


_DIGIT_GROUPS = re.compile(r"[0-9]+(?:[ -]{1,2}[0-9]+)*")


def _cards(text: str) -> Iterator[Span]:
    """Find card numbers among groups of digits, whatever digits stand around them."""
    for run in _DIGIT_GROUPS.finditer(text):
        groups = [m.span() for m in re.compile("[0-9]+").finditer(text, *run.span())]
        first = 0
        while first < len(groups):
            last = _card_from(text, groups, first)
            if last > first:
                yield groups[first][0], groups[last - 1][1]
            first = max(last, first + 1)


def _card_from(text: str, groups: list[Span], first: int) -> int:
    """Return the end of the longest card that begins at a group, or `first` when none does."""
    digits = ""
    found = first
    for i in range(first, min(first + 6, len(groups))):
        # Cards are written 4-4-4-4, 4-6-5 or 6-13; a date in front of one is no part of it.
        if i > first and groups[i - 1][1] - groups[i - 1][0] < 4:
            break
        digits += text[slice(*groups[i])][:20]
        if len(digits) > 19:
            break
        if _card_number(digits):
            found = i + 1
    return found


def _card_number(digits: str) -> bool:
    """Tell whether digits are a card's: its length, an issuer's first digits, Luhn's check.

    ISO/IEC 7812-1; numbers that begin with 1 or 20 are times and order numbers.
    """
    if not 13 <= len(digits) <= 19 or len(set(digits)) == 1:
        return False
    if not (digits[0] in "3456789" or "22" <= digits[:2] <= "27"):
        return False
    doubled = (int(d) * (1 + i % 2) for i, d in enumerate(reversed(digits)))
    return sum(d - 9 if d > 9 else d for d in doubled) % 10 == 0


_WORD = re.compile("[A-Za-z]+")
_BETWEEN_WORDS = re.compile(r"[\s,，、]{0,3}(?:[0-9]{1,2}[.):、]?\s{0,2})?")
_FEWEST_WORDS = 12
_SEED_CONTEXT = re.compile(
    r"seed|recovery|mnemonic|secret phrase|backup phrase|助记词|助記詞|恢复词|恢復詞", re.IGNORECASE
)
# Words of sentences that no recovery phrase of any wallet has.
_SENTENCE_WORDS = frozenset(
    "the and for with from has had was were are not but would should did does who why how their "
    "his her its our got been than please don didn doesn isn wasn won phrase words seed is my "
    "recovery mnemonic wallet help".split()
)
_CHINESE_SEED = re.compile(
    r"(?<![\u4e00-\u9fff])[\u4e00-\u9fff](?:[\s,，、]{1,2}(?:[0-9]{1,2}[.、) ])?[\u4e00-\u9fff])"
    r"{11,23}(?![\u4e00-\u9fff])"
)


@lru_cache(maxsize=1)
def _listed_words() -> frozenset[str]:
    """Read the English word list of BIP-39, which nearly all wallets use."""
    path = Path(__file__).parent / "data" / "recovery_words.txt"
    return frozenset(path.read_text("ascii").split())


def _seed_phrases(text: str) -> Iterator[Span]:
    """Find twelve or more words in a row of which no more than one is off the list.

    Where the text speaks of a recovery phrase, a row of any plain words will do.
    """
    context = bool(_SEED_CONTEXT.search(text))
    for run in _word_runs(text):
        if len(run) < _FEWEST_WORDS:
            continue
        words = [m[0].lower() for m in run]
        listed = [word in _listed_words() for word in words]
        yield from _stretches(run, listed, allowed=1)
        if context and sum(listed) < _FEWEST_WORDS - 1:
            plain = [3 <= len(word) <= 10 and word not in _SENTENCE_WORDS for word in words]
            yield from _stretches(run, plain, allowed=0)


def _word_runs(text: str) -> Iterator[list[re.Match[str]]]:
    """Yield rows of Latin words that only spaces, commas and numbering part."""
    run: list[re.Match[str]] = []
    for word in _WORD.finditer(text):
        if run and not _BETWEEN_WORDS.fullmatch(text, run[-1].end(), word.start()):
            yield run
            run = []
        run.append(word)
    yield run


def _stretches(run: list[re.Match[str]], fits: list[bool], allowed: int) -> Iterator[Span]:
    """Yield spans of windows of twelve words of which at most `allowed` do not fit, joined."""
    inside = sum(fits[:_FEWEST_WORDS])
    begin = end = -1
    for last in range(_FEWEST_WORDS - 1, len(run)):
        if inside >= _FEWEST_WORDS - allowed:
            first = last - _FEWEST_WORDS + 1
            if begin < 0 or first > end:
                if begin >= 0:
                    yield _trimmed(run, fits, begin, end)
                begin = first
            end = last
        if last + 1 < len(run):
            inside += fits[last + 1] - fits[last - _FEWEST_WORDS + 1]
    if begin >= 0:
        yield _trimmed(run, fits, begin, end)


def _trimmed(run: list[re.Match[str]], fits: list[bool], begin: int, end: int) -> Span:
    """Return the span from the first word that fits to the last."""
    fitting = [i for i in range(begin, end + 1) if fits[i]]
    return run[fitting[0]].start(), run[fitting[-1]].end()


def _everywhere(pattern: re.Pattern[str]) -> Callable[[str], Iterator[Span]]:
    """Return a finder of a pattern's first group, or of all of it when it has none."""
    return lambda text: (m.span(1 if pattern.groups else 0) for m in pattern.finditer(text))


_DIGITS_ONE_OF = frozenset("0123456789")
# Each with characters of which every secret of its kind has one, where there are such. Earlier
# rules win: a card that is named as a code is a code.
_RULES: tuple[tuple[str, frozenset[str], Callable[[str], Iterable[Span]]], ...] = (
    ("email", frozenset("@"), _everywhere(_EMAIL)),
    ("private_key", frozenset("钥鑰kK"), _everywhere(_PRIVATE_KEY)),
    ("access_key", frozenset("-_."), _everywhere(_ACCESS_KEY)),
    ("id_card", _DIGITS_ONE_OF, _id_cards),
    ("id_card", _DIGITS_ONE_OF, _everywhere(_NAMED_ID)),
    ("mobile", _DIGITS_ONE_OF, _everywhere(_MOBILE)),
    ("iban", _DIGITS_ONE_OF, _ibans),
    ("card", _DIGITS_ONE_OF, _cards),
    ("card", _DIGITS_ONE_OF, _everywhere(_NAMED_CARD)),
    ("card_code", _DIGITS_ONE_OF, _everywhere(_CARD_CODE)),
    ("code", _DIGITS_ONE_OF, _codes),
    ("password", frozenset("密口pP"), _passwords),
    ("seed_phrase", frozenset(), _seed_phrases),
    ("seed_phrase", frozenset(), _everywhere(_CHINESE_SEED)),
)
_MASKS = {
    "email": ("[邮箱]", "[e-mail]"),
    "private_key": ("[私钥]", "[private key]"),
    "access_key": ("[密钥]", "[access key]"),
    "id_card": ("[身份证号]", "[ID number]"),
    "mobile": ("[手机号]", "[phone number]"),
    "iban": ("[银行账号]", "[bank account]"),
    "card": ("[卡号]", "[card number]"),
    "card_code": ("[安全码]", "[security code]"),
    "code": ("[验证码]", "[code]"),
    "password": ("[密码]", "[password]"),
    "seed_phrase": ("[助记词]", "[recovery phrase]"),
}
_MASK = re.compile("|".join(re.escape(mask) for pair in _MASKS.values() for mask in pair))


def unmasked(text: str) -> str:
    """Return a text without the masks in it: the words that are the person's own."""
    return _MASK.sub(" ", text)
