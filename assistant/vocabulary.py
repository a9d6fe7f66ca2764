"""Weigh words by BM25 for a store that multiplies sparse vectors: the scores that tantivy gives.

A row's vector holds how much each of its terms counts in it, a question's vector the idf of its
terms; their product is BM25 as `lexical.py` has it, a text's length kept in one byte included. The
numbers of the dimensions and how many rows have each term lie in one mapped file.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from assistant.errors import IndexUnusable
from assistant.fold import terms

Sparse = dict[int, float]
"""Dimension → weight."""

NO_TERM = 0
"""The dimension of a row without a term: stores take no empty vector. No question asks for it."""

_K1, _B = 1.2, 0.75
_EXACT, _FREE = 40, 24  # lengths below the first are kept as they are, see Lucene's SmallFloat
_REMEMBERED = 50_000  # terms
_ENTRY = 8 + 4  # bytes: a term's hash, the number of rows that have it


class Vocabulary:
    """Know the terms of all rows: their dimensions and their weights."""

    def __init__(
        self, hashes: NDArray[np.uint64], rows: NDArray[np.int32], count: int, average: float
    ) -> None:
        """Take the hashes of the terms in ascending order and how many of `count` rows have each.

        `average` is the mean length of a row, in terms.
        """
        self._hashes, self._rows = hashes, rows
        self.count, self.average = count, average
        self._place = lru_cache(_REMEMBERED)(self._find)

    @classmethod
    def build(cls, texts: Iterable[str]) -> "Vocabulary":
        """Count the terms of every row's folded text."""
        having: Counter[str] = Counter()
        count = length = 0
        for text in texts:
            words = terms(text)
            having.update(set(words))
            count, length = count + 1, length + len(words)
        hashed = {_hash(term): rows for term, rows in having.items()}
        if len(hashed) < len(having):
            raise AssertionError("two terms have the same hash")
        hashes = np.array(sorted(hashed), dtype=np.uint64)
        rows = np.array([hashed[number] for number in hashes.tolist()], dtype=np.int32)
        return cls(hashes, rows, count, length / count if count else 0.0)

    @classmethod
    def open(cls, path: Path, count: int, average: float) -> "Vocabulary":
        """Map what `write` wrote; the file's hash must have been checked before."""
        try:
            size, rest = divmod(path.stat().st_size, _ENTRY)
            if rest:
                raise ValueError("its size is odd")
            if not size:
                return cls(np.zeros(0, np.uint64), np.zeros(0, np.int32), count, average)
            hashes = np.memmap(path, "<u8", "r", 0, (size,))
            rows = np.memmap(path, "<i4", "r", 8 * size, (size,))
        except (OSError, ValueError) as error:
            raise IndexUnusable(
                f"cannot read {path.name}: {error}. Rebuild with: assistant build"
            ) from None
        return cls(np.asarray(hashes), np.asarray(rows), count, average)

    def write(self, path: Path) -> None:
        """Write the terms to a new file."""
        with path.open("wb") as file:
            self._hashes.astype("<u8").tofile(file)
            self._rows.astype("<i4").tofile(file)

    def __len__(self) -> int:
        """Return the number of terms."""
        return len(self._hashes)

    def idf(self, term: str) -> float:
        """Return the BM25 weight of a term; a term that no row has gets the largest."""
        rows = self._place(term)[1]
        return math.log(1 + (self.count - rows + 0.5) / (rows + 0.5))

    def known(self, term: str) -> bool:
        """Tell whether any row has the term."""
        return self._place(term)[1] > 0

    def asked(self, query_terms: Iterable[str]) -> Sparse:
        """Return the vector of a question: the idf of its terms, less those that no row has."""
        return {
            self._place(term)[0]: self.idf(term)
            for term in dict.fromkeys(query_terms)
            if self.known(term)
        }

    def held(self, text: str) -> Sparse:
        """Return the vector of a row by its folded text: how much each of its terms counts."""
        found = Counter(terms(text))
        if not found:
            return {NO_TERM: 1.0}
        share = _kept(found.total()) / self.average
        damped = _K1 * (1 - _B + _B * share)
        return {
            self._place(term)[0]: often * (_K1 + 1) / (often + damped)
            for term, often in found.items()
        }

    def _find(self, term: str) -> tuple[int, int]:
        """Return the dimension of a term and how many rows have it; (0, 0) when none has."""
        number = _hash(term)
        place = int(np.searchsorted(self._hashes, np.uint64(number)))
        if place == len(self._hashes) or int(self._hashes[place]) != number:
            return NO_TERM, 0
        return place + 1, int(self._rows[place])


def _hash(term: str) -> int:
    digest = hashlib.blake2b(term.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def _kept(length: int) -> int:
    """Return a length as one byte keeps it: three bits behind the first one."""
    if length < _EXACT:
        return length
    shift = (length - _FREE).bit_length() - 4
    return _FREE + ((length - _FREE) >> shift << shift)
