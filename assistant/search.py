"""Find the passages that answer: `Index` writes, opens and searches one generation's files.

A generation's tables are parallel: row *i* of `vectors.faiss`, of `lexical/`, of `rows.i32` and
line *i* of `views.jsonl` are the same view; the views of a passage lie side by side, the
whole-passage view first. Lengths and ids are checked on every open.
"""

import math
import mmap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import orjson
from numpy.typing import NDArray

from assistant.collection import COLLECTION, open_collection
from assistant.embed import Encoder
from assistant.errors import IndexUnusable
from assistant.fold import fold, terms
from assistant.lexical import Lexical, Words
from assistant.records import Chunk, Document, Heading, Hit, Ranking, View
from assistant.settings import Settings
from assistant.sound import Pairs, Sounds, count_pairs
from assistant.store import FaissStore, Lists, Rows, Scores, Store, Vectors

DOCUMENTS, CHUNKS, VIEWS = "documents.jsonl", "chunks.jsonl", "views.jsonl"
VECTORS, LEXICAL, ROWS, NEAR = "vectors.faiss", "lexical", "rows.i32", "near.faiss"
BACKGROUND, PAIRS = "background.faiss", "pairs.json"
_POOL = 32  # views that a leg names beside eight a hit
_SMALL_POOL = 64  # where words alone name them: looking up what they left out costs more
_EVERY_VIEW = 100_000  # views up to which all are compared; above, the nearest lists of them
_NEAREST_READ = 22_000  # rows, which takes half a millisecond
_BACKGROUND_READ = 1_250  # of the rows of the background, about a quarter
_DECODED = 10_000  # views up to which their vectors are kept as they are compared
_KINDS = ("passage", "sentence", "variant")
_SENTENCE = _KINDS.index("sentence")
_BATCH = 16  # questions that share the way through memory
_SUPPORT = 3
_CROWD = 5
_SPANNING = 5
_ENDS = ".ends"
_REBUILD = "Rebuild with: assistant build"
_RIDGE = 0.01  # keeps near-equal views from making the span unstable

_NONE: Rows = np.zeros(0, dtype=np.int64)

Spans = tuple[tuple[int, int], ...]
Record = TypeVar("Record", Document, Chunk, View)


@dataclass(frozen=True, slots=True)
class Query:
    """Hold a clean question to look for, and what calibration wants left out meanwhile.

    Views in `hidden` are treated as absent, and a passage whose whole-passage view is hidden is
    absent altogether. `unlike` leaves out one question of the background. `within` are the only
    passages looked at, each of them, when it is given.
    """

    ask: str
    hidden: frozenset[int] = frozenset()
    unlike: int | None = None
    within: Rows | None = None


@dataclass(frozen=True, slots=True)
class _Asked:
    """Hold a question as it is looked for: its words, its terms with their idf and their sum.

    `most` is how many views each leg may name.
    """

    text: str
    weights: dict[str, float]
    weight: float
    most: int
    hidden: NDArray[np.int64]
    unlike: int | None
    within: Rows | None


@dataclass(frozen=True, slots=True)
class _Near:
    """Hold a question's vector, and its cosine with every view where the index is small."""

    vector: Vectors
    cosines: Vectors | None


@dataclass(frozen=True, slots=True)
class _Words:
    """Hold the views that words found, with their BM25; every other view has at most `floor`."""

    views: Rows
    scores: Scores
    floor: float


@dataclass(frozen=True, slots=True)
class _Members:
    """Hold passages and their views, side by side.

    `held` has a row for each passage and as many columns as the longest has views.
    """

    passages: Rows
    views: Rows
    held: NDArray[np.bool_]


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
        self._store, self._lexical = _open_rows(folder, settings)
        self._rows = _read_rows(folder / ROWS)
        self._background = Lists.open(folder / BACKGROUND)
        self._sounds = Sounds(_read_pairs(folder / PAIRS))
        self._check()
        count = len(self._rows)
        self._first = np.append(np.flatnonzero(np.diff(self._rows[:, 0], prepend=-1)), count)
        self._lists: Lists | None = None
        if isinstance(self._store, FaissStore) and (folder / NEAR).exists():
            self._lists = Lists.open(folder / NEAR)
        self._decoded = self._store.matrix() if count <= _DECODED else None
        self._all = self._members(np.arange(len(self))) if count <= _DECODED else None
        self._pool = _POOL if self._all is None else _SMALL_POOL
        self._vector = lru_cache(maxsize=64)(self._encode)
        self._words = lru_cache(maxsize=20_000)(self._read_words)
        self._chunk = lru_cache(maxsize=20_000)(self._read_chunk)
        self._sentences = lru_cache(maxsize=20_000)(self._read_sentences)
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

    def passages(self, path: str = "", section: str = "") -> Rows:
        """Return the rows of the passages of a document, or below a heading, if named."""
        paths, sections = self._places
        rows = np.arange(len(self))
        for name, places in ((path, paths), (section, sections)):
            if name:
                rows = np.intersect1d(rows, np.array(places.get(name, []), dtype=np.int64))
        return rows

    @cached_property
    def _places(self) -> tuple[dict[str, list[int]], dict[str, list[int]]]:
        """Return the passages of each document and below each heading; every passage is read."""
        paths: dict[str, list[int]] = {}
        sections: dict[str, list[int]] = {}
        for row, line in enumerate(self._chunks):
            chunk = orjson.loads(line)
            paths.setdefault(chunk["path"], []).append(row)
            for heading in dict.fromkeys(chunk["headings"]):
                sections.setdefault(heading, []).append(row)
        return paths, sections

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
        within: Rows | None = None,
    ) -> Ranking:
        """Rank passages for a clean question; at most `top_k` hits, best first.

        Errors of sound are put right first, and the ranking's `query` is what was looked for.
        """
        asked = self._read(Query(question, hidden, unlike, within), top_k)
        return self._ranked([asked], self._vector(asked.text)[None], top_k)[0]

    def search_many(self, queries: Sequence[Query], top_k: int) -> list[Ranking]:
        """Rank passages for many questions, as `search` does for each, in less time."""
        asked = [self._read(query, top_k) for query in queries]
        rankings: list[Ranking] = []
        for begin in range(0, len(asked), _BATCH):
            part = asked[begin : begin + _BATCH]
            vectors = self._encoder.encode_queries([one.text for one in part])
            rankings += self._ranked(part, vectors, top_k)
        return rankings

    def sentences(self, question: str, hit: Hit) -> tuple[Spans, list[float]]:
        """Return the spans, within a hit's passage, of its sentences, and their cosines."""
        views, spans = self._sentences(hit.row)
        cosines: list[float] = np.vecdot(self._vectors(views), self._vector(question)).tolist()
        return spans, cosines

    def nominate(self, query: Vectors, k: int) -> Rows:
        """Return the views, about `k`, that are nearest to a query vector, roughly."""
        nearest = self._store if self._lists is None else self._lists
        rows: Rows = nearest.search(query[None], k)[1][0]
        return rows[rows >= 0]

    @property
    def nomination(self) -> str:
        """Return in words which views a question is compared with."""
        if self._lists is None or self._lists.count == 1:
            return "every view"
        return f"all but sentences, in the nearest of {self._lists.count} lists (IVF)"

    def _read(self, query: Query, top_k: int) -> _Asked:
        folded = fold(query.ask)
        sound = self._sounds.correct(folded, self._lexical.known)
        weights = {term: self._lexical.idf(term) for term in terms(sound)}
        return _Asked(
            text=query.ask if sound == folded else sound,
            weights=weights,
            weight=sum(weights.values()),
            most=min(self._pool + 8 * top_k + len(query.hidden), self.view_count),
            hidden=np.array(sorted(query.hidden), dtype=np.int64) if query.hidden else _NONE,
            unlike=query.unlike,
            within=query.within,
        )

    def _ranked(self, asked: Sequence[_Asked], vectors: Vectors, top_k: int) -> list[Ranking]:
        """Rank passages for questions with their vectors, which share the way through memory."""
        near = [_Near(vector, None) for vector in vectors]
        if self._decoded is not None:  # vecdot, for `@` would wake a team of threads
            cosines = np.vecdot(self._decoded[:, None], vectors)
            near = list(map(_Near, vectors, cosines.T))
        crowds = self._crowds(asked, vectors)
        rankings = []
        for one, way, crowd in zip(asked, near, crowds, strict=True):
            hits, spanned = self._rank(one, way, top_k)
            unknown = (w for term, w in one.weights.items() if not self._lexical.known(term))
            share = _share(unknown, one.weight)
            rankings.append(Ranking(one.text, hits, one.weight, share, crowd, spanned))
        return rankings

    def _rank(self, asked: _Asked, near: _Near, top_k: int) -> tuple[tuple[Hit, ...], float]:
        """Score the candidate passages exactly on all their views and keep the best `top_k`.

        Returns them with how much of the query the first one's views span.
        """
        words = self._by_words(asked)
        those = self._candidates(asked, near, words)
        if not len(those.passages):
            return (), 0.0
        cosines = self._cosines(those.views, near)
        if len(asked.hidden):
            cosines[np.isin(those.views, asked.hidden)] = -1.0
        grid = np.full(those.held.shape, -np.inf, dtype=np.float32)
        grid[those.held] = cosines
        best, view, support = grid.argmax(axis=1), *pool(grid)
        mixed = mix(grid[:, 0], view, support, self._settings)
        raw = self._weighed(asked, words, those.passages, mixed, top_k)
        score = fuse(mixed, raw, asked.weight, self._settings)
        order = np.argsort(-score, kind="stable")[:top_k].tolist()
        hits = tuple(
            Hit(
                chunk=self.chunk(row := int(those.passages[i])),
                row=row,
                passage=float(grid[i, 0]),
                view=float(view[i]),
                support=float(support[i]),
                best=self.first_view(row) + int(best[i]),
                lexical=float(raw[i]),
                coverage=self._coverage(row, asked),
                score=float(score[i]),
            )
            for i in order
        )
        return hits, self._spanned(hits[0].row, grid[order[0]])

    def _by_words(self, asked: _Asked) -> _Words:
        """Find the best views by BM25; of passages that are named, every view."""
        if asked.within is not None:
            count = len(self._members(asked.within).views)
            found = self._lexical.scores(asked.weights, asked.within.tolist(), count)
            return _Words(*found, 0.0)
        views, scores = self._lexical.search(asked.weights, asked.most)
        floor = float(scores[-1]) if len(scores) == asked.most else 0.0
        kept = self._visible(asked, views)
        return _Words(views[kept], scores[kept], floor)

    def _candidates(self, asked: _Asked, near: _Near, words: _Words) -> _Members:
        """Return the passages that may be among the best: of a small index every one.

        Of a large one those with a view among the nearest, or among the best by words.
        """
        if asked.within is not None:
            return self._members(asked.within)
        if not near.vector.any():
            return self._members(np.unique(self._rows[words.views, 0]))
        if self._all is not None and not len(asked.hidden):
            return self._all
        if self._all is not None:
            absent = np.isin(self._first[self._all.passages], asked.hidden)
            return self._members(self._all.passages[~absent])
        nearest = self.nominate(near.vector, asked.most)
        views = np.append(words.views, nearest[self._visible(asked, nearest)])
        return self._members(np.unique(self._rows[views, 0]))

    def _visible(self, asked: _Asked, views: Rows) -> Any:
        """Return what to index with to leave out views that are hidden, or whose passage is."""
        if not len(asked.hidden):
            return slice(None)
        whole = self._first[self._rows[views, 0]]
        return ~np.isin([views, whole], asked.hidden).any(axis=0)

    def _members(self, passages: Rows) -> _Members:
        """Return passages with all their views."""
        sizes = self._first[passages + 1] - self._first[passages]
        columns = np.arange(sizes.max(initial=0))
        held = columns < sizes[:, None]
        return _Members(passages, (self._first[passages][:, None] + columns)[held], held)

    def _crowds(self, asked: Sequence[_Asked], vectors: Vectors) -> list[float]:
        """Return the mean cosines with the background's five most like questions."""
        if not len(self._background):
            return [0.0] * len(asked)
        scores, rows = self._background.search(vectors, _CROWD + 1)
        crowds = []
        for one, found in zip(asked, zip(scores.tolist(), rows.tolist(), strict=True), strict=True):
            near = [s for s, row in zip(*found, strict=True) if row >= 0 and row != one.unlike]
            crowds.append(sum(near[:_CROWD]) / _CROWD)
        return crowds

    def _spanned(self, row: int, cosines: Vectors) -> float:
        """Return how much of a query the views of a passage span, given their cosines with it."""
        near = np.argsort(-cosines, kind="stable")[:_SPANNING]
        near = near[cosines[near] > -1]
        return span(self._vectors(self.first_view(row) + near), cosines[near])

    def _weighed(
        self, asked: _Asked, words: _Words, passages: Rows, mixed: Vectors, top_k: int
    ) -> Vectors:
        """Return the best BM25 of passages, looked up for those that words alone did not find.

        Only where it matters: what words did not find has at most the floor, and with that most
        passages stay behind the best (Fagin's threshold algorithm).
        """
        raw = np.zeros(len(passages), dtype=np.float32)

        def add(views: Rows, scores: Scores) -> None:
            np.maximum.at(raw, np.searchsorted(passages, self._rows[views, 0]), scores)

        add(words.views, words.scores)
        if words.floor and not raw.all():
            least = np.sort(fuse(mixed, raw, asked.weight, self._settings))[-top_k:][0]
            most = np.where(raw > 0, raw, np.float32(words.floor))
            may = (raw == 0) & (fuse(mixed, most, asked.weight, self._settings) >= least)
            if len(doubtful := passages[may]):
                count = int((self._first[doubtful + 1] - self._first[doubtful]).sum())
                views, scores = self._lexical.scores(asked.weights, doubtful.tolist(), count)
                kept = self._visible(asked, views)
                add(views[kept], scores[kept])
        return raw

    def _coverage(self, row: int, asked: _Asked) -> float:
        found = filter(self._words(row).__contains__, asked.weights)
        return _share(map(asked.weights.__getitem__, found), asked.weight)

    def _encode(self, question: str) -> Vectors:
        vector: Vectors = self._encoder.encode_queries([question])[0]
        return vector

    def _read_chunk(self, row: int) -> Chunk:
        return _chunk(orjson.loads(self._chunks[row]))

    def _read_words(self, row: int) -> frozenset[str]:
        begin, end = self._span(row)
        views = begin + np.flatnonzero(self._rows[begin:end, 1] != _SENTENCE)
        texts = (orjson.loads(self._views[view])["text"] for view in views.tolist())
        return frozenset(term for text in texts for term in terms(fold(text)))

    def _read_sentences(self, row: int) -> tuple[Rows, Spans]:
        begin, end = self._span(row)
        views = begin + np.flatnonzero(self._rows[begin:end, 1] == _SENTENCE)
        spans = self._rows[views, 2:] - self.chunk(row).start
        return views, tuple((start, end) for start, end in spans.tolist())

    def _cosines(self, views: Rows, near: _Near) -> Vectors:
        if near.cosines is not None:
            return near.cosines[views]
        return self._store.cosines(views, near.vector)

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
        steps = np.diff(self._rows[:, 0], prepend=-1)
        first = np.flatnonzero(steps)
        if (
            len(set(counts.values())) != 1
            or (steps[first] != 1).any()
            or len(first) != len(self._chunks)
            or (self._rows[first, 1] != 0).any()
        ):
            raise IndexUnusable(
                f"the tables of {self.folder.name} are out of step: {counts}, "
                f"{len(self._chunks)} passages. {_REBUILD}"
            )
        if self._store.dimensions != self._encoder.dimensions:
            raise IndexUnusable(
                f"{VECTORS} has {self._store.dimensions} dimensions, the model "
                f"{self._encoder.name} {self._encoder.dimensions}. {_REBUILD}"
            )


def pool(grid: Vectors) -> tuple[Vectors, Vectors]:
    """Return, per passage, the cosine of its best view and the mean of its three best.

    `grid` has a row of cosines for each passage, filled up with -inf. One lucky view is weaker
    evidence than three that agree; a passage with fewer views has the mean of those.
    """
    top = np.sort(grid, axis=1)[:, -_SUPPORT:].astype(np.float64)
    there = top > -np.inf
    total = top.sum(axis=1, where=there)
    return top[:, -1].astype(np.float32), (total / there.sum(axis=1)).astype(np.float32)


def span(vectors: Vectors, cosines: Vectors) -> float:
    """Return the length of a unit query's projection on some vectors, 0..1, given their cosines.

    A question that mixes two ways of asking is near neither of them, but lies between.
    """
    gram = np.vecdot(vectors[:, None], vectors).astype(np.float64)
    gram.flat[:: len(gram) + 1] += _RIDGE
    wanted = cosines.astype(np.float64)
    return math.sqrt(max(0.0, float(wanted @ np.linalg.solve(gram, wanted))))


def mix(passage: Vectors, view: Vectors, support: Vectors, settings: Settings) -> Vectors:
    """Mix the cosine of the whole passage with those of its best view and of its three best."""
    share = settings.passage_weight
    mixed: Vectors = share * passage + (1 - share) * 0.5 * (view + support)
    return mixed


def fuse(cosine: Vectors, lexical: Vectors, weight: float, settings: Settings) -> Vectors:
    """Join both legs into one ranking score.

    BM25 is added as a share of the query's own weight, so that the few stray words which a
    foreign-language question shares with a passage stay small (dividing by the best score would
    blow them up).
    """
    score: Vectors = cosine + settings.lexical_weight * lexical / weight if weight else cosine
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
    folded = [fold(view.text) for view in views]
    write_texts(folder, documents, chunks, views, folded, background)
    write_rows(folder, views, folded, vectors, precision)


def write_texts(
    folder: Path,
    documents: Sequence[Document],
    chunks: Sequence[Chunk],
    views: Sequence[View],
    folded: Sequence[str],
    background: Vectors,
) -> None:
    """Write the tables that lie in the folder wherever vectors and words are kept.

    `folded` are the views' texts, folded.
    """
    _write_lines(folder / DOCUMENTS, documents)
    _write_lines(folder / CHUNKS, chunks)
    _write_lines(folder / VIEWS, views)
    write_background(folder, background)
    (folder / PAIRS).write_bytes(orjson.dumps(count_pairs(folded)))
    rows = [(v.chunk, _KINDS.index(v.kind), v.start, v.end) for v in views]
    np.array(rows, dtype="<i4").tofile(folder / ROWS)


def write_rows(
    folder: Path,
    views: Sequence[View],
    folded: Sequence[str],
    vectors: Vectors,
    precision: str,
) -> None:
    """Write the vectors and the words of the views into the folder itself."""
    FaissStore.build(vectors, precision).write(folder / VECTORS)
    if len(views) > _DECODED:
        _lists(views, vectors).write(folder / NEAR)
    Lexical.build(folder / LEXICAL, folded, (view.chunk for view in views))


def _lists(views: Sequence[View], vectors: Vectors) -> Lists:
    """Return what nominates: every view, or of a large index those that are no sentences."""
    if len(views) <= _EVERY_VIEW:
        return Lists.build(vectors, np.arange(len(views)), _NEAREST_READ, most=1, rough=True)
    rows = np.flatnonzero([view.kind != "sentence" for view in views])
    return Lists.build(vectors[rows], rows, _NEAREST_READ, rough=True)


def write_background(folder: Path, vectors: Vectors) -> None:
    """Write the vectors of the questions of which the nearest are compared with every query."""
    rows = np.arange(len(vectors))
    Lists.build(vectors, rows, _BACKGROUND_READ).write(folder / BACKGROUND)


def stored_vectors(folder: Path, settings: Settings) -> dict[str, Vectors]:
    """Return the vector of every view text of a generation, for reuse by the next build."""
    lines = _Lines(folder / VIEWS)
    vectors = _open_rows(folder, settings)[0].vectors(range(len(lines)))
    return {orjson.loads(line)["text"]: vector for line, vector in zip(lines, vectors, strict=True)}


def _open_rows(folder: Path, settings: Settings) -> tuple[Store, Words]:
    """Open the vectors and the words where the folder says that they are."""
    if (folder / COLLECTION).exists():
        return open_collection(folder, settings)
    return FaissStore.open(folder / VECTORS), Lexical.open(folder / LEXICAL)


class _Lines(Sequence[bytes]):
    """Give the lines of a file by number without reading it: mapped, with a table of their ends."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            self._data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
        self._ends: NDArray[np.int64] = np.fromfile(path.with_suffix(_ENDS), dtype="<i8")
        if size != (self._ends[-1] if len(self._ends) else 0):
            raise IndexUnusable(f"{path.name} is not what its table of lines says. {_REBUILD}")

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, row: Any) -> Any:
        if not 0 <= row < len(self._ends):
            raise IndexError(row)
        begin = int(self._ends[row - 1]) if row else 0
        return self._data[begin : int(self._ends[row])]


def _write_lines(path: Path, records: Iterable[Record]) -> None:
    sizes = []
    with path.open("wb") as file:
        for record in records:
            sizes.append(file.write(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)))
    np.cumsum(sizes, dtype="<i8").tofile(path.with_suffix(_ENDS))


def _read_rows(path: Path) -> NDArray[np.int32]:
    """Read the view table: chunk row, kind, start and end of every view.

    A plain array: `np.load` parses its header as Python, which fails now and then when several
    threads do it at once (CPython 3.11: "AST constructor recursion depth mismatch").
    """
    try:
        return np.fromfile(path, dtype="<i4").reshape(-1, 4)
    except (OSError, ValueError) as error:
        raise IndexUnusable(f"cannot read {path.name}: {error}. {_REBUILD}") from None


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
        raise IndexUnusable(f"cannot read {path.name}: {error}. {_REBUILD}") from None


def _share(parts: Iterable[float], whole: float) -> float:
    return sum(parts) / whole if whole else 0.0
