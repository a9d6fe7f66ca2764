"""Embed a corpus in parts, on as many machines as there are, and join the parts into one index.

The i-th of n shards has the documents whose content's hash falls to it. It is a folder, `i-of-n`,
with the vectors of their views and a manifest; it is there as a whole or not at all. Whoever makes
shards reads the whole corpus, since questions of one file may belong to passages of another.
"""

import re
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from assistant import generations
from assistant.build import Engine, Prepared, Progress, Source, embed, index_facts, prepare
from assistant.embed import Encoder, Vectors
from assistant.errors import IndexUnusable, UsageError
from assistant.generations import Manifest
from assistant.records import Document, View
from assistant.settings import Settings

VECTORS = "vectors.npy"
_NAME = re.compile(r"([1-9]\d{0,5})-of-([1-9]\d{0,5})")
_ROWS = 100_000  # copied at once


@dataclass(frozen=True, slots=True)
class Shard:
    """Name the part `number` (from 1) of `count`."""

    number: int
    count: int

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @property
    def folder(self) -> str:
        """Return the name of its folder."""
        return f"{self.number}-of-{self.count}"

    def has(self, document: Document) -> bool:
        """Tell whether a document falls to this part."""
        return int(document.sha256[:16], 16) % self.count == self.number - 1


@dataclass(frozen=True, slots=True)
class Made:
    """Tell what a shard holds; `seconds` is None where it was finished before."""

    shard: Shard
    folder: Path
    documents: int
    views: int
    seconds: float | None


def parse(text: str) -> Shard:
    """Read `2/4`; raise UsageError for what is no part."""
    number, _, count = text.partition("/")
    if not (number.isascii() and number.isdigit() and count.isascii() and count.isdigit()):
        raise UsageError(f"--shard {text!r}: expected a part such as 2/4")
    shard = Shard(int(number), int(count))
    if not _NAME.fullmatch(shard.folder) or shard.number > shard.count:
        raise UsageError(f"--shard {text!r}: expected 1/{count} to {count}/{count}")
    return shard


def make(
    shard: Shard,
    place: Path,
    settings: Settings,
    encoder: Encoder,
    engine: Engine,
    progress: Progress = lambda *_: None,
) -> Made:
    """Embed a part of the corpus into a folder; one that is finished and fits is left alone."""
    started = time.monotonic()
    folder = place / shard.folder
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"cannot write to {place}: {error.strerror}. Choose another --out"
        ) from None
    with generations.locked(place / f".{shard.folder}.lock"):
        own = _own(shard, prepare(settings, progress))
        facts = {**index_facts(encoder, settings), "documents": own.texts}
        done = Made(shard, folder, len(own.corpus), len(own.views), None)
        if not _why_not(folder, own.corpus, facts):
            return done
        draft = folder.with_name(shard.folder + ".tmp")
        for left in (draft, folder):
            shutil.rmtree(left, ignore_errors=True)
        try:
            draft.mkdir()
            vectors, _ = embed(own.views, engine, encoder.dimensions, {}, progress)
            np.save(draft / VECTORS, vectors)
            generations.seal(draft, shard.folder, own.corpus, facts)
            generations.put(draft, folder)
        except OSError as error:
            raise IndexUnusable(
                f"shard {shard} cannot be written to {place}: {error.strerror}. Free some space, "
                f"then: {_command(shard, place)}"
            ) from None
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    return Made(shard, folder, done.documents, done.views, time.monotonic() - started)


def joined(place: Path, settings: Settings, encoder: Encoder) -> Source:
    """Return a source of vectors that takes them from the shards in a folder.

    It raises IndexUnusable, naming the shard and the command that makes it, when one is missing,
    damaged, or of another corpus, model or setting than the index to be built.
    """

    def source(prepared: Prepared, progress: Progress) -> tuple[Vectors, int]:
        shards = _found(place)
        parts: dict[str, Vectors] = {}
        for done, shard in enumerate(shards, 1):
            own = _own(shard, prepared)
            facts = {**index_facts(encoder, settings), "documents": own.texts}
            if reason := _why_not(place / shard.folder, own.corpus, facts):
                raise IndexUnusable(
                    f"shard {shard} {reason}. Make it with: {_command(shard, place)}"
                )
            parts.update(_parts(place / shard.folder, own.texts))
            progress("join", done, len(shards))
        return _one_file(prepared, parts, settings.index), len(prepared.views)

    return source


@dataclass(frozen=True, slots=True)
class _Own:
    """Hold what falls to a shard.

    `corpus` has the hashes of its documents, `texts` lists these with the number and the hash of
    their views' texts.
    """

    corpus: dict[str, str]
    views: list[View]
    texts: list[list[Any]]


def _own(shard: Shard, prepared: Prepared) -> _Own:
    corpus = {one.path: one.sha256 for one in prepared.corpus.documents if shard.has(one)}
    views = [view for view in prepared.views if prepared.chunks[view.chunk].path in corpus]
    grouped = groupby(views, lambda view: prepared.chunks[view.chunk].path)
    texts = [[path, *_summed(list(group))] for path, group in grouped]
    return _Own(corpus, views, texts)


def _summed(views: Sequence[View]) -> tuple[int, str]:
    summed = sha256()
    for view in views:
        text = view.text.encode("utf-8", "surrogatepass")
        summed.update(len(text).to_bytes(8, "little") + text)
    return len(views), summed.hexdigest()


def _found(place: Path) -> list[Shard]:
    """Return every shard that there must be, by those that there are."""
    names = [_NAME.fullmatch(path.name) for path in place.glob("*-of-*")]
    counts = {int(name[2]) for name in names if name}
    if not counts:
        raise UsageError(f"no shards in {place}. Make them with: assistant build --shard 1/2 …")
    if len(counts) > 1:
        listed = " and of ".join(map(str, sorted(counts)))
        raise UsageError(f"{place} has shards of {listed}: remove those that are not meant")
    count = counts.pop()
    return [Shard(number, count) for number in range(1, count + 1)]


def _why_not(folder: Path, corpus: dict[str, str], facts: dict[str, Any]) -> str:
    """Return in words why a shard is not the one that is wanted; "" when it is."""
    if not folder.is_dir():
        return "is missing"
    try:
        manifest = generations.verify(folder)
    except IndexUnusable as error:
        return f"is damaged: {str(error).removesuffix(generations.REPAIR).rstrip('. ')}"
    return _other_corpus(manifest, corpus) or _other_facts(manifest, facts)


def _other_corpus(manifest: Manifest, corpus: dict[str, str]) -> str:
    differ = dict(sorted(set(manifest.corpus.items()) ^ set(corpus.items())))
    return f"is of another corpus: {next(iter(differ))} is not the same" if differ else ""


def _other_facts(manifest: Manifest, facts: dict[str, Any]) -> str:
    for name, wanted in facts.items():
        seen = manifest.facts.get(name)
        if seen == wanted:
            continue
        if name != "documents":
            return f"was made with {name} = {seen!r}, the settings say {wanted!r}"
        path = next((one[0] for one in wanted if one not in (seen or [])), "a document")
        return f"holds other search texts of {path}: a file of questions has changed"
    return ""


def _parts(folder: Path, texts: list[list[Any]]) -> dict[str, Vectors]:
    """Map the vectors of a shard, by document."""
    if not texts:
        return {}
    vectors = np.load(folder / VECTORS, mmap_mode="r", allow_pickle=False)
    begins = np.cumsum([0, *(count for _, count, _ in texts)])
    return {
        path: vectors[begin : begin + count]
        for (path, count, _), begin in zip(texts, begins.tolist(), strict=False)
    }


def _one_file(prepared: Prepared, parts: dict[str, Vectors], folder: Path) -> Vectors:
    """Lay the vectors of all documents behind each other in a file without a name, and map it."""
    dimensions = next(iter(parts.values())).shape[1]
    with tempfile.TemporaryFile(dir=folder) as file:
        for path, _ in groupby(prepared.chunks[view.chunk].path for view in prepared.views):
            for begin in range(0, len(parts[path]), _ROWS):
                file.write(parts[path][begin : begin + _ROWS].astype("<f4").tobytes())
        file.flush()
        return np.memmap(file, "<f4", "r", shape=(len(prepared.views), dimensions))


def _command(shard: Shard, place: Path) -> str:
    return f"assistant build --shard {shard} --out {place}"
