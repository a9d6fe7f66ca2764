"""Rank the same rows by words: BM25 (Robertson & Zaragoza 2009) in tantivy, on bigrams.

tantivy has no Chinese tokenizer, so it is fed space-joined terms of `fold.terms`. Its BM25 has
k1 = 1.2, b = 0.75, idf = ln(1 + (N - n + 0.5) / (n + 0.5)), and keeps a text's length in one byte:
exact up to 40 terms, rounded down above (Lucene's norm encoding).
"""

import errno
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import tantivy

from assistant.errors import IndexUnusable
from assistant.fold import fold, terms

_HEAP_BYTES = 256 * 2**20
_TERMS = "terms"
_ROW = "row"
# From so many rows on, a term that more than this share of them has costs more than it tells.
_LARGE, _COMMON = 50_000, 0.05


def _schema() -> tantivy.Schema:
    builder = tantivy.SchemaBuilder()
    builder.add_text_field(_TERMS, tokenizer_name="whitespace", index_option="freq")
    builder.add_unsigned_field(_ROW, stored=False, indexed=False, fast=True)
    return builder.build()


class Lexical:
    """Search rows by BM25; scores are raw, higher is better, 0 for rows that share no term."""

    def __init__(self, index: tantivy.Index) -> None:
        self._index = index
        self._schema = index.schema
        self._searcher = index.searcher()
        self._idf: dict[str, float] = {}

    @classmethod
    def build(cls, folder: Path, texts: Iterable[str]) -> "Lexical":
        """Write an index of the texts, row by row, into a new folder; OSError when it fails."""
        folder.mkdir(parents=True)
        try:
            index = tantivy.Index(_schema(), path=str(folder))
            writer = index.writer(_HEAP_BYTES, num_threads=1)
            for row, text in enumerate(texts):
                document = tantivy.Document()
                document.add_text(_TERMS, " ".join(terms(fold(text))))
                document.add_unsigned(_ROW, row)
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
        return int(self._searcher.num_docs)

    def idf(self, term: str) -> float:
        """Return the BM25 weight of a term; a term that no row has gets the largest."""
        if (known := self._idf.get(term)) is not None:
            return known
        count = self._searcher.doc_freq(_TERMS, term)
        weight = math.log(1 + (len(self) - count + 0.5) / (count + 0.5))
        if len(self._idf) < 100_000:
            self._idf[term] = weight
        return weight

    def telling(self, query_terms: Iterable[str]) -> list[str]:
        """Return the terms to look for: in a large index not the common ones, unless all are."""
        wanted = list(query_terms)
        if len(self) < _LARGE:
            return wanted
        common = _COMMON * len(self)
        rare = [term for term in wanted if self._searcher.doc_freq(_TERMS, term) <= common]
        return rare or wanted

    def known(self, term: str) -> bool:
        """Tell whether any row has the term."""
        return bool(self._searcher.doc_freq(_TERMS, term))

    def search(self, query_terms: Sequence[str], k: int) -> list[tuple[int, float]]:
        """Return (row, BM25) pairs, best first, ties by lower row; at most `k`."""
        wanted = dict.fromkeys(query_terms)
        if not wanted or not len(self):
            return []
        query = tantivy.Query.boolean_query(
            [
                (tantivy.Occur.Should, tantivy.Query.term_query(self._schema, _TERMS, term, "freq"))
                for term in wanted
            ]
        )
        found = self._searcher.search(query, limit=k, count=False).hits
        rows = self._searcher.fast_field_values(_ROW, [address for _, address in found])
        return sorted(
            ((int(row or 0), float(score)) for row, (score, _) in zip(rows, found, strict=True)),
            key=lambda pair: (-pair[1], pair[0]),
        )
