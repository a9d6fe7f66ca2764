"""Give every piece a first vector from counts alone: its rarity, its characters, its translations.

Training starts from rows that already work as a lexical model (random directions, long where a
piece is rare), in which a compound leans to its characters and an English word lies where its
Chinese translations lie. The translations are read off the aligned pairs: pieces that occur
together more often than chance. Small steps from here keep what a few hundred batches cannot teach.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

Rows = NDArray[np.float32]
Matrix = Any
"""A scipy sparse matrix (scipy ships no types)."""

_TRANSLATIONS = 6
_CHANCE = 8.0
_SEEN = 0.6


@dataclass(frozen=True, slots=True)
class Weights:
    """Say how much of a first vector is a piece's own, its synonyms', or chance."""

    own: float
    synonyms: float
    noise: float


def is_chinese(piece: str) -> bool:
    """Tell whether a piece is written in Han characters."""
    return "\u4e00" <= piece[0] <= "\u9fff"


def characters_of(pieces: Sequence[str]) -> Matrix:
    """Return (pieces, pieces): the mean of the characters of every Chinese compound."""
    number = {p: i for i, p in enumerate(pieces) if len(p) == 1 and is_chinese(p)}
    rows, columns, values = [], [], []
    for i, piece in enumerate(pieces):
        if len(piece) > 1 and is_chinese(piece):
            known = [number[c] for c in piece if c in number]
            rows += [i] * len(known)
            columns += known
            values += [1 / len(known)] * len(known)
    size = len(pieces)
    return sparse.csr_matrix((values, (rows, columns)), shape=(size, size), dtype=np.float32)


def rarity(occurrences: NDArray[np.float64], log_shares: Sequence[float]) -> NDArray[np.float32]:
    """Return minus the log frequency of every piece over its mean; the first two pieces are 0.

    The frequency is the mean of what the training texts say and what the vocabulary's scores say.
    """
    shares = np.exp(np.array(log_shares))
    shares[:2] = 0
    mixed = (occurrences / max(occurrences.sum(), 1) + shares / shares.sum()) / 2
    weights = -np.log(mixed + 1e-6)
    weights /= weights[2:].mean()
    weights = np.clip(weights, 0.1, None)
    weights[:2] = 0
    return np.asarray(weights, dtype=np.float32)


def translations(pieces: Sequence[str], first: Matrix, second: Matrix) -> tuple[Matrix, Matrix]:
    """Return English → Chinese and Chinese → English weights; rows add up to 1 or are empty.

    `first` and `second` are (pairs, pieces) of 0 and 1: the two sides of the aligned pairs.
    """
    english = np.array([i > 1 and "a" <= p[0] <= "z" for i, p in enumerate(pieces)])
    chinese = np.array([is_chinese(p) for p in pieces])
    together: Matrix = 0
    english_total, chinese_total = np.zeros(len(pieces)), np.zeros(len(pieces))
    for one, other in ((first, second), (second, first)):
        left, right = one @ _only(english), other @ _only(chinese)
        lengths = np.asarray(right.sum(axis=1)).ravel()
        used = (lengths > 0) & (np.asarray(left.sum(axis=1)).ravel() > 0)
        weighed = sparse.diags_array((1 / np.sqrt(lengths[used])).astype(np.float32)) @ left[used]
        together = weighed.T @ right[used] + together
        english_total += np.asarray(weighed.sum(axis=0)).ravel()
        chinese_total += (1 / np.sqrt(lengths[used])) @ right[used]
    forward = _strongest(together.tocsr(), english_total, chinese_total)
    backward = _strongest(together.T.tocsr(), chinese_total, english_total)
    return forward, backward


def _only(chosen: NDArray[np.bool_]) -> Matrix:
    return sparse.diags_array(chosen.astype(np.float32))


def _strongest(together: Matrix, left: NDArray[np.float64], right: NDArray[np.float64]) -> Matrix:
    """Keep the few partners of each piece that occur with it most often beyond chance."""
    rows, columns, values = [], [], []
    for i in np.flatnonzero((left >= _SEEN) & (np.diff(together.indptr) > 0)):
        span = slice(together.indptr[i], together.indptr[i + 1])
        partners = together.indices[span]
        sizes = np.sqrt(left[i] * right[partners])
        strength = together.data[span] / sizes - _CHANCE * sizes / right.sum()
        best = np.argsort(-strength, kind="stable")[:_TRANSLATIONS]
        kept = np.clip(strength[best], 0, None) ** 2
        if kept.sum() > 0:
            rows += [i] * len(best)
            columns += partners[best].tolist()
            values += (kept / kept.sum()).tolist()
    return sparse.csr_matrix((values, (rows, columns)), shape=together.shape, dtype=np.float32)


def first_rows(
    pieces: Sequence[str],
    rarities: NDArray[np.float32],
    pair: tuple[Matrix, Matrix],
    dimensions: int,
    weights: Weights,
    seed: int,
) -> Rows:
    """Return the first vector of every piece, as long as the piece is rare."""
    shape = (len(pieces), dimensions)
    chance = unit(np.random.default_rng(seed).standard_normal(shape, dtype=np.float32))
    parts = characters_of(pieces)
    compound = _filled(parts)
    rows = chance.copy()
    rows[compound] = unit(weights.own * chance + unit(parts @ chance))[compound]
    to_chinese, to_english = pair
    synonyms = to_english @ to_chinese
    rows = unit(rows + weights.synonyms * unit(synonyms @ rows))
    translated = _filled(to_chinese)
    rows[translated] = unit(unit(to_chinese @ rows) + weights.noise * chance)[translated]
    scaled: Rows = rows * rarities[:, None]
    return scaled


def _filled(matrix: Matrix) -> NDArray[np.bool_]:
    filled: NDArray[np.bool_] = np.diff(matrix.tocsr().indptr) > 0
    return filled


def unit(rows: Rows) -> Rows:
    """Return rows of length 1; zero rows stay."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    lengths[lengths == 0] = 1
    scaled: Rows = rows / lengths
    return scaled
