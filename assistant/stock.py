"""Take stock: which generations there are and whether they are whole, what changed in the corpus.

Reading every file of an index or of a guide takes a while, so what was found is kept until what it
was found in changes.
"""

import os
import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, TypeVar

from assistant import generations
from assistant.build import CONFIDENCE, cut, look_at
from assistant.confidence import Curve
from assistant.errors import AssistantError, BadInput, IndexUnusable
from assistant.generations import Generation, Manifest
from assistant.load import load_corpus
from assistant.records import Skipped
from assistant.settings import Settings

Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class Shelved:
    """Hold a generation on disk and what checking its hashes gave at a time.

    `generation` and `curve` are None when it is damaged; `problem` says how.
    """

    id: str
    checked: datetime
    generation: Generation | None = None
    curve: Curve | None = None
    problem: str = ""

    @property
    def made(self) -> datetime | None:
        """Return when it was built, None when that cannot be told."""
        return datetime.fromisoformat(self.generation.manifest.created) if self.generation else None


@dataclass(frozen=True, slots=True)
class Changes:
    """Hold the files by what became of them, those that want a look, and what a build would say.

    `problem` is why the folder, or the list of contacts in it, cannot be read, "" when it can;
    `read` tells whether the files could be compared all the same.
    """

    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    warnings: tuple[Skipped, ...] = ()
    problem: str = ""
    read: bool = True

    @property
    def any(self) -> bool:
        """Tell whether a build would be of other files."""
        return bool(self.added or self.changed or self.removed)


class Stock:
    """Know the generations of an index folder and the state of its corpus. Thread-safe."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._shelf: dict[str, Shelved] = {}
        self._kept: dict[str, tuple[Hashable, Any]] = {}

    def generations(self) -> list[Shelved]:
        """Return the generations on disk, newest first; those that are new here are checked."""
        with self._lock:
            listed = generations.history(self._settings.index)
            known = {name: self._shelf.get(name) or self._check(name) for name in listed}
            self._shelf = known
            return list(reversed(known.values()))

    def verify(self) -> None:
        """Check the hashes of every generation anew."""
        with self._lock:
            self._shelf = {}
        self.generations()

    def changes(self, manifest: Manifest) -> Changes:
        """Compare the corpus folder, by the hash of every file, with what an index was built of."""
        key = (manifest.id, self.signature())
        return self.once("changes", key, lambda: _changes(manifest, self._settings))

    def signature(self) -> str:
        """Return what changes, cheaply, whenever a file of the corpus is written or replaced."""
        found = sha256()
        for folder, folders, names in os.walk(self._settings.corpus):
            folders.sort()
            for name in sorted(names):
                found.update(repr(_marks(os.path.join(folder, name))).encode())
        return found.hexdigest()

    def once(self, name: str, key: Hashable, find: Callable[[], Found]) -> Found:
        """Return what was found last under a name, found anew when its key is another."""
        kept = self._kept.get(name)
        if kept is None or kept[0] != key:
            kept = self._kept[name] = (key, find())
        found: Found = kept[1]
        return found

    def _check(self, id: str) -> Shelved:
        folder = self._settings.index / "generations" / id
        at = datetime.now(UTC)
        try:
            generation = Generation(id, folder, generations.verify(folder))
            return Shelved(id, at, generation, Curve.read(folder / CONFIDENCE))
        except IndexUnusable as error:
            return Shelved(id, at, problem=str(error))


def _changes(manifest: Manifest, settings: Settings) -> Changes:
    try:
        corpus = load_corpus(settings.corpus, settings)
    except AssistantError as error:
        return Changes(problem=str(error), read=False)
    warnings, problem = corpus.warnings, ""
    try:
        warnings = look_at(corpus, cut(corpus, settings), settings)
    except BadInput as error:
        problem = str(error)
    now, then = corpus.files, manifest.corpus
    return Changes(
        added=tuple(sorted(now.keys() - then.keys())),
        changed=tuple(sorted(name for name in now.keys() & then.keys() if now[name] != then[name])),
        removed=tuple(sorted(then.keys() - now.keys())),
        skipped=corpus.skipped,
        warnings=warnings,
        problem=problem,
    )


def _marks(path: str) -> tuple[str, ...]:
    try:
        state = os.stat(path)
    except OSError:
        return (ascii(path),)
    return (ascii(path), str(state.st_ino), str(state.st_size), str(state.st_mtime_ns))
