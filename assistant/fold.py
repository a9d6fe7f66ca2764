"""Fold text for finding: one form for traditional, full-width and upper-case writing.

Folding keeps the length, character for character, so that a match in folded text is a match at the
same offsets of the source. It is never shown: what is quoted is the source.
"""

import re
import unicodedata
from functools import lru_cache
from operator import add

import opencc

_WORD = re.compile(r"[\u3400-\u9fff]+|[a-z0-9]+(?:[-_.'][a-z0-9]+)*")
_BOUNDARY = re.compile(r"[a-z]+|[0-9]+")


@lru_cache(maxsize=1)
def _to_simplified() -> opencc.OpenCC:
    return opencc.OpenCC("t2s")


@lru_cache(maxsize=65_536)
def _fold_character(character: str) -> str:
    """Return the compatibility form in lower case when it is one character, else itself."""
    folded = unicodedata.normalize("NFKC", character).lower()
    return folded if len(folded) == 1 else character


def simplify(text: str) -> str:
    """Return `text` with traditional characters in simplified form; the same length."""
    if text.isascii():
        return text
    simplified: str = _to_simplified().convert(text)
    if len(simplified) == len(text):
        return simplified
    return "".join(s if len(s) == 1 else c for c in text for s in [_to_simplified().convert(c)])


@lru_cache(maxsize=64)  # a question is folded by several rooms
def fold(text: str) -> str:
    """Return the search form of `text`: half-width, lower case, simplified; the same length."""
    if text.isascii():
        return text.lower()
    return simplify("".join(map(_fold_character, text)))


def terms(text: str) -> list[str]:
    """Return the lexical terms of folded text: Han bigrams and single characters, whole words.

    Words, codes and numbers stay whole; a hyphenated or dotted code also gives its parts
    (`th-01` → `th-01`, `th`, `01`), so that either spelling finds it.
    """
    found: list[str] = []
    for word in _WORD.findall(text):
        if word[0] >= "\u3400":
            found += word
            found += map(add, word, word[1:])
        else:
            found.append(word)
            if not word.isalpha() and len(parts := _BOUNDARY.findall(word)) > 1:
                found += parts
    return found
