"""Choose the pieces of the embedding model and write its tokenizer: words first, all characters."""

import json
import math
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Any

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

from assistant.fold import fold, simplify

HAN = r"\u4e00-\u9fff"
PAD, UNKNOWN = "[PAD]", "[UNK]"
_RUN = re.compile(f"[{HAN}]+|[a-z]+|[0-9]")
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_DIGITS = "0123456789"
_LONGEST_CHINESE, _LONGEST_ENGLISH = 4, 20
# A word beats its parts in the Unigram search when the parts' scores add up to less than its own.
_CHARACTER_DISCOUNT, _FRAGMENT_DISCOUNT = 50, 500


@dataclass(frozen=True, slots=True)
class Shape:
    """Say how large the vocabulary is and what it is made of."""

    pieces: int
    characters: int
    fragments: int
    chinese: float
    general: float


def _jieba() -> Any:
    """Return jieba, which only training needs."""
    import jieba

    jieba.setLogLevel(40)
    return jieba


def count(texts: Iterable[str]) -> tuple[Counter[str], Counter[str]]:
    """Count Chinese words (jieba) and English words of folded texts."""
    jieba = _jieba()
    chinese: Counter[str] = Counter()
    english: Counter[str] = Counter()
    for text in texts:
        for run in _RUN.findall(fold(text)):
            if "a" <= run[0] <= "z":
                english[run] += 1
            elif not run.isdigit():
                chinese.update(jieba.lcut(run, HMM=False))
    return chinese, english


def general_counts() -> dict[str, int]:
    """Return the word counts of jieba's dictionary: everyday Chinese, beside the guides'."""
    jieba = _jieba()
    jieba.initialize()
    return {word: n for word, n in jieba.dt.FREQ.items() if n and simplify(word) == word}


def choose(chinese: Counter[str], english: Counter[str], shape: Shape) -> dict[str, float]:
    """Return the pieces with log frequencies; `shape.general` weighs jieba's own counts."""
    words = _mixed(chinese, general_counts(), shape.general)
    characters: Counter[str] = Counter()
    for word, share in words.items():
        for character in word:
            if re.match(f"[{HAN}]", character) and simplify(character) == character:
                characters[character] += share
    kept = dict(_most(characters, shape.characters))
    pieces = {c: share / _CHARACTER_DISCOUNT for c, share in kept.items()}
    pieces |= dict.fromkeys(_LETTERS, 1e-3 / _CHARACTER_DISCOUNT) | dict.fromkeys(_DIGITS, 2.5e-3)
    shares = {word: n / english.total() for word, n in english.items()}
    fragments = {p: share / _FRAGMENT_DISCOUNT for p, share in _fragments(shares, shape.fragments)}
    room = shape.pieces - 2 - len(pieces) - len(fragments)
    compounds = {w: s for w, s in words.items() if 1 < len(w) <= _LONGEST_CHINESE}
    whole = dict(_most(compounds, int(room * shape.chinese)))
    readable = {w: s for w, s in shares.items() if 1 < len(w) <= _LONGEST_ENGLISH}
    spoken = dict(_most(readable, room - len(whole)))
    all_pieces = fragments | pieces | whole | spoken
    return {piece: math.log(share) for piece, share in _most(all_pieces, len(all_pieces))}


def _mixed(counts: Counter[str], general: dict[str, int], weight: float) -> dict[str, float]:
    total, general_total = max(counts.total(), 1), sum(general.values())
    words = sorted(set(counts) | (set(general) if weight else set()))
    return {
        word: counts.get(word, 0) / total + weight * general.get(word, 0) / general_total
        for word in words
    }


def _most(shares: dict[str, float], size: int) -> list[tuple[str, float]]:
    """Return the `size` largest, ties in the order of the text, so that runs agree."""
    ordered = sorted(shares.items(), key=lambda item: (-item[1], item[0]))
    return list(islice(((p, s) for p, s in ordered if s > 0), size))


def _fragments(shares: dict[str, float], size: int) -> list[tuple[str, float]]:
    """Return the most frequent parts of two to five letters."""
    fragments: Counter[str] = Counter()
    for word, share in shares.items():
        for begin in range(len(word)):
            for end in range(begin + 2, min(begin + 5, len(word)) + 1):
                fragments[word[begin:end]] += share  # type: ignore[assignment]
    return _most(dict(fragments), size)


def tokenizer(pieces: dict[str, float]) -> Tokenizer:
    """Return a Unigram tokenizer over the pieces; everything but letters and digits is dropped."""
    vocabulary = [(PAD, 0.0), (UNKNOWN, -30.0)]
    vocabulary += [(piece, round(score, 3)) for piece, score in pieces.items()]
    made = Tokenizer(models.Unigram(vocabulary, unk_id=1, byte_fallback=False))
    made.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    made.pre_tokenizer = pre_tokenizers.Split(
        Regex(f"[{HAN}]+|[a-z]+|[0-9]"), behavior="removed", invert=True
    )
    return made


def compact(made: Tokenizer) -> str:
    """Return the tokenizer as JSON without white space: a third of the size."""
    values = json.loads(made.to_str())
    values["model"]["vocab"] = [[piece, round(s, 3)] for piece, s in values["model"]["vocab"]]
    return json.dumps(values, ensure_ascii=False, separators=(",", ":"))


def scores(made: Tokenizer) -> list[float]:
    """Return the log frequency of every piece."""
    return [float(score) for _, score in json.loads(made.to_str())["model"]["vocab"]]
