"""Read a question by its sound: pinyin typed for words, and characters mistaken for homophones.

An index knows which pairs of characters its own texts use. A pair that is no common word and that
no text has, but which sounds like a word of the texts but for one character (电华, 电话), is taken
for a typing error; letters that spell Mandarin syllables (chongzhi) are read as words of that
sound. Accents that merge zh and z, ch and c, sh and s, or a final n and ng are merged here too.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, lru_cache
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

TABLE = Path(__file__).parent / "data" / "pinyin.txt"
WORDS = Path(__file__).parent / "data" / "words.txt"
_MOST_PAIRS = 30_000
_BATCH = 8192  # texts that are counted at once
_PARTICLES = frozenset("的得地这是几想")  # they stand between words, so pairs with them mislead
_OFTEN = 5  # views from which on a pair of an index counts as a word of its trade
_HAN = re.compile(r"[\u3400-\u9fff]+")
_SPELLED = re.compile(r"[a-z]+(?:[ ']+[a-z]+)*")
_LETTERS = re.compile(r"[a-z]+")
_INITIAL = re.compile(r"^(z|c|s)h")

Numbers = NDArray[np.int64]
Pairs = dict[str, int]
"""Pairs of Han characters, and how many views of an index have each."""


@lru_cache(maxsize=1)
def _readings() -> dict[str, tuple[str, ...]]:
    """Return the syllables of each character of the shipped table."""
    found: dict[str, tuple[str, ...]] = {}
    for line in TABLE.read_text("utf-8").splitlines():
        syllable, characters = line.split()
        for character in characters:
            found[character] = (*found.get(character, ()), syllable)
    return found


@lru_cache(maxsize=1)
def _syllables() -> frozenset[str]:
    return frozenset(line.split()[0] for line in TABLE.read_text("utf-8").splitlines())


@lru_cache(maxsize=1)
def _words() -> frozenset[str]:
    """Return the commonest words of two characters (from jieba's dictionary, MIT licence)."""
    lines = WORDS.read_text("utf-8").splitlines()
    return frozenset(line[at : at + 2] for line in lines for at in range(0, len(line), 2))


def merged(syllable: str) -> str:
    """Return a syllable without what accents merge: zh, ch, sh; a final ng."""
    short = _INITIAL.sub(r"\1", syllable)
    return short[:-1] if short.endswith("ng") else short


@lru_cache(maxsize=4_000)
def spelled(word: str) -> tuple[str, ...]:
    """Return the syllables that small letters spell, the longest first; none when they do not."""
    syllables = _syllables()
    steps = [0] * len(word)  # from each place, the longest syllable after which the rest is spelled
    for at in range(len(word) - 1, -1, -1):
        for length in range(min(6, len(word) - at), 0, -1):
            end = at + length
            if word[at:end] in syllables and (end == len(word) or steps[end]):
                steps[at] = length
                break
    found, at = [], 0
    while at < len(word) and steps[0]:
        found.append(word[at : at + steps[at]])
        at += steps[at]
    return tuple(found)


def count_pairs(texts: Sequence[str]) -> Pairs:
    """Count the folded texts that have each pair of Han characters; the commonest are kept."""
    counts: Counter[int] = Counter()
    for begin in range(0, len(texts), _BATCH):
        pairs = _pairs_of(texts[begin : begin + _BATCH])
        counts.update(dict(zip(*(part.tolist() for part in pairs), strict=True)))
    named = ((chr(pair >> 16) + chr(pair & 0xFFFF), count) for pair, count in counts.items())
    best = sorted(named, key=lambda item: (-item[1], item[0]))
    return dict(best[:_MOST_PAIRS])


def _pairs_of(texts: Sequence[str]) -> tuple[Numbers, Numbers]:
    """Return pairs of Han characters, two times sixteen bits, and how many texts have each."""
    codes = np.frombuffer("\0".join(texts).encode("utf-32-le", "surrogatepass"), dtype="<u4")
    han = (codes >= 0x3400) & (codes <= 0x9FFF)
    at = np.flatnonzero(han[:-1] & han[1:])
    code, text = codes.astype(np.int64), np.cumsum(codes == 0)
    in_texts = _runs(text[at] << 32 | code[at] << 16 | code[at + 1])[0]
    return _runs(in_texts & 0xFFFFFFFF)


def _runs(numbers: Numbers) -> tuple[Numbers, Numbers]:
    """Return the different numbers, and how often each comes, by sorting: faster than `unique`."""
    ordered = np.sort(numbers)
    first = np.flatnonzero(np.diff(ordered, prepend=-1))
    return ordered[first], np.diff(first, append=len(ordered))


class Sounds:
    """Correct questions towards the pairs of characters that an index knows."""

    def __init__(self, pairs: Pairs) -> None:
        self._pairs = pairs

    @cached_property
    def _by_sound(self) -> dict[tuple[str, str], list[str]]:
        """Return the pairs of each sound, the commonest first."""
        found: dict[tuple[str, str], list[str]] = {}
        for pair in sorted(self._pairs, key=lambda pair: (-self._pairs[pair], pair)):
            for sound in _sounds(pair):
                found.setdefault(sound, []).append(pair)
        return found

    def correct(self, text: str, known: Callable[[str], bool] = lambda _: False) -> str:
        """Return folded text with errors of sound put right.

        Letters that are all words of the index (`known`) are left alone.
        """
        if text.isascii() and not _SPELLED.search(text):
            return text
        spelt = _SPELLED.sub(lambda found: self._read(found[0], known), text)
        return _HAN.sub(lambda found: self._mend(found[0]), spelt)

    def _read(self, letters: str, known: Callable[[str], bool]) -> str:
        """Return the characters that a run of pinyin stands for; the run itself if it is none."""
        words = _LETTERS.findall(letters)
        # In plain English the first word or the second is no Mandarin: all() stops there.
        if not all(map(spelled, words)) or all(map(known, words)):
            return letters
        sounds = [merged(syllable) for word in words for syllable in spelled(word)]
        read, last = "", ""
        for at in range(len(sounds) - 1):
            near = self._by_sound.get((sounds[at], sounds[at + 1]), [])
            joined = next((pair for pair in near if pair[0] == last), "")
            if joined:
                read, last = read + joined[1], joined[1]
            elif not last and (whole := [pair for pair in near if self._word(pair)]):
                read, last = read + whole[0], whole[0][1]
            else:
                last = ""
        return read if 2 * len(read) > len(sounds) else letters

    def _mend(self, run: str) -> str:
        for at in range(len(run) - 1):
            pair = run[at : at + 2]
            if (
                not self._spoken(pair)
                and _PARTICLES.isdisjoint(pair)
                and (better := self._better(run, at, pair))
            ):
                run = run[:at] + better + run[at + 2 :]
        return run

    def _spoken(self, pair: str) -> bool:
        return pair in self._pairs or pair in _words()

    def _word(self, pair: str) -> bool:
        return pair in _words() or self._pairs.get(pair, 0) >= _OFTEN

    def _better(self, run: str, at: int, pair: str) -> str:
        """Return the word of the same sound; "" when there is none or a neighbour would be torn."""
        near = {p for sound in _sounds(pair) for p in self._by_sound.get(sound, [])}
        near = {p for p in near if self._word(p) and (p[0] == pair[0]) != (p[1] == pair[1])}
        if not near:
            return ""
        better = max(near, key=lambda p: (self._pairs[p], p))
        if better[0] != pair[0] and at and self._spoken(run[at - 1] + pair[0]):
            return ""
        behind = run[at + 2 : at + 3]
        return "" if better[1] != pair[1] and self._spoken(pair[1] + behind) else better


def _sounds(pair: str) -> Iterator[tuple[str, str]]:
    """Yield the merged sounds of a pair, for every reading of its characters."""
    return product(_heard(pair[0]), _heard(pair[1]))


@lru_cache(maxsize=10_000)
def _heard(character: str) -> tuple[str, ...]:
    return tuple(sorted(set(map(merged, _readings().get(character, ())))))
