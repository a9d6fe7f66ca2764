"""Serve the rows of an index from Milvus: cosines and BM25 of the same views in one collection.

The texts of a generation stay in its folder, and the pointer file of `index/` stays the one truth
about what is served. The folder names its collection before that is made, so that whatever a killed
build left is known by a folder. An alias follows the pointer, for others who look in.
"""

import json
import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from assistant import generations
from assistant.errors import IndexUnusable
from assistant.fold import terms
from assistant.milvus import PutAway, Server, library, server_of
from assistant.records import Chunk, View
from assistant.settings import Settings
from assistant.store import Rows, Scores, Vectors
from assistant.vocabulary import Sparse, Vocabulary

COLLECTION, TERMS = "collection.json", "terms.bin"

_log = logging.getLogger(__name__)
_EXACT = 300_000  # views up to which a question is compared with every vector
_GRAPH = {"M": 16, "efConstruction": 200}
_LEAST_EF = 128
_BATCH = 1000  # rows sent, or fetched, at once
_MOST = 16_384  # rows that Milvus gives at most
_LONGEST = 65_535  # bytes of a text field
_MOST_HEADINGS = 64
_STEP_SECONDS = 600.0  # for one step of a build
_SAMPLED = 16
_AGREE = 1e-3  # of scores, which may be added up in another order
_REBUILD = "Rebuild with: assistant build"


@dataclass(frozen=True, slots=True)
class Card:
    """Hold what the folder of a generation says of its collection.

    `average` is the mean length of a row in terms, `sample` the hash of some of the vectors.
    """

    name: str
    rows: int
    dimensions: int
    average: float
    sample: str


class Collection:
    """Ask one collection; have it loaded again where the server has put it away."""

    def __init__(self, server: Server, card: Card) -> None:
        self.server, self.card = server, card

    def call(self, method: str, seconds: float | None = None, **named: Any) -> Any:
        """Call a method of the client on this collection (see `Server.call`)."""
        try:
            return self.server.call(method, self.card.name, seconds=seconds, **named)
        except PutAway:
            self.server.call("load_collection", self.card.name)
            return self.server.call(method, self.card.name, seconds=seconds, **named)

    def search(
        self, field: str, queries: list[Any], k: int, only: str
    ) -> list[tuple[Rows, Scores]]:
        """Return rows and scores for each query, best first, ties by lower row."""
        limit = min(k, _MOST)
        found = self.call(
            "search",
            data=queries,
            anns_field=field,
            filter=only,
            limit=limit,
            output_fields=["row"],
            search_params={"metric_type": "IP", "params": {"ef": max(limit, _LEAST_EF)}},
        )
        return [_ranked(np.array(one.ids, np.int64), one.distances) for one in found]


def _ranked(rows: Rows, distances: Sequence[float]) -> tuple[Rows, Scores]:
    scores = np.array(distances, dtype=np.float32)
    order = np.lexsort((rows, -scores))
    return rows[order], scores[order]


# --- Searching -----------------------------------------------------------------------------------


class MilvusStore:
    """Search the vectors of a collection: exactly up to 300,000 rows, above by a graph (HNSW)."""

    def __init__(self, collection: Collection, only: str = "") -> None:
        self.collection = collection
        self.dimensions = collection.card.dimensions
        self._only = only

    def __len__(self) -> int:
        return self.collection.card.rows

    def within(self, path: str = "", section: str = "") -> "MilvusStore":
        """Return a store that finds only rows of a document, or below a heading, or both."""
        wanted = [self._only] if self._only else []
        wanted += [f"path == {_quoted(path)}"] if path else []
        wanted += [f"array_contains(headings, {_quoted(section)})"] if section else []
        return MilvusStore(self.collection, " and ".join(wanted))

    def search(self, queries: Vectors, k: int) -> tuple[Scores, Rows]:
        """Find the best `k` rows of each query, fewer where a filter leaves fewer."""
        listed = list(np.ascontiguousarray(queries, dtype=np.float32))
        found = self.collection.search("vector", listed, min(k, len(self)), self._only)
        width = min(len(rows) for rows, _ in found)
        scores = np.array([scores[:width] for _, scores in found], dtype=np.float32)
        return scores, np.array([rows[:width] for rows, _ in found], dtype=np.int64)

    def vectors(self, rows: Iterable[int]) -> Vectors:
        """Fetch the vectors of rows."""
        wanted = np.fromiter(rows, dtype=np.int64)
        parts = [self._fetch(wanted[i : i + _BATCH]) for i in range(0, len(wanted), _BATCH)]
        return np.concatenate([np.zeros((0, self.dimensions), np.float32), *parts])

    def cosines(self, rows: Rows, query: Vectors) -> Scores:
        """Have the server compare: a number a row is less to send than a vector."""
        known: dict[int, float] = {}
        for begin in range(0, len(rows), _BATCH):
            part = rows[begin : begin + _BATCH].tolist()
            ((near, scores),) = self.collection.search(
                "vector", [query], len(part), f"row in {part}"
            )
            known.update(zip(near.tolist(), scores.tolist(), strict=True))
        if left := [row for row in rows.tolist() if row not in known]:  # a graph may not lead there
            exact = np.vecdot(self.vectors(left), query)
            known.update(zip(left, exact.tolist(), strict=True))
        return np.array([known[row] for row in rows.tolist()], dtype=np.float32)

    def matrix(self) -> Vectors:
        """Fetch all vectors."""
        return self.vectors(range(len(self)))

    def _fetch(self, rows: Rows) -> Vectors:
        wanted = np.unique(rows).tolist()
        found = self.collection.call("query", ids=wanted, output_fields=["row", "vector"])
        known = {one["row"]: one["vector"] for one in found}
        if len(known) < len(wanted):
            raise IndexUnusable(f"{_named(self.collection)} has lost rows. {_REBUILD}")
        return np.array([known[row] for row in rows.tolist()], dtype=np.float32)


class MilvusWords:
    """Search the same rows by BM25, as `Lexical` does."""

    def __init__(self, collection: Collection, vocabulary: Vocabulary) -> None:
        self.collection, self.vocabulary = collection, vocabulary

    def __len__(self) -> int:
        return self.collection.card.rows

    def idf(self, term: str) -> float:
        """Return the BM25 weight of a term; a term that no row has gets the largest."""
        return self.vocabulary.idf(term)

    def known(self, term: str) -> bool:
        """Tell whether any row has the term."""
        return self.vocabulary.known(term)

    def search(self, query_terms: Iterable[str], k: int) -> tuple[Rows, Scores]:
        """Return rows and their BM25, best first, ties by lower row; at most `k`."""
        return self._found(self.vocabulary.asked(query_terms), k, "")

    def scores(
        self, query_terms: Iterable[str], owners: Iterable[int], k: int
    ) -> tuple[Rows, Scores]:
        """Return the rows of some passages that share a term, and their BM25, best first."""
        only = sorted(map(int, owners))
        asked = self.vocabulary.asked(query_terms) if only else {}
        return self._found(asked, k, f"chunk in {only}")

    def _found(self, asked: Sparse, k: int, only: str) -> tuple[Rows, Scores]:
        if not asked or k < 1:
            return np.zeros(0, np.int64), np.zeros(0, np.float32)
        ((rows, scores),) = self.collection.search("words", [asked], k, only)
        return rows[scores > 0], scores[scores > 0]


def open_collection(folder: Path, settings: Settings) -> tuple[MilvusStore, MilvusWords]:
    """Open what the folder of a verified generation names; the server is not asked yet."""
    card = _read_card(folder)
    collection = Collection(server_of(settings), card)
    vocabulary = Vocabulary.open(folder / TERMS, card.rows, card.average)
    return MilvusStore(collection), MilvusWords(collection, vocabulary)


def require_whole(folder: Path, settings: Settings) -> None:
    """Raise IndexUnusable when the collection of a generation lacks rows or has others."""
    store, _ = open_collection(folder, settings)
    _check(store)


# --- Building ------------------------------------------------------------------------------------


def write_collection(
    folder: Path,
    name: str,
    settings: Settings,
    chunks: Sequence[Chunk],
    views: Sequence[View],
    folded: Sequence[str],
    vectors: Vectors,
) -> None:
    """Write the rows into a new collection, and what names it into the folder of a new generation.

    When this returns, the count and a self-test have agreed. `folded` are the views' texts, folded.
    """
    vocabulary = Vocabulary.build(folded)
    vocabulary.write(folder / TERMS)
    count, dimensions = vectors.shape
    sample = _hash(vectors[_places(count)])
    card = Card(name, count, dimensions, vocabulary.average, sample)
    collection = Collection(server_of(settings), card)
    if collection.call("has_collection"):
        raise IndexUnusable(f"{_named(collection)} is there already. Drop it, then build again")
    _write_card(folder, card)
    _create(collection)
    for begin in range(0, count, _BATCH):
        rows = range(begin, min(begin + _BATCH, count))
        data = [
            _row(i, views[i], chunks[views[i].chunk], vectors[i], vocabulary.held(folded[i]))
            for i in rows
        ]
        collection.call("insert", _STEP_SECONDS, data=data)
    collection.call("flush", _STEP_SECONDS)
    collection.call("create_index", _STEP_SECONDS, index_params=_indexes(count))
    collection.call("load_collection", _STEP_SECONDS)
    store, words = MilvusStore(collection), MilvusWords(collection, vocabulary)
    _check(store)
    _self_test(store, words, views, folded, vectors)


def _create(collection: Collection) -> None:
    client, kind = library().MilvusClient, library().DataType
    schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("row", kind.INT64, is_primary=True)
    schema.add_field("chunk", kind.INT64)
    schema.add_field("kind", kind.VARCHAR, max_length=16)
    schema.add_field("path", kind.VARCHAR, max_length=_LONGEST)
    headings = {"element_type": kind.VARCHAR, "max_capacity": _MOST_HEADINGS}
    schema.add_field("headings", kind.ARRAY, max_length=_LONGEST, **headings)
    schema.add_field("vector", kind.FLOAT_VECTOR, dim=collection.card.dimensions)
    schema.add_field("words", kind.SPARSE_FLOAT_VECTOR)
    # Rows never change once a collection is in use, so that none has to wait for the newest.
    collection.call("create_collection", _STEP_SECONDS, schema=schema, consistency_level="Bounded")


def _indexes(count: int) -> Any:
    index = library().MilvusClient.prepare_index_params()
    kind, params = ("FLAT", {}) if count <= _EXACT else ("HNSW", _GRAPH)
    index.add_index("vector", index_type=kind, metric_type="IP", params=params)
    index.add_index("words", index_type="SPARSE_INVERTED_INDEX", metric_type="IP")
    return index


def _row(number: int, view: View, chunk: Chunk, vector: Vectors, words: Sparse) -> dict[str, Any]:
    return {
        "row": number,
        "chunk": view.chunk,
        "kind": view.kind,
        "path": _fitting(chunk.path),
        "headings": [_fitting(heading) for heading in chunk.headings[:_MOST_HEADINGS]],
        "vector": np.asarray(vector, dtype=np.float32),
        "words": words,
    }


def _check(store: MilvusStore) -> None:
    """Refuse a collection that has another number of rows, or other vectors, than were written."""
    collection, card = store.collection, store.collection.card
    counted = collection.call("query", output_fields=["count(*)"], consistency_level="Strong")
    if (seen := int(counted[0]["count(*)"])) != card.rows:
        raise IndexUnusable(
            f"{_named(collection)} has {seen} rows, expected {card.rows}. {_REBUILD}"
        )
    if _hash(store.vectors(_places(card.rows))) != card.sample:
        raise IndexUnusable(f"{_named(collection)} has other vectors than were built. {_REBUILD}")


def _self_test(
    store: MilvusStore,
    words: MilvusWords,
    views: Sequence[View],
    folded: Sequence[str],
    vectors: Vectors,
) -> None:
    """Look for some rows by vector and by words; compare with the scores worked out here."""
    for row in _places(len(store)):
        vector, asked = np.asarray(vectors[row], dtype=np.float32), terms(folded[row])
        best = store.search(vector[None], 1)[0][0, 0]
        rows, scores = words.scores(asked, [views[row].chunk], _MOST)
        held = words.vocabulary.held(folded[row])
        expected = sum(held[i] * idf for i, idf in words.vocabulary.asked(asked).items())
        agree = best > vector @ vector - _AGREE
        if not agree or abs(scores[rows == row].sum() - expected) > _AGREE * (1 + expected):
            raise IndexUnusable(f"{_named(store.collection)} fails its self-test. {_REBUILD}")


def _places(count: int) -> list[int]:
    return sorted({int(i) for i in np.linspace(0, count - 1, _SAMPLED)})


def _hash(vectors: Vectors) -> str:
    return sha256(np.ascontiguousarray(vectors, dtype="<f4").tobytes()).hexdigest()


def _fitting(text: str) -> str:
    """Return as much of a text as a field takes."""
    return text.encode("utf-8", "replace")[:_LONGEST].decode("utf-8", "ignore")


def _quoted(text: str) -> str:
    return json.dumps(_fitting(text), ensure_ascii=False)


def _named(collection: Collection) -> str:
    return f"the collection {collection.card.name} of {collection.server.place}"


# --- Following the generations -------------------------------------------------------------------


def collection_name(generation: str, settings: Settings) -> str:
    """Return the name of the collection of a generation."""
    return f"{settings.milvus_name}_{generation.replace('-', '_')}"


def point_alias(folder: Path, settings: Settings) -> None:
    """Let the alias name the collection of the generation in use.

    Nothing that answers reads it: what goes wrong is logged, and the next build tries again.
    """
    try:
        _point(server_of(settings), settings.milvus_name, _name_in(folder))
    except IndexUnusable as error:
        _log.warning("the alias %s stays behind: %s", settings.milvus_name, error)


def release(folder: Path, settings: Settings) -> None:
    """Drop the collection of a generation's folder that is about to go.

    Kept is one that another folder names too. Raises AssistantError where it cannot be dropped
    now: the folder has to stay, so that the next build can try again.
    """
    name = _name_in(folder)
    others = (path.parent for path in folder.parent.glob("*/" + COLLECTION))
    if not name or name in {_name_in(other) for other in others if other != folder}:
        return
    if settings.milvus_uri is None:
        _log.warning("the collection %s stays in Milvus: no milvus_uri is set", name)
        return
    server, alias = server_of(settings), settings.milvus_name
    if _alias(server, alias) == name:  # a build was killed before the alias followed
        now = generations.pointer(folder.parent.parent)
        _point(server, alias, _name_in(folder.with_name(now)) if now else "")
    server.call("drop_collection", name)


def _point(server: Server, alias: str, name: str) -> None:
    """Let an alias name a collection, or be gone when there is none."""
    if (known := _alias(server, alias)) == name:
        return
    if not name:
        server.call("drop_alias", alias)
    else:
        server.call("alter_alias" if known else "create_alias", name, alias)


def _alias(server: Server, alias: str) -> str:
    """Return what the alias names, "" when there is no such alias."""
    if alias not in server.call("list_aliases")["aliases"]:
        return ""
    return str(server.call("describe_alias", alias)["collection_name"])


def _name_in(folder: Path) -> str:
    """Return the collection of a folder, "" when it has none or none was made yet."""
    try:
        return _read_card(folder).name
    except IndexUnusable:
        return ""


def _read_card(folder: Path) -> Card:
    try:
        return Card(**json.loads((folder / COLLECTION).read_bytes()))
    except (OSError, ValueError, TypeError) as error:
        raise IndexUnusable(f"cannot read {COLLECTION}: {error!s:.100}. {_REBUILD}") from None


def _write_card(folder: Path, card: Card) -> None:
    """Write the card to the disk before its collection is made."""
    with (folder / COLLECTION).open("w", encoding="utf-8") as file:
        json.dump(asdict(card), file, indent=1)
        file.flush()
        os.fsync(file.fileno())
