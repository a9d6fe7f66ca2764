"""Build an index: corpus → passages → vectors → calibrated, verified generation → switch."""

import contextlib
import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from shutil import copytree

import numpy as np

from assistant import generations
from assistant.calibrate import background, calibrate
from assistant.collection import (
    COLLECTION,
    collection_name,
    point_alias,
    release,
    require_whole,
    write_collection,
)
from assistant.confidence import Curve
from assistant.contacts import flag_list, flag_unlisted, read_contacts
from assistant.embed import Encoder, Vectors, open_encoder
from assistant.errors import AssistantError, BadInput, CorpusEmpty, IndexUnusable, QualityDropped
from assistant.evaluate import first_right, recall
from assistant.fold import fold
from assistant.load import load_corpus
from assistant.questions import FOLDER, Question, held_out, question_files
from assistant.records import Chunk, Corpus, Skipped, View
from assistant.search import (
    BACKGROUND,
    VECTORS,
    VIEWS,
    Index,
    stored_vectors,
    write_background,
    write_rows,
    write_texts,
)
from assistant.settings import Settings
from assistant.split import chunks as split_chunks
from assistant.split import sections as split_sections
from assistant.split import views as make_views

TABLES = 4
"""Version of what the tables mean; raised when splitting, folding or views change."""

CONFIDENCE = "confidence.json"
_BATCH = 2048
_FEWEST_FAILING, _MOST_NAMED = 2, 5
_FITTED = (VIEWS, VECTORS, COLLECTION, BACKGROUND)
_RANKING = ("passage_weight", "lexical_weight", "answered_risk", "refused_risk")

Progress = Callable[[str, int, int], None]
"""Called with a stage's name, the steps done and the steps in all (0 when not known)."""

Engine = Callable[[Sequence[str]], Iterator[tuple[int, Vectors]]]
"""Encodes texts and yields parts in any order: the place of its first text, and the vectors."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """Hold what a corpus came to before anything is encoded."""

    corpus: Corpus
    chunks: list[Chunk]
    views: list[View]


Source = Callable[[Prepared, Progress], tuple[Vectors, int]]
"""Gives the vector of every view, and tells for how many nothing had to be encoded."""


@dataclass(frozen=True, slots=True)
class Report:
    """Tell what a build did; `warnings` are files that were read but want a look."""

    generation: str
    files: int
    skipped: tuple[Skipped, ...]
    warnings: tuple[Skipped, ...]
    sections: int
    passages: int
    views: int
    reused: int
    encoded: int
    seconds: float
    curve: Curve


def build(
    settings: Settings,
    encoder: Encoder | None = None,
    progress: Progress = lambda *_: None,
    force: bool = False,
    source: Source | None = None,
) -> Report:
    """Build a generation from the corpus and switch to it; on any error the old one stays.

    `source` gives the vectors; without one this process encodes what it cannot reuse. Raises
    QualityDropped, unless forced, when the labelled questions are answered worse than the setting
    `quality_drop` allows.
    """
    started = time.monotonic()
    encoder = encoder or open_encoder(settings)
    with _drafted(settings) as draft:
        prepared = prepare(settings, progress)
        corpus, chunks, views = prepared.corpus, prepared.chunks, prepared.views
        warnings = look_at(corpus, chunks, settings)
        sections = sum(len(split_sections(document)) for document in corpus.documents)
        source = source or encoded_by(one_process(encoder), encoder, settings)
        vectors, reused = source(prepared, progress)
        progress("write", 0, 0)
        others = encoder.encode_queries(background(settings.corpus))
        folded = [fold(view.text) for view in views]
        write_texts(draft.folder, corpus.documents, chunks, views, folded, others)
        if settings.store == "milvus":
            name = collection_name(draft.id, settings)
            write_collection(draft.folder, name, settings, chunks, views, folded, vectors)
        else:
            write_rows(draft.folder, views, folded, vectors, settings.precision)
        progress("calibrate", 0, 0)
        index = Index(draft.folder, encoder, settings)
        fit_to = {**curve_facts(encoder, settings), **_content(draft.folder)}
        curve = calibrate(index, encoder, settings, fit_to)
        curve.write(draft.folder / CONFIDENCE)
        asked = _asked(index, settings)
        if not force and asked is not None:
            _compare(asked, corpus.skipped, settings, encoder)
        counts = {"documents": len(corpus.documents), "passages": len(chunks), "views": len(views)}
        about = {
            "encoder": encoder.name,
            "store": settings.store,
            "counts": counts,
            "compared": index.nomination,
            "recall@1": None if asked is None else recall(asked),
            "corpus": str(settings.corpus.resolve()),
        }
        facts = {**index_facts(encoder, settings), **about}
        generation = draft.commit(corpus=corpus.files, facts=facts)
        _announce(generation, settings)
    return Report(
        generation=generation.id,
        files=len(corpus.files),
        skipped=corpus.skipped,
        warnings=warnings,
        sections=sections,
        passages=len(chunks),
        views=len(views),
        reused=reused,
        encoded=len(views) - reused,
        seconds=time.monotonic() - started,
        curve=curve,
    )


def prepare(settings: Settings, progress: Progress) -> Prepared:
    """Read the corpus and cut it into passages and their views."""
    corpus = _load(settings, progress)
    chunks = cut(corpus, settings)
    if not chunks:
        raise CorpusEmpty(f"no passage came out of {settings.corpus}: its files hold no text.")
    return Prepared(corpus, chunks, make_views(chunks, corpus.variants))


def cut(corpus: Corpus, settings: Settings) -> list[Chunk]:
    """Return the passages of every document."""
    return [
        chunk
        for document in corpus.documents
        for chunk in split_chunks(document, settings.chunk_chars)
    ]


def look_at(corpus: Corpus, chunks: Sequence[Chunk], settings: Settings) -> tuple[Skipped, ...]:
    """Return the files that were read but want a look; raise BadInput for an unreadable list."""
    contacts = read_contacts(settings.corpus)
    return (
        *corpus.warnings,
        *flag_unlisted(corpus.documents, contacts),
        *flag_list(settings.corpus, contacts, chunks),
    )


def encoded_by(engine: Engine, encoder: Encoder, settings: Settings) -> Source:
    """Return a source that encodes by an engine what the index in use does not hold."""

    def source(prepared: Prepared, progress: Progress) -> tuple[Vectors, int]:
        known = _previous_vectors(settings, encoder)
        return embed(prepared.views, engine, encoder.dimensions, known, progress)

    return source


def one_process(encoder: Encoder) -> Engine:
    """Return the engine that encodes here, batch by batch."""

    def engine(texts: Sequence[str]) -> Iterator[tuple[int, Vectors]]:
        for begin in range(0, len(texts), _BATCH):
            yield begin, encoder.encode_passages(texts[begin : begin + _BATCH])

    return engine


def recalibrate(settings: Settings, encoder: Encoder) -> Curve:
    """Fit the curve of the current index anew: the same tables, a new generation."""
    with _drafted(settings) as draft:
        old = generations.current(settings.index).generation
        if reason := mismatch(old, encoder, settings) or _elsewhere(old, settings):
            raise IndexUnusable(f"index {old.id}: {reason}. Rebuild with: assistant build")
        copytree(old.folder, draft.folder, dirs_exist_ok=True)
        (draft.folder / generations.MANIFEST).unlink()
        write_background(draft.folder, encoder.encode_queries(background(settings.corpus)))
        index = Index(draft.folder, encoder, settings)
        fit_to = {**curve_facts(encoder, settings), **_content(draft.folder)}
        curve = calibrate(index, encoder, settings, fit_to)
        curve.write(draft.folder / CONFIDENCE)
        asked = _asked(index, settings)
        quality = None if asked is None else recall(asked)
        facts = {**old.manifest.facts, "recall@1": quality}
        _announce(draft.commit(corpus=old.manifest.corpus, facts=facts), settings)
    return curve


def roll_back(settings: Settings) -> generations.Generation:
    """Switch to the newest whole generation before the current one."""
    generation = generations.rollback(settings.index)
    _announce(generation, settings)
    return generation


def _drafted(settings: Settings) -> contextlib.AbstractContextManager[generations.Draft]:
    return generations.build(
        settings.index, settings.keep_generations, partial(release, settings=settings)
    )


def _announce(generation: generations.Generation, settings: Settings) -> None:
    """Tell Milvus which collection is in use now, where there is one."""
    if COLLECTION in generation.manifest.files:
        point_alias(generation.folder, settings)


def open_generation(
    generation: generations.Generation, encoder: Encoder, settings: Settings
) -> tuple[Index, Curve]:
    """Open a verified generation; raise IndexUnusable when its parts do not fit each other."""
    require_fit(generation, encoder, settings)
    index = Index(generation.folder, encoder, settings)
    return index, Curve.read(generation.folder / CONFIDENCE)


def require_fit(generation: generations.Generation, encoder: Encoder, settings: Settings) -> None:
    """Raise IndexUnusable when a generation, or its curve, is of another model or settings.

    Also when its collection in Milvus is missing or another; StoreDown when Milvus cannot tell.
    """
    if (
        reason := mismatch(generation, encoder, settings)
        or _elsewhere(generation, settings)
        or _foreign(generation, settings)
    ):
        raise IndexUnusable(f"index {generation.id}: {reason}. Rebuild with: assistant build")
    files = generation.manifest.files
    content = {name: files[name].sha256 for name in _FITTED if name in files}
    wanted = {**curve_facts(encoder, settings), **content}
    fitted = Curve.read(generation.folder / CONFIDENCE).fitted_to
    for name in sorted({*wanted, *fitted}):
        if (seen := fitted.get(name)) != wanted.get(name):
            raise IndexUnusable(
                f"{CONFIDENCE} of index {generation.id} was fitted to {name} = {seen!r}, it is "
                f"{wanted.get(name)!r} now. Fit it anew with: assistant calibrate"
            )
    if COLLECTION in files:
        require_whole(generation.folder, settings)


def curve_facts(encoder: Encoder, settings: Settings) -> dict[str, str]:
    """Return what a confidence curve depends on besides the tables themselves."""
    ranking = {name: str(getattr(settings, name)) for name in _RANKING}
    return {**index_facts(encoder, settings), **ranking}


def index_facts(encoder: Encoder, settings: Settings) -> dict[str, str]:
    """Return what an index depends on besides the corpus; a generation with others is refused."""
    return {
        "tables": str(TABLES),
        "encoder_sha256": encoder.fingerprint,
        "dimensions": str(encoder.dimensions),
        "normalised": "true",
        "chunk_chars": str(settings.chunk_chars),
        "precision": settings.precision,
    }


def mismatch(generation: generations.Generation, encoder: Encoder, settings: Settings) -> str:
    """Return which fact of a generation differs from the settings, in words; "" when none does."""
    facts = generation.manifest.facts
    for name, wanted in index_facts(encoder, settings).items():
        if (seen := facts.get(name)) != wanted:
            return f"it was built with {name} = {seen!r}, the settings say {wanted!r}"
    return ""


def _elsewhere(generation: generations.Generation, settings: Settings) -> str:
    """Return in words that an index is kept in another store; "" when it is not."""
    built = generation.manifest.facts.get("store", "faiss")
    if built == settings.store:
        return ""
    return f"it was built with store = {built!r}, the settings say {settings.store!r}"


def _foreign(generation: generations.Generation, settings: Settings) -> str:
    """Return in words that an index is of another guide; "" for a moved or absent corpus folder."""
    built = generation.manifest.facts.get("corpus")
    if built is None or str(settings.corpus.resolve()) == built or not settings.corpus.is_dir():
        return ""
    if all((settings.corpus / name).exists() for name in generation.manifest.corpus):
        return ""
    return (
        f"it was built from {built}, the settings say {settings.corpus} (or name another --index)"
    )


def _content(folder: Path) -> dict[str, str]:
    """Return the hashes of the tables that a curve is fitted to."""
    there = [folder / name for name in _FITTED if (folder / name).exists()]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in there}


def _asked(index: Index, settings: Settings) -> list[tuple[Question, bool]] | None:
    """Return what came first for the held-out labelled questions; None when there are none."""
    known = question_files(settings.corpus)
    return first_right(index, held_out(settings.corpus)) if known else None


def _compare(
    asked: Sequence[tuple[Question, bool]],
    skipped: Sequence[Skipped],
    settings: Settings,
    encoder: Encoder,
) -> None:
    """Refuse a drop of the quality on today's questions, or on those of the old index's build.

    One question of a handful is no drop.
    """
    try:
        old = generations.current(settings.index).generation
    except AssistantError:
        return
    quality, before = recall(asked), old.manifest.facts.get("recall@1")
    failing = [question for question, right in asked if not right]
    if not mismatch(old, encoder, settings):
        # Today's questions may name passages that are new; the old index may have been lost.
        with contextlib.suppress(BadInput, IndexUnusable):
            then = _asked(Index(old.folder, encoder, settings), settings) or []
            right_then = {question for question, right in then if right}
            before, failing = recall(then), [one for one in failing if one in right_then]
    if (
        before is None
        or quality >= before - settings.quality_drop
        or len(failing) < _FEWEST_FAILING
    ):
        return
    raise QualityDropped(
        f"the new index answers {quality:.1%} of the labelled questions with the right passage "
        f"first, the old one {before:.1%}: a drop of more than quality_drop = "
        f"{settings.quality_drop}. Newly wrong: {_named([one.ask for one in failing])}. "
        f"{_unread(skipped)}The old index stays in use. Mend the guide, or the labels in "
        f"{settings.corpus / FOLDER}, and build again; see more by building beside it, with "
        "assistant build --index NEW and assistant evaluate --index NEW; or switch all the same "
        "with: assistant build --force"
    )


def _unread(skipped: Sequence[Skipped]) -> str:
    """Return a sentence on the files that were skipped, "" for none: often they are the cause."""
    files = [f"{one.path} ({one.reason})" for one in skipped]
    return f"Files that were skipped: {_named(files)}. " if files else ""


def _named(words: Sequence[str]) -> str:
    more = f" and {len(words) - _MOST_NAMED} more" if len(words) > _MOST_NAMED else ""
    return "; ".join(words[:_MOST_NAMED]) + more


def _load(settings: Settings, progress: Progress) -> Corpus:
    count = 0

    def tick(_: str) -> None:
        nonlocal count
        count += 1
        progress("read", count, 0)

    return load_corpus(settings.corpus, settings, tick)


def _previous_vectors(settings: Settings, encoder: Encoder) -> dict[str, Vectors]:
    """Return the vectors that can be reused: those of the current index, if it fits."""
    try:
        opened = generations.current(settings.index)
        if mismatch(opened.generation, encoder, settings):
            return {}
        return stored_vectors(opened.generation.folder, settings)
    except AssistantError:
        return {}


def embed(
    views: Sequence[View],
    engine: Engine,
    dimensions: int,
    known: dict[str, Vectors],
    progress: Progress,
) -> tuple[Vectors, int]:
    """Return a vector for every view, encoding each text once that is not known yet.

    The second value is for how many views nothing had to be encoded. Raises IndexUnusable when the
    engine leaves texts out.
    """
    vectors = np.zeros((len(views), dimensions), dtype=np.float32)
    missing: dict[str, list[int]] = {}
    for row, view in enumerate(views):
        if (vector := known.get(view.text)) is not None:
            vectors[row] = vector
        else:
            missing.setdefault(view.text, []).append(row)
    texts, done = list(missing), 0
    for begin, part in engine(texts):
        for text, vector in zip(texts[begin : begin + len(part)], part, strict=True):
            vectors[missing[text]] = vector
        done += len(part)
        progress("embed", done, len(texts))
    if done != len(texts):
        raise IndexUnusable(f"{done} of {len(texts)} texts were encoded. Build again")
    return vectors, len(views) - sum(map(len, missing.values()))
