"""Find the passages that answer: `Index` writes, opens and searches one generation's files.

A generation's tables are parallel: row *i* of `vectors.faiss`, of `lexical/`, of `rows.i32` and
line *i* of `views.jsonl` are the same view; the views of a passage lie side by side, the
whole-passage view first. Lengths and ids are checked on every open.
"""

import math
import mmap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import orjson
from numpy.typing import NDArray

from assistant.embed import Encoder
from assistant.errors import IndexUnusable
from assistant.fold import fold, terms
from assistant.lexical import Lexical
from assistant.records import Chunk, Document, Heading, Hit, Ranking, View
from assistant.settings import Settings
from assistant.sound import Pairs, Sounds, count_pairs
from assistant.store import Coarse, FaissStore, Scores, Store, Vectors

DOCUMENTS, CHUNKS, VIEWS = "documents.jsonl", "chunks.jsonl", "views.jsonl"
VECTORS, LEXICAL, ROWS = "vectors.faiss", "lexical", "rows.i32"
BACKGROUND, PAIRS = "background.faiss", "pairs.json"
_POOL = 32  # candidates beside eight a hit
_EVERY_VIEW = 100_000  # views up to which each may nominate its passage; above, no sentence does
_DECODED = 10_000  # views up to which their vectors are kept as they are compared
_KINDS = ("passage", "sentence", "variant")
_SENTENCE = _KINDS.index("sentence")
_SUPPORT = 3
_CROWD = 5
_SPANNING = 5
_RIDGE = 0.01  # keeps near-equal views from making the span unstable

Record = TypeVar("Record", Document, Chunk, View)
Best = tuple[NDArray[np.int64], Vectors]
"""Passages, ascending, and the best score of each."""

_NOTHING: Best = (np.zeros(0, np.int64), np.zeros(0, np.float32))


@dataclass(frozen=True, slots=True)
class _Words:
    """Hold what words found: the query's terms with their idf, and passages with their best BM25.

    Every other passage has at most the `floor`.
    """

    weights: dict[str, float]
    best: Best
    floor: float

    @property
    def weight(self) -> float:
        """Return the sum of the terms' weights."""
        return sum(self.weights.values())


class Index:
    """Search one generation: dense views and words, joined by `fuse`, raw scores kept."""

    def __init__(self, folder: Path, encoder: Encoder, settings: Settings) -> None:
        """Open the files of a verified generation; raise IndexUnusable when they disagree."""
        self.folder = folder
        self._encoder = encoder
        self._settings = settings
        self._documents = _Lines(folder / DOCUMENTS)
        self._chunks = _Lines(folder / CHUNKS)
        self._views = _Lines(folder / VIEWS)
        self._store: Store = FaissStore.open(folder / VECTORS)
        self._lexical = Lexical.open(folder / LEXICAL)
        self._rows = _read_rows(folder / ROWS)
        background = FaissStore.open(folder / BACKGROUND)
        self._background = background.coarse(np.arange(len(background)))
        self._sounds = Sounds(_read_pairs(folder / PAIRS))
        self._check()
        self._first = np.searchsorted(self._rows[:, 0], np.arange(len(self._chunks) + 1))
        count = len(self._rows)
        self._nominators: Store | Coarse = self._store
        if count > _EVERY_VIEW:
            self._nominators = self._store.coarse(np.flatnonzero(self._rows[:, 1] != _SENTENCE))
        self._decoded = self._store.matrix() if count <= _DECODED else None
        self._words = lru_cache(maxsize=20_000)(self._read_words)
        self._chunk = lru_cache(maxsize=20_000)(self._read_chunk)
        self._paths: dict[str, int] | None = None

    def __len__(self) -> int:
        """Return the number of passages."""
        return len(self._chunks)

    @property
    def view_count(self) -> int:
        """Return the number of views."""
        return len(self._rows)

    def chunk(self, row: int) -> Chunk:
        """Return the passage at a row of the chunk table."""
        return self._chunk(row)

    def chunks(self) -> Iterable[Chunk]:
        """Return every passage, in the order of documents and offsets."""
        return map(self.chunk, range(len(self)))

    def first_view(self, row: int) -> int:
        """Return the row of the whole-passage view of a passage."""
        return int(self._first[row])

    def views(self, row: int) -> list[View]:
        """Return the views of the passage at a row, the whole-passage view first."""
        return [View(**orjson.loads(self._views[i])) for i in range(*self._span(row))]

    def documents(self) -> Iterable[Document]:
        """Return every document, sorted by path."""
        return (_document(orjson.loads(line)) for line in self._documents)

    def document(self, path: str) -> Document | None:
        """Return the document at a corpus path as it was indexed, None when there is none."""
        if self._paths is None:
            self._paths = {orjson.loads(line)["path"]: i for i, line in enumerate(self._documents)}
        row = self._paths.get(path)
        return None if row is None else _document(orjson.loads(self._documents[row]))

    def search(
        self,
        question: str,
        top_k: int,
        hidden: frozenset[int] = frozenset(),
        unlike: int | None = None,
    ) -> Ranking:
        """Rank passages for a clean question; at most `top_k` hits, best first.

        Errors of sound are put right first, and the ranking's `query` is what was looked for.

        Views in `hidden` are treated as absent, and a passage whose whole-passage view is hidden
        is absent altogether: calibration asks what the index would say without them. `unlike`
        leaves out one question of the background, for the same reason.
        """
        folded = fold(question)
        sound = self._sounds.correct(folded, self._lexical.known)
        question = question if sound == folded else sound
        query = self._encoder.encode_queries([question])[0]
        words = list(dict.fromkeys(terms(sound)))
        weights = {word: self._lexical.idf(word) for word in words}
        weight = sum(weights.values())
        dense = self._dense(query, top_k, hidden)
        found = self._by_words(weights, top_k, hidden)
        rows = np.union1d(dense[0], found.best[0])
        hits, spanned = self._fuse(query, rows, found, top_k, hidden)
        return Ranking(
            query=question,
            hits=hits,
            weight=weight,
            unknown=_share((w for t, w in weights.items() if not self._lexical.known(t)), weight),
            crowd=self._crowd(query, unlike),
            spanned=spanned,
        )

    def sentences(self, question: str, hit: Hit) -> list[tuple[int, int, float]]:
        """Return start, end and cosine of the sentences of a hit's passage, in reading order."""
        begin, end = self._span(hit.row)
        rows = begin + np.flatnonzero(self._rows[begin:end, 1] == _SENTENCE)
        query = self._encoder.encode_queries([question])[0]
        scores = np.vecdot(self._vectors(rows), query)
        return [
            (int(start), int(stop), float(score))
            for (start, stop), score in zip(self._rows[rows, 2:], scores, strict=True)
        ]

    def nominate(self, query: Vectors, k: int) -> tuple[Scores, NDArray[np.int64]]:
        """Return cosines and rows of the `k` views nearest to a query vector that may nominate."""
        scores, rows = self._nominators.search(query[None], k)
        return scores[0], rows[0]

    def _dense(self, query: Vectors, top_k: int, hidden: frozenset[int]) -> Best:
        """Return the best cosine of each passage that has a view among the nearest."""
        if not query.any():
            return _NOTHING
        scores, rows = self.nominate(query, _POOL + 8 * top_k + len(hidden))
        return self._best_by_passage(rows, scores, hidden)

    def _by_words(self, weights: dict[str, float], top_k: int, hidden: frozenset[int]) -> "_Words":
        """Find the best BM25 of each passage that has a view among the best by words."""
        most = _POOL + 8 * top_k + len(hidden)
        found = self._lexical.search(weights, most)
        floor = found[-1][1] if len(found) == most else 0.0
        return _Words(weights, self._owners(found, hidden), floor)

    def _owners(self, found: list[tuple[int, float]], hidden: frozenset[int]) -> Best:
        views = np.array([row for row, _ in found], dtype=np.int64)
        return self._best_by_passage(views, np.array([s for _, s in found], np.float32), hidden)

    def _best_by_passage(
        self, views: NDArray[np.int64], scores: Vectors, hidden: frozenset[int]
    ) -> Best:
        """Keep the first view of each passage; `views` come best first."""
        owners = self._rows[views, 0]
        if hidden:
            kept = ~np.isin([views, self._first[owners]], list(hidden)).any(axis=0)
            owners, scores = owners[kept], scores[kept]
        rows, places = np.unique(owners, return_index=True)
        return rows.astype(np.int64), scores[places]

    def _crowd(self, query: Vectors, unlike: int | None) -> float:
        """Return the mean cosine with the background's five most like questions."""
        if not len(self._background):
            return 0.0
        scores, rows = self._background.search(query[None], _CROWD + 1)
        kept = rows[0] != (-1 if unlike is None else unlike)
        return float(scores[0][kept][:_CROWD].sum() / _CROWD)

    def _fuse(
        self,
        query: Vectors,
        rows: NDArray[np.int64],
        words: "_Words",
        top_k: int,
        hidden: frozenset[int],
    ) -> tuple[tuple[Hit, ...], float]:
        """Score the candidate passages exactly on all their views and keep the best `top_k`.

        Returns them with how much of the query the first one's views span.
        """
        if not len(rows):
            return (), 0.0
        sizes = self._first[rows + 1] - self._first[rows]
        starts = np.cumsum(sizes) - sizes
        members = np.repeat(self._first[rows] - starts, sizes) + np.arange(sizes.sum())
        cosines = self._cosines(members, query)
        if hidden:
            cosines[np.isin(members, list(hidden))] = -1.0
        best, support = pool(cosines, starts)
        view = cosines[best]
        passage = cosines[starts]

        def joined(raw: Vectors) -> Vectors:
            return fuse(passage, view, support, raw, words.weight, self._settings)

        raw = self._weighed(words, rows, joined, top_k, hidden)
        score = joined(raw)
        order = np.lexsort((rows, -score))[:top_k]
        first = slice(starts[order[0]], starts[order[0]] + sizes[order[0]])
        hits = tuple(
            Hit(
                chunk=self.chunk(int(rows[i])),
                row=int(rows[i]),
                passage=float(passage[i]),
                view=float(view[i]),
                support=float(support[i]),
                best=int(members[best[i]]),
                lexical=float(raw[i]),
                coverage=self._coverage(int(rows[i]), words.weights),
                score=float(score[i]),
            )
            for i in order.tolist()
        )
        return hits, span(self._vectors(members[first]), cosines[first])

    def _weighed(
        self,
        words: "_Words",
        rows: NDArray[np.int64],
        joined: Callable[[Vectors], Vectors],
        top_k: int,
        hidden: frozenset[int],
    ) -> Vectors:
        """Return the BM25 of candidates, looked up for those that words alone did not find.

        Only where it matters: what words did not find has at most the floor, and with that most
        passages stay behind the best (Fagin's threshold algorithm).
        """
        raw = np.zeros(len(rows), dtype=np.float32)
        raw[np.searchsorted(rows, words.best[0])] = words.best[1]
        if words.floor:
            least = np.sort(joined(raw))[-top_k:][0]
            bound = joined(np.where(raw > 0, raw, np.float32(words.floor)))
            doubtful = rows[(raw == 0) & (bound >= least)]
            most = int((self._first[doubtful + 1] - self._first[doubtful]).sum())
            found = self._lexical.scores(words.weights, doubtful.tolist(), most)
            owners, scores = self._owners(found, hidden)
            raw[np.searchsorted(rows, owners)] = scores
        return raw

    def _coverage(self, row: int, weights: dict[str, float]) -> float:
        words = self._words(row)
        return _share((w for t, w in weights.items() if t in words), sum(weights.values()))

    def _read_chunk(self, row: int) -> Chunk:
        return _chunk(orjson.loads(self._chunks[row]))

    def _read_words(self, row: int) -> frozenset[str]:
        texts = (view.text for view in self.views(row) if view.kind != "sentence")
        return frozenset(term for text in texts for term in terms(fold(text)))

    def _cosines(self, views: NDArray[np.int64], query: Vectors) -> Vectors:
        """Return the cosines of views; by vecdot, for `@` would wake a team of threads."""
        if self._decoded is not None:
            every: Vectors = np.vecdot(self._decoded, query)
            return every[views]
        some: Vectors = np.vecdot(self._vectors(views), query)
        return some

    def _vectors(self, views: NDArray[np.int64]) -> Vectors:
        return self._store.vectors(views) if self._decoded is None else self._decoded[views]

    def _span(self, row: int) -> tuple[int, int]:
        return int(self._first[row]), int(self._first[row + 1])

    def _check(self) -> None:
        """Refuse tables that are out of step (law 4)."""
        counts = {
            VIEWS: len(self._views),
            VECTORS: len(self._store),
            LEXICAL: len(self._lexical),
            ROWS: len(self._rows),
        }
        owners = self._rows[:, 0]
        first = np.unique(owners, return_index=True)[1]
        if (
            len(set(counts.values())) != 1
            or (np.diff(owners) < 0).any()
            or not np.array_equal(owners[first], np.arange(len(self._chunks)))
            or (self._rows[first, 1] != 0).any()
        ):
            raise IndexUnusable(
                f"the tables of {self.folder.name} are out of step: {counts}, "
                f"{len(self._chunks)} passages. Rebuild with: assistant build"
            )
        if self._store.dimensions != self._encoder.dimensions:
            raise IndexUnusable(
                f"{VECTORS} has {self._store.dimensions} dimensions, the model "
                f"{self._encoder.name} {self._encoder.dimensions}. Rebuild with: assistant build"
            )


def pool(cosines: Vectors, starts: NDArray[np.int64]) -> tuple[NDArray[np.int64], Vectors]:
    """Return, per passage, the place of its best view and the mean of its three best cosines.

    `starts` are the places at which each passage's views begin. One lucky view is weaker evidence
    than three that agree; a passage with fewer views has the mean of those.
    """
    sizes = np.diff(np.append(starts, len(cosines)))
    passages = np.arange(len(starts))
    owners = np.repeat(passages, sizes)
    left, total = cosines.astype(np.float64), np.zeros(len(starts))
    places = []
    for taken in range(_SUPPORT):
        most = np.maximum.reduceat(left, starts)
        equal = np.flatnonzero(left == most[owners])
        places.append(equal[np.searchsorted(owners[equal], passages)])
        total += np.where(taken < sizes, most, 0.0)
        left[places[-1]] = -np.inf
    return places[0], (total / np.minimum(sizes, _SUPPORT)).astype(np.float32)


def span(vectors: Vectors, cosines: Vectors) -> float:
    """Return the length of a unit query's projection on the five nearest of some vectors, 0..1.

    `cosines` are theirs with the query; -1 marks what is hidden. A question that mixes two ways of
    asking is near neither of them, but lies between.
    """
    order = np.argsort(-cosines, kind="stable")[:_SPANNING]
    best = order[cosines[order] > -1]
    near, wanted = vectors[best], cosines[best].astype(np.float64)
    gram = (near @ near.T).astype(np.float64) + _RIDGE * np.eye(len(best))
    return math.sqrt(max(0.0, float(wanted @ np.linalg.solve(gram, wanted))))


def fuse(
    passage: Vectors,
    view: Vectors,
    support: Vectors,
    lexical: Vectors,
    weight: float,
    settings: Settings,
) -> Vectors:
    """Join the signals into one ranking score.

    The cosine of the whole passage is mixed with those of its best view and of its three best; BM25
    is added as a share of the query's own weight, so that the few stray words which a
    foreign-language question shares with a passage stay small (dividing by the best score would
    blow them up).
    """
    share = settings.passage_weight
    mixed: Vectors = share * passage + (1 - share) * 0.5 * (view + support)
    score: Vectors = mixed + settings.lexical_weight * lexical / weight if weight else mixed
    return score


def write_tables(
    folder: Path,
    documents: Sequence[Document],
    chunks: Sequence[Chunk],
    views: Sequence[View],
    vectors: Vectors,
    background: Vectors,
    precision: str,
) -> None:
    """Write every table of a generation into its folder; row *i* is view *i* in each.

    `background` are the vectors of questions that hardly any guide answers.
    """
    _write_lines(folder / DOCUMENTS, documents)
    _write_lines(folder / CHUNKS, chunks)
    _write_lines(folder / VIEWS, views)
    write_background(folder, background)
    pairs = count_pairs(view.text for view in views)
    (folder / PAIRS).write_bytes(orjson.dumps(pairs))
    rows = [(v.chunk, _KINDS.index(v.kind), v.start, v.end) for v in views]
    np.array(rows, dtype="<i4").tofile(folder / ROWS)
    FaissStore.build(vectors, precision).write(folder / VECTORS)
    Lexical.build(folder / LEXICAL, (v.text for v in views), (v.chunk for v in views))


def write_background(folder: Path, vectors: Vectors) -> None:
    """Write the vectors of the questions that every query is compared with."""
    FaissStore.build(vectors, "float16").write(folder / BACKGROUND)


def stored_vectors(folder: Path) -> dict[str, Vectors]:
    """Return the vector of every view text of a generation, for reuse by the next build."""
    lines = _Lines(folder / VIEWS)
    vectors = FaissStore.open(folder / VECTORS).vectors(range(len(lines)))
    return {orjson.loads(line)["text"]: vector for line, vector in zip(lines, vectors, strict=True)}


class _Lines(Sequence[bytes]):
    """Give the lines of a file by number without reading it: mapped, with an offset table."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            self._data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
        ends = np.flatnonzero(np.frombuffer(self._data, dtype=np.uint8) == 10)
        self._ends: NDArray[np.int64] = ends.astype(np.int64)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, row: Any) -> Any:
        if not 0 <= row < len(self._ends):
            raise IndexError(row)
        begin = int(self._ends[row - 1]) + 1 if row else 0
        return self._data[begin : int(self._ends[row])]


def _write_lines(path: Path, records: Iterable[Record]) -> None:
    with path.open("wb") as file:
        for record in records:
            file.write(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE))


def _read_rows(path: Path) -> NDArray[np.int32]:
    """Read the view table: chunk row, kind, start and end of every view.

    A plain array: `np.load` parses its header as Python, which fails now and then when several
    threads do it at once (CPython 3.11: "AST constructor recursion depth mismatch").
    """
    try:
        return np.fromfile(path, dtype="<i4").reshape(-1, 4)
    except (OSError, ValueError) as error:
        raise IndexUnusable(f"cannot read {path.name}: {error}. Rebuild: assistant build") from None


def _document(values: dict[str, Any]) -> Document:
    headings = tuple(Heading(**heading) for heading in values.pop("headings"))
    return Document(**values, headings=headings)


def _chunk(values: dict[str, Any]) -> Chunk:
    return Chunk(**{**values, "headings": tuple(values["headings"])})


def _read_pairs(path: Path) -> Pairs:
    try:
        pairs: Pairs = orjson.loads(path.read_bytes())
        return pairs
    except (OSError, ValueError) as error:
        raise IndexUnusable(f"cannot read {path.name}: {error}. Rebuild: assistant build") from None


def _share(parts: Iterable[float], whole: float) -> float:
    return sum(parts) / whole if whole else 0.0
