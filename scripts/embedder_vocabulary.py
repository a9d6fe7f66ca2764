"""Choose the pieces of the embedding model and write its tokenizer: words first, all characters."""

import math
import re
from collections import Counter
from collections.abc import Iterable

import jieba
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

from assistant.fold import fold

HAN = r"\u4e00-\u9fff"
_RUN = re.compile(f"[{HAN}]+|[a-z]+|[0-9]")
PAD, UNKNOWN = "[PAD]", "[UNK]"
_LEAST_PIECE = 200


def count(texts: Iterable[str]) -> tuple[Counter[str], Counter[str]]:
    """Count Chinese words (jieba) and English words of folded texts."""
    jieba.setLogLevel(40)
    chinese: Counter[str] = Counter()
    english: Counter[str] = Counter()
    for text in texts:
        for run in _RUN.findall(fold(text)):
            if "a" <= run[0] <= "z":
                english[run] += 1
            elif not run.isdigit():
                chinese.update(jieba.lcut(run, HMM=False))
    return chinese, english


def _gb2312() -> set[str]:
    """Return the 6,763 characters of GB 2312, so that no usual name is unknown."""
    codes = (bytes([high, low]) for high in range(0xB0, 0xF8) for low in range(0xA1, 0xFF))
    return set("".join(code.decode("gb2312", "ignore") for code in codes))


def choose(
    chinese: Counter[str], english: Counter[str], size: int, share: float
) -> dict[str, float]:
    """Return `size` pieces with log frequencies; `share` of them Chinese words."""
    characters: Counter[str] = Counter()
    for word, n in chinese.items():
        for character in word:
            characters[character] += n
    pieces: Counter[str] = Counter()
    for word, n in english.items():
        for begin in range(len(word)):
            for end in range(begin + 1, min(begin + 5, len(word)) + 1):
                pieces[word[begin:end]] += n
    kept = {c: max(characters[c], 1) / 50 for c in sorted(_gb2312() | characters.keys())}
    kept |= {p: n / 500 for p, n in pieces.items() if len(p) == 1 or n >= _LEAST_PIECE * 40}
    kept |= {str(digit): 1000.0 for digit in range(10)}
    room = size - 2 - len(kept)
    words = [(w, n) for w, n in chinese.most_common() if 1 < len(w) <= 6][: int(room * share)]
    kept |= dict(words)
    for word, n in english.most_common():
        if len(kept) >= size - 2:
            break
        if len(word) > 1:
            kept[word] = n
    total = sum(kept.values())
    return {piece: math.log(n / total) for piece, n in sorted(kept.items(), key=lambda x: -x[1])}


def tokenizer(pieces: dict[str, float]) -> Tokenizer:
    """Return a Unigram tokenizer over the pieces; everything but letters and digits is dropped."""
    vocabulary = [(PAD, 0.0), (UNKNOWN, -30.0), *pieces.items()]
    made = Tokenizer(models.Unigram(vocabulary, unk_id=1, byte_fallback=False))
    made.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    made.pre_tokenizer = pre_tokenizers.Split(
        Regex(f"[{HAN}]+|[a-z]+|[0-9]"), behavior="removed", invert=True
    )
    return made
