"""Rank the same rows by words: BM25 (Robertson & Zaragoza 2009) in tantivy, on bigrams.

tantivy has no Chinese tokenizer, so it is fed space-joined terms of `fold.terms`. Its BM25 has
k1 = 1.2, b = 0.75, idf = ln(1 + (N - n + 0.5) / (n + 0.5)), and keeps a text's length in one byte:
exact up to 40 terms, rounded down above (Lucene's norm encoding).
"""

import errno
import math
from collections.abc import Iterable
from functools import lru_cache, partial
from itertools import count
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import tantivy

from assistant.errors import IndexUnusable
from assistant.fold import terms
from assistant.store import Rows, Scores

_HEAP_BYTES = 256 * 2**20
_TERMS = "terms"
_ROW = "row"
_OWNER = "owner"
_REMEMBERED = 50_000  # terms
_NOTHING: tuple[Rows, Scores] = (np.zeros(0, np.int64), np.zeros(0, np.float32))


def _schema() -> tantivy.Schema:
    builder = tantivy.SchemaBuilder()
    builder.add_text_field(_TERMS, tokenizer_name="whitespace", index_option="freq")
    builder.add_unsigned_field(_ROW, stored=False, indexed=False, fast=True)
    builder.add_text_field(_OWNER, tokenizer_name="raw", index_option="basic")
    return builder.build()


class Words(Protocol):
    """Rank rows by BM25, raw, higher is better; as tantivy has it, whoever works it out."""

    def __len__(self) -> int:
        """Return the number of rows."""

    def idf(self, term: str) -> float:
        """Return the BM25 weight of a term; a term that no row has gets the largest."""

    def known(self, term: str) -> bool:
        """Tell whether any row has the term."""

    def search(self, query_terms: Iterable[str], k: int) -> tuple[Rows, Scores]:
        """Return rows and their BM25, best first, ties by lower row; at most `k`."""

    def scores(
        self, query_terms: Iterable[str], owners: Iterable[int], k: int
    ) -> tuple[Rows, Scores]:
        """Return the rows of some passages that share a term, and their BM25, best first."""


class Lexical:
    """Search rows by BM25; scores are raw, higher is better, 0 for rows that share no term."""

    def __init__(self, index: tantivy.Index) -> None:
        self._index = index
        self._schema = index.schema
        self._searcher = index.searcher()
        self._count = int(self._searcher.num_docs)
        self._frequency = lru_cache(_REMEMBERED)(partial(self._searcher.doc_freq, _TERMS))
        self._term = lru_cache(_REMEMBERED)(
            lambda term: tantivy.Query.term_query(self._schema, _TERMS, term, "freq")
        )

    @classmethod
    def build(
        cls, folder: Path, texts: Iterable[str], owners: Iterable[int] | None = None
    ) -> "Lexical":
        """Write an index of folded texts, row by row, into a new folder; OSError when it fails.

        `owners` says which passage each row belongs to; itself when not given.
        """
        folder.mkdir(parents=True)
        try:
            index = tantivy.Index(_schema(), path=str(folder))
            writer = index.writer(_HEAP_BYTES, num_threads=1)
            for row, (text, owner) in enumerate(zip(texts, owners or count(), strict=False)):
                document = tantivy.Document()
                document.add_text(_TERMS, " ".join(terms(text)))
                document.add_unsigned(_ROW, row)
                document.add_text(_OWNER, str(owner))
                writer.add_document(document)
            writer.commit()
            writer.wait_merging_threads()
            index.reload()
        except ValueError as error:  # how tantivy reports input and output errors
            raise OSError(errno.EIO, str(error), str(folder)) from None
        return cls(index)

    @classmethod
    def open(cls, folder: Path) -> "Lexical":
        """Open the folder that `build` wrote; its files' hashes must have been checked before."""
        try:
            return cls(tantivy.Index.open(str(folder)))
        except ValueError as error:
            raise IndexUnusable(
                f"cannot read {folder.name}/: {error}. Rebuild with: assistant build"
            ) from None

    def __len__(self) -> int:
        return self._count

    def idf(self, term: str) -> float:
        """Return the BM25 weight of a term; a term that no row has gets the largest."""
        return self._weight(self._frequency(term))

    def known(self, term: str) -> bool:
        """Tell whether any row has the term."""
        return self._frequency(term) > 0

    def search(self, query_terms: Iterable[str], k: int) -> tuple[Rows, Scores]:
        """Return rows and their BM25, best first, ties by lower row; at most `k`."""
        wanted = self._any_of(query_terms)
        return self._found(tantivy.Query.boolean_query(wanted), k) if wanted else _NOTHING

    def scores(
        self, query_terms: Iterable[str], owners: Iterable[int], k: int
    ) -> tuple[Rows, Scores]:
        """Return the rows of some passages that share a term, and their BM25, best first."""
        wanted = self._any_of(query_terms)
        names = [str(owner) for owner in owners]
        if not wanted or not names:
            return _NOTHING
        within = tantivy.Query.const_score_query(
            tantivy.Query.term_set_query(self._schema, _OWNER, names), 0.0
        )
        query = tantivy.Query.boolean_query([(tantivy.Occur.Must, within), *wanted])
        rows, scores = self._found(query, k)
        return rows[scores > 0], scores[scores > 0]

    def _weight(self, rows: int) -> float:
        return math.log(1 + (self._count - rows + 0.5) / (rows + 0.5))

    def _any_of(self, query_terms: Iterable[str]) -> list[tuple[Any, Any]]:
        return [(tantivy.Occur.Should, self._term(term)) for term in dict.fromkeys(query_terms)]

    def _found(self, query: Any, k: int) -> tuple[Rows, Scores]:
        if not len(self) or k < 1:
            return _NOTHING
        found = self._searcher.search(query, limit=k, count=False).hits
        places = self._searcher.fast_field_values(_ROW, [address for _, address in found])
        rows = np.array(places, dtype=np.int64)
        scores = np.array([score for score, _ in found], dtype=np.float32)
        order = np.lexsort((rows, -scores))
        return rows[order], scores[order]
