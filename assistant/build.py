"""Build an index: corpus → passages → vectors → calibrated, verified generation → switch."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from assistant import generations
from assistant.calibrate import calibrate
from assistant.embed import Encoder, Vectors, open_encoder
from assistant.errors import AssistantError, CorpusEmpty
from assistant.load import load_corpus
from assistant.records import Corpus, Skipped, View
from assistant.search import Index, stored_vectors, write_tables
from assistant.settings import Settings
from assistant.split import chunks as split_chunks
from assistant.split import sections as split_sections
from assistant.split import views as make_views

TABLES = 1
"""Version of what the tables mean; raised when splitting, folding or views change."""

CONFIDENCE = "confidence.json"
_BATCH = 2048

Progress = Callable[[str, int, int], None]
"""Called with a stage's name, the steps done and the steps in all (0 when not known)."""


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


def build(
    settings: Settings, encoder: Encoder | None = None, progress: Progress = lambda *_: None
) -> Report:
    """Build a generation from the corpus and switch to it; on any error the old one stays."""
    started = time.monotonic()
    encoder = encoder or open_encoder(settings)
    with generations.build(settings.index, keep=settings.keep_generations) as draft:
        corpus = _load(settings, progress)
        sections = sum(len(split_sections(document)) for document in corpus.documents)
        chunks = [
            chunk
            for document in corpus.documents
            for chunk in split_chunks(document, settings.chunk_chars)
        ]
        if not chunks:
            raise CorpusEmpty(f"no passage came out of {settings.corpus}: its files hold no text.")
        views = make_views(chunks, corpus.variants)
        vectors, reused = _embed(views, encoder, _previous_vectors(settings, encoder), progress)
        progress("write", 0, 0)
        write_tables(draft.folder, corpus.documents, chunks, views, vectors, settings.precision)
        facts = index_facts(encoder, settings)
        progress("calibrate", 0, 0)
        index = Index(draft.folder, encoder, settings)
        calibrate(index, settings, facts).write(draft.folder / CONFIDENCE)
        counts = {"documents": len(corpus.documents), "passages": len(chunks), "views": len(views)}
        about = {"encoder": encoder.name, "counts": counts}
        generation = draft.commit(corpus=corpus.files, facts={**facts, **about})
    return Report(
        generation=generation.id,
        files=len(corpus.files),
        skipped=corpus.skipped,
        warnings=corpus.warnings,
        sections=sections,
        passages=len(chunks),
        views=len(views),
        reused=reused,
        encoded=len(views) - reused,
        seconds=time.monotonic() - started,
    )


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
        return stored_vectors(opened.generation.folder)
    except AssistantError:
        return {}


def _embed(
    views: Sequence[View], encoder: Encoder, known: dict[str, Vectors], progress: Progress
) -> tuple[Vectors, int]:
    """Return a vector for every view, encoding only texts that are not known yet."""
    vectors = np.zeros((len(views), encoder.dimensions), dtype=np.float32)
    missing: dict[str, list[int]] = {}
    for row, view in enumerate(views):
        if (vector := known.get(view.text)) is not None:
            vectors[row] = vector
        else:
            missing.setdefault(view.text, []).append(row)
    texts = list(missing)
    for begin in range(0, len(texts), _BATCH):
        batch = texts[begin : begin + _BATCH]
        for text, vector in zip(batch, encoder.encode_passages(batch), strict=True):
            vectors[missing[text]] = vector
        progress("embed", min(begin + _BATCH, len(texts)), len(texts))
    return vectors, len(views) - sum(map(len, missing.values()))
