"""The one input boundary: clean text, cap its size, mask secrets.

It runs before anything is embedded, stored, logged or sent on. Every pattern is linear in the
length of the text.
"""

import re
import unicodedata
from collections.abc import Callable

from assistant.errors import BadInput

_MARKS_IN_A_ROW = 8
_KEPT_FORMATS = {"\u200c", "\u200d"}  # joiners shape Indic, Arabic and emoji text
_SPACES = {"\u200b", "\u2028", "\u2029", "\x0b", "\x0c", "\x85"}
_RUN_OF_MARKS = re.compile(
    r"([\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff]{8})"
    r"[\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff]+"
)


def clean(text: str) -> str:
    """Return text that every later step can take; total, and idempotent.

    Line ends become newlines. Dropped: lone surrogates, noncharacters, control characters, Unicode
    Tags, bidi controls, byte-order marks, soft hyphens and other invisible format characters.
    Zero-width spaces and odd line separators become spaces. The result is in NFC, and a run of
    combining marks is cut after eight.
    """
    unified = text.replace("\r\n", "\n").replace("\r", "\n")
    if not (unified.isascii() and unified.isprintable()):
        unified = "".join(map(_replace, unified))
        unified = unicodedata.normalize("NFC", _RUN_OF_MARKS.sub(r"\1", unified))
    return unified


def _replace(character: str) -> str:
    if character in "\n\t" or character in _KEPT_FORMATS:
        return character
    if character in _SPACES:
        return " "
    category = unicodedata.category(character)
    if category in {"Cc", "Cf", "Cs"} or _is_noncharacter(ord(character)):
        return ""
    return character


def _is_noncharacter(code: int) -> bool:
    return code & 0xFFFE == 0xFFFE or 0xFDD0 <= code <= 0xFDEF


def screen_question(text: str, limit: int) -> str:
    """Return a clean question; raise BadInput, with a sentence to show, for one that is none."""
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


def _card_number(digits: str) -> bool:
    """Tell whether 13 to 19 digits pass the Luhn check (ISO/IEC 7812-1)."""
    total = 0
    for i, digit in enumerate(reversed(digits)):
        value = int(digit) * (1 + i % 2)
        total += value - 9 if value > 9 else value
    return 13 <= len(digits) <= 19 and total % 10 == 0 and len(set(digits)) > 1


_ID_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)


def _id_card(number: str) -> bool:
    """Tell whether 18 characters are a Chinese resident id with its checksum (GB 11643)."""
    digits = number.upper()
    total = sum(int(d) * w for d, w in zip(digits[:17], _ID_WEIGHTS, strict=True))
    return "10X98765432"[total % 11] == digits[17]


def _seed_phrase(words: str) -> bool:
    """Tell whether plain words in a row look like a recovery phrase, not like a sentence."""
    listed = words.split()
    return len(listed) >= 12 and not _SENTENCE_WORDS.intersection(word.lower() for word in listed)


# Function words that no recovery phrase has (they are not in the BIP-39 list).
_SENTENCE_WORDS = frozenset(
    "the and for with from has had was were are not but cannot could would should did does who why "
    "how their his her its our got been than please don didn doesn".split()
)
_MASKS: tuple[tuple[str, str, re.Pattern[str], Callable[[str], bool]], ...] = (
    (
        "email",
        "[邮箱]",
        re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,4}", re.ASCII),
        lambda _: True,
    ),
    (
        "id_card",
        "[身份证号]",
        re.compile(r"(?<![0-9A-Za-z])[1-9][0-9]{16}[0-9Xx](?![0-9A-Za-z])"),
        _id_card,
    ),
    (
        "mobile",
        "[手机号]",
        re.compile(r"(?<![0-9])(?:\+?86[ -]?)?1[3-9][0-9](?:[ -]?[0-9]{4}){2}(?![ -]?[0-9])"),
        lambda _: True,
    ),
    (
        "card",
        "[卡号]",
        re.compile(r"(?<![0-9])[0-9](?:[ -]?[0-9]){12,18}(?![0-9])"),
        lambda found: _card_number(re.sub(r"\D", "", found)),
    ),
    (
        "seed_phrase",
        "[助记词]",
        re.compile(
            r"(?<![A-Za-z])[a-z]{3,8}"
            r"(?:[ ,，、]{1,2}(?:[0-9]{1,2}[.)] ?)?[a-z]{3,8}){11,23}(?![A-Za-z])"
        ),
        lambda found: _seed_phrase(re.sub(r"[^a-z]+", " ", found)),
    ),
    (
        "seed_phrase",
        "[助记词]",
        re.compile(
            r"(?<![\u4e00-\u9fff])[\u4e00-\u9fff]"
            r"(?:[ ,，、][\u4e00-\u9fff]){11,23}(?![\u4e00-\u9fff])"
        ),
        lambda _: True,
    ),
)
_SECRET_IN_CONTEXT = (
    (
        "code",
        "[验证码]",
        re.compile(
            r"((?:验证码|校验码|动态码|動態碼|驗證碼|认证码|短信码|"
            r"(?:verification|security|one[- ]time|sms|auth) ?code|otp|\bcode)"
            r"(?:是|为|為|:|：|=|\s|is|was|:){1,4})([0-9]{4,8})(?![0-9])",
            re.IGNORECASE,
        ),
    ),
    (
        "password",
        "[密码]",
        re.compile(
            r"((?:密码|密碼|口令|pin码|password|passcode|passwd|\bpwd|\bpin)"
            r"(?:\s{0,2}(?:是|为|為|:|：|=|is)\s{0,2}))([!-~]{4,64})",
            re.IGNORECASE,
        ),
    ),
)


def mask_secrets(text: str) -> tuple[str, tuple[str, ...]]:
    """Replace secrets by what they are; return the text and the kinds found.

    Masked: bank cards (Luhn), CN mobile numbers, resident ids (checksum), e-mail addresses,
    one-time codes and passwords in context, and recovery phrases of 12 to 24 words.
    """
    kinds: dict[str, None] = {}
    for kind, mask, pattern in _SECRET_IN_CONTEXT:
        text, count = pattern.subn(lambda m, mask=mask: m[1] + mask, text)  # type: ignore[misc]
        if count:
            kinds[kind] = None
    for kind, mask, pattern, holds in _MASKS:

        def swap(
            found: re.Match[str],
            kind: str = kind,
            mask: str = mask,
            holds: Callable[[str], bool] = holds,
        ) -> str:
            if not holds(found[0]):
                return found[0]
            kinds[kind] = None
            return mask

        text = pattern.sub(swap, text)
    return text, tuple(kinds)
