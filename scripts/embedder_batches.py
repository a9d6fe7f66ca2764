"""Hold tokenised texts as flat arrays and draw batches of them: pairs, crops, intents, groups.

A text is a span (begin, length) of one flat array of token ids, so that a crop of a text is a span
too and nothing is copied. Every batch is a function of its random generator alone.
"""

import hashlib
import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from embedder_data import Intent, Pair
from numpy.typing import NDArray
from scipy import sparse
from tokenizers import Tokenizer

from assistant.fold import simplify

Numbers = NDArray[np.int64]
Random = np.random.Generator
_AT_ONCE = 20_000


@dataclass(frozen=True, slots=True)
class Spans:
    """Hold where texts begin in the flat ids and how many tokens they have."""

    begins: Numbers
    lengths: Numbers

    def __len__(self) -> int:
        return len(self.begins)

    def __getitem__(self, chosen: Numbers) -> "Spans":
        return Spans(self.begins[chosen], self.lengths[chosen])

    def cut(self, longest: int) -> "Spans":
        """Return the spans shortened to `longest` tokens."""
        return Spans(self.begins, np.minimum(self.lengths, longest))


@dataclass(frozen=True, slots=True)
class Batch:
    """Hold anchors, their positives row by row, and negatives that belong to no row."""

    anchors: Spans
    positives: Spans
    negatives: Spans
    kind: str


@dataclass(frozen=True, slots=True)
class Pairs:
    """Hold pairs as spans, with their group: one kind and one source."""

    anchors: Spans
    positives: Spans
    groups: Numbers
    names: tuple[str, ...]
    """Of each group, `kind source`."""

    def kind(self, group: int) -> str:
        """Return the kind of a group."""
        return self.names[group].split(" ")[0]

    def kinds(self) -> NDArray[np.str_]:
        """Return the kind of every pair."""
        kinds = np.array([self.kind(group) for group in range(len(self.names))])
        return kinds[self.groups]


class Texts:
    """Collect token ids of texts in one flat array."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self._parts: list[NDArray[np.int32]] = []
        self._size = 0

    def add(self, texts: Sequence[str], longest: int) -> Spans:
        """Tokenise texts (at most `longest` tokens of each are kept) and return their spans."""
        lengths: list[int] = []
        for begin in range(0, len(texts), _AT_ONCE):
            part = [simplify(text[: longest * 8]) for text in texts[begin : begin + _AT_ONCE]]
            encodings = self.tokenizer.encode_batch_fast(part, add_special_tokens=False)
            rows = [encoding.ids[:longest] for encoding in encodings]
            lengths += map(len, rows)
            self._parts.append(np.fromiter(itertools.chain.from_iterable(rows), np.int32))
        sizes = np.array(lengths, dtype=np.int64)
        begins = self._size + np.cumsum(sizes) - sizes
        self._size += int(sizes.sum())
        return Spans(begins, sizes)

    def restore(self, ids: NDArray[np.int32]) -> None:
        """Put ids back that were tokenised in an earlier run."""
        self._parts.append(ids)
        self._size += len(ids)

    def flat(self) -> NDArray[np.int32]:
        """Return all ids."""
        self._parts = [np.concatenate(self._parts)] if self._parts else [np.zeros(0, np.int32)]
        return self._parts[0]


def read_pairs(pairs: Iterable[Pair], texts: Texts, longest: int) -> Pairs:
    """Tokenise pairs, group by group."""
    anchors, positives, groups = [], [], []
    numbers: dict[str, int] = {}
    for part in batched(pairs, _AT_ONCE):
        anchors.append(texts.add([pair.anchor for pair in part], longest))
        positives.append(texts.add([pair.positive for pair in part], longest))
        groups += [numbers.setdefault(f"{pair.kind} {pair.source}", len(numbers)) for pair in part]
    return Pairs(joined(anchors), joined(positives), np.array(groups, dtype=np.int64), (*numbers,))


def batched(items: Iterable[Pair], size: int) -> Iterator[list[Pair]]:
    """Yield lists of `size` items, the last one shorter."""
    iterator = iter(items)
    while part := list(itertools.islice(iterator, size)):
        yield part


def joined(parts: Sequence[Spans]) -> Spans:
    """Return spans one after the other."""
    if not parts:
        return Spans(np.zeros(0, np.int64), np.zeros(0, np.int64))
    return Spans(
        np.concatenate([part.begins for part in parts]),
        np.concatenate([part.lengths for part in parts]),
    )


def kept_pairs(pairs: Iterable[Pair], texts: Texts, longest: int, folder: Path, name: str) -> Pairs:
    """Return the tokenised pairs, from disk when the same were tokenised before."""
    tokenizer = texts.tokenizer.to_str().encode()
    digest = hashlib.sha256(tokenizer + f"{name} {longest}".encode()).hexdigest()[:16]
    path = folder / f"pairs-{digest}.npz"
    if path.exists():
        kept = np.load(path)
        texts.restore(kept["ids"])
        sides = [Spans(kept[f"{s}_begins"], kept[f"{s}_lengths"]) for s in ("a", "p")]
        return Pairs(sides[0], sides[1], kept["groups"], tuple(map(str, kept["names"])))
    made = read_pairs(pairs, texts, longest)
    unfinished = folder / f"pairs-{digest}.tmp.npz"
    np.savez(
        unfinished,
        ids=texts.flat(),
        a_begins=made.anchors.begins,
        a_lengths=made.anchors.lengths,
        p_begins=made.positives.begins,
        p_lengths=made.positives.lengths,
        groups=made.groups,
        names=np.array(made.names),
    )
    os.replace(unfinished, path)
    return made


def incidence(spans: Spans, ids: NDArray[np.int32], pieces: int) -> sparse.csr_matrix:
    """Return (texts, pieces) of 0 and 1: which piece occurs in which text."""
    flat = ids[flat_places(spans)]
    indptr = np.concatenate([[0], np.cumsum(spans.lengths)])
    matrix = sparse.csr_matrix(
        (np.ones(len(flat), np.float32), flat, indptr), shape=(len(spans), pieces)
    )
    matrix.sum_duplicates()
    matrix.data[:] = 1
    return matrix


def flat_places(spans: Spans) -> Numbers:
    """Return the places in the flat ids of all tokens of the spans, one span after the other."""
    ends = np.cumsum(spans.lengths)
    places: Numbers = np.repeat(spans.begins - ends + spans.lengths, spans.lengths)
    return places + np.arange(int(spans.lengths.sum()))


def pair_batches(
    pairs: Pairs, size: int, weights: dict[str, float], share: float, random: Random
) -> list[Numbers]:
    """Return the numbers of the pairs of each batch: one kind and source each, in random order.

    `weights` repeats (or thins) kinds; `share` is the part of all pairs that is used. What is left
    of small sources is joined within its kind.
    """
    batches: list[Numbers] = []
    small: dict[str, list[Numbers]] = {}
    for group in range(len(pairs.names)):
        members = np.flatnonzero((pairs.groups == group) & (pairs.positives.lengths > 0))
        members = members[pairs.anchors.lengths[members] > 0]
        wanted = int(len(members) * weights.get(pairs.kind(group), 1.0) * share)
        order = np.concatenate(
            [random.permutation(members) for _ in range(-(-wanted // max(len(members), 1)))]
            or [members[:0]]
        )[:wanted]
        whole = len(order) // size * size
        batches += list(order[:whole].reshape(-1, size))
        small.setdefault(pairs.kind(group), []).append(order[whole:])
    for _, rest in sorted(small.items()):
        order = random.permutation(np.concatenate(rest))
        batches += [order[i : i + size] for i in range(0, len(order), size)]
    batches = [batch for batch in batches if len(batch) >= size // 16]
    return [batches[i] for i in random.permutation(len(batches))]


def pair_batch(pairs: Pairs, chosen: Numbers) -> Batch:
    """Return the batch of chosen pairs."""
    kind = pairs.kind(int(pairs.groups[chosen[0]]))
    return Batch(pairs.anchors[chosen], pairs.positives[chosen], joined([]), kind)


def crop_batch(pairs: Pairs, chosen: Numbers, random: Random) -> Batch:
    """Return crops of 4 to 12 tokens of passages → the passages."""
    passages = pairs.positives[chosen]
    widths = np.minimum(random.integers(4, 13, len(passages)), passages.lengths)
    offsets = (random.random(len(passages)) * (passages.lengths - widths + 1)).astype(np.int64)
    return Batch(Spans(passages.begins + offsets, widths), passages, joined([]), "crop")


@dataclass(frozen=True, slots=True)
class Asked:
    """Hold an intent as spans: numbers into `Texts`."""

    passages: Spans
    questions: Spans
    near_misses: Spans


def read_asked(intents: Sequence[Intent], texts: Texts, longest: int) -> list[Asked]:
    """Tokenise intents."""
    everything = [t for i in intents for t in (*i.passages, *i.questions, *i.near_misses)]
    spans = texts.add(everything, longest)
    found, at = [], 0
    for intent in intents:
        parts = []
        for texts_of in (intent.passages, intent.questions, intent.near_misses):
            chosen = np.arange(at, at + len(texts_of))
            parts.append(spans[chosen[spans.lengths[chosen] > 0]])
            at += len(texts_of)
        found.append(Asked(*parts))
    return found


def intent_batch(asked: Sequence[Asked], size: int, passages: float, random: Random) -> Batch:
    """Return one pair of each of `size` intents and a near miss of each.

    A share `passages` of the pairs is question → passage (one in five in the other language), the
    rest is question ↔ question. An intent comes once, or its questions became false negatives.
    """
    anchors, positives, negatives = [], [], []
    for i in random.permutation(len(asked))[:size]:
        intent = asked[i]
        if len(intent.questions) < 2:
            continue
        one, other = random.choice(len(intent.questions), 2, replace=False)
        anchors.append(_one(intent.questions, one))
        if len(intent.passages) and random.random() < passages:
            language = int(random.random() < 0.2 and len(intent.passages) > 1)
            positives.append(_one(intent.passages, language))
        else:
            positives.append(_one(intent.questions, other))
        if len(intent.near_misses):
            negatives.append(_one(intent.near_misses, random.integers(len(intent.near_misses))))
    return Batch(joined(anchors), joined(positives), joined(negatives), "intent")


def _one(spans: Spans, number: int) -> Spans:
    return spans[np.array([number])]
