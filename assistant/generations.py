"""Keep the folder `index/` safe: generations beside each other, a manifest each, one pointer.

A build writes into `generations/<id>.tmp`, syncs every file, writes the manifest last, renames the
folder and then replaces the pointer file `CURRENT`: a reader sees the old index or the new one,
never a mix (the way of Lucene's commits). One builder at a time, by a kernel lock that a dead
process cannot keep. A reader verifies every hash, and falls back to the generation before.
"""

import contextlib
import hashlib
import json
import logging
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from assistant.errors import (
    AssistantError,
    BuildBusy,
    IndexUnusable,
    NoIndex,
    StoreDown,
    UsageError,
)

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

FORMAT = 1
CURRENT = "CURRENT"
MANIFEST = "manifest.json"
REPAIR = "Rebuild with: assistant build"

_log = logging.getLogger(__name__)
_GENERATIONS = "generations"
_LOCK = ".lock"
_DRAFT = ".tmp"
_ID = re.compile(r"(\d{6,})-[0-9a-f]{8}")
_TRIES = 5

Release = Callable[[Path], None]
"""Gives up what a generation's folder holds elsewhere, before the folder goes.

Raises AssistantError when that cannot be done now: then the folder stays, to be tried again.
"""


@dataclass(frozen=True, slots=True)
class FileRecord:
    """Hold what a file of a generation must be: sha256 in hexadecimal, and size in bytes."""

    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """Hold what a generation is made of; `facts` are the builder's own."""

    format: int
    id: str
    created: str
    files: dict[str, FileRecord]
    corpus: dict[str, str]
    facts: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Generation:
    """Hold a verified generation: its id, its folder and its manifest."""

    id: str
    folder: Path
    manifest: Manifest


@dataclass(frozen=True, slots=True)
class Opened:
    """Hold the generation to use, and what an operator should know about it."""

    generation: Generation
    notes: tuple[str, ...] = ()


class Draft:
    """A generation that is being built: write files into `folder`, then `commit`."""

    def __init__(self, root: Path, keep: int, release: Release) -> None:
        self._root = root
        self._keep = keep
        self._release = release
        self.id = _next_id(root)
        self.folder = root / _GENERATIONS / (self.id + _DRAFT)
        self.folder.mkdir(parents=True)

    def commit(
        self,
        corpus: dict[str, str],
        facts: dict[str, Any],
        check: Callable[[Generation], None] = lambda _: None,
    ) -> Generation:
        """Make the draft durable and current; `check` may raise to leave the old one in use."""
        manifest = seal(self.folder, self.id, corpus, facts)
        check(Generation(self.id, self.folder, manifest))
        final = self.folder.with_name(self.id)
        put(self.folder, final)
        self.folder = final
        before = pointer(self._root)
        _point(self._root, self.id)
        sweep(self._root, self._keep, before, self._release)
        return Generation(self.id, final, manifest)


def seal(folder: Path, id: str, corpus: dict[str, str], facts: dict[str, Any]) -> Manifest:
    """Make the files of a folder durable and write its manifest last."""
    files = {}
    for path in _files(folder):
        _sync(path)
        files[path.relative_to(folder).as_posix()] = _record(path)
    for inner in sorted({path.parent for path in _files(folder)} | {folder}):
        _sync(inner)
    created = datetime.now(UTC).isoformat(timespec="seconds")
    manifest = Manifest(FORMAT, id, created, files, corpus, facts)
    _write(folder / MANIFEST, _sealed(asdict(manifest)))
    _sync(folder)
    return manifest


def put(draft: Path, final: Path) -> None:
    """Give a sealed folder its name, durably; there must be none of that name."""
    os.rename(draft, final)
    _sync(final.parent)


def _nothing(_: Path) -> None:
    """Release nothing: all that a generation has lies in its folder."""


@contextlib.contextmanager
def build(root: Path, keep: int = 2, release: Release = _nothing) -> Iterator[Draft]:
    """Build a generation under the lock; an error removes the draft and leaves all else as it was.

    Raises BuildBusy when another process is building.
    """
    try:
        (root / _GENERATIONS).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise IndexUnusable(f"cannot write to {root}: {error.strerror}. {_CHOOSE}") from None
    with locked(root / _LOCK):
        _remove_drafts(root, release)
        try:
            draft = Draft(root, keep, release)
        except OSError as error:
            raise IndexUnusable(f"cannot write to {root}: {error.strerror}. {_CHOOSE}") from None
        try:
            yield draft
        except IndexUnusable as error:
            unchanged = f"the build stopped: {error}. The index in use is unchanged"
            raise type(error)(unchanged) from error
        except OSError as error:
            raise IndexUnusable(
                f"the build stopped: {error}. The index in use is unchanged. Free some space or "
                "repair the disk, then: assistant build"
            ) from error
        finally:
            if draft.folder.suffix == _DRAFT:
                _remove(draft.folder, release)


_CHOOSE = "Choose a writable folder with --index DIR, then: assistant build"


def current(root: Path, accept: Callable[[Generation], None] = lambda _: None) -> Opened:
    """Return the generation to use: the current one, or the newest older one that is whole.

    `accept` may raise IndexUnusable to refuse a generation that does not fit the settings. Raises
    NoIndex when nothing was ever built, IndexUnusable when nothing that was built can be used, and
    StoreDown when that cannot be told now.
    """
    for _ in range(_TRIES):
        before = pointer(root)
        try:
            return _choose(root, before, accept)
        except IndexUnusable:
            if pointer(root) == before:  # else a build swept away what was being read
                raise
    raise IndexUnusable(f"{root} changed {_TRIES} times while it was opened. Try again.")


def _choose(root: Path, pointed: str | None, accept: Callable[[Generation], None]) -> Opened:
    listed = _listed(root)
    if pointed is None and not listed:
        if (root / CURRENT).exists():
            raise IndexUnusable(f"{root / CURRENT} is damaged and no generation is left. {REPAIR}")
        raise NoIndex(f"no index in {root} yet. Build it with: assistant build")
    order = ([pointed] if pointed else []) + [name for name in reversed(listed) if name != pointed]
    notes: list[str] = [] if pointed else [f"{root / CURRENT} is missing or damaged. {REPAIR}"]
    for name in order:
        try:
            folder = root / _GENERATIONS / name
            generation = Generation(name, folder, verify(folder))
            accept(generation)
            if notes:
                notes.append(f"The generation {name} is used instead.")
            return Opened(generation, tuple(notes))
        except StoreDown:
            raise
        except IndexUnusable as error:
            notes.append(str(error))
    raise IndexUnusable(notes[0] if pointed or len(notes) == 1 else " ".join(notes))


def verify(folder: Path) -> Manifest:
    """Check every file of a generation against its manifest; name the first that differs."""
    manifest = _read_manifest(folder)
    for name, wanted in manifest.files.items():
        path = folder / name
        if path.is_symlink() or not path.is_file():
            raise IndexUnusable(f"{path} is missing. {REPAIR}")
        if (size := path.stat().st_size) != wanted.size:
            raise IndexUnusable(f"{path} has {size} bytes, expected {wanted.size}. {REPAIR}")
    with ThreadPoolExecutor() as pool:  # large files are hashed side by side
        records = pool.map(_record, [folder / name for name in manifest.files])
        for seen, (name, wanted) in zip(records, manifest.files.items(), strict=True):
            if seen.sha256 != wanted.sha256:
                raise IndexUnusable(f"{folder / name} is damaged: its sha256 differs. {REPAIR}")
    known = {folder / name for name in manifest.files} | {folder / MANIFEST}
    if strange := sorted(set(_files(folder)) - known):
        raise IndexUnusable(f"{strange[0]} does not belong to the index. {REPAIR}")
    return manifest


def pointer(root: Path) -> str | None:
    """Return the id in `CURRENT`; None when it is missing or no id."""
    try:
        text = (root / CURRENT).read_bytes()[:64].decode("ascii").removesuffix("\n")
    except (OSError, UnicodeDecodeError):
        return None
    return text if _ID.fullmatch(text) else None


def rollback(root: Path) -> Generation:
    """Switch to the newest whole generation before the current one."""
    with locked(root / _LOCK):
        now = pointer(root)
        for name in reversed([n for n in _listed(root) if now is None or n < now]):
            with contextlib.suppress(IndexUnusable):
                folder = root / _GENERATIONS / name
                generation = Generation(name, folder, verify(folder))
                _point(root, name)
                return generation
    raise IndexUnusable(f"no earlier generation in {root} to go back to. {REPAIR}")


def history(root: Path) -> list[str]:
    """Return the ids of the generations on disk, oldest first."""
    return _listed(root)


def named(root: Path, name: str) -> Generation:
    """Return a generation by its id, verified; raise IndexUnusable, listing those there are."""
    if name not in (listed := _listed(root)):
        there = ", ".join(listed) or "none"
        raise IndexUnusable(f"no generation {name!r} in {root}; there are: {there}")
    folder = root / _GENERATIONS / name
    return Generation(name, folder, verify(folder))


def sweep(root: Path, keep: int, before: str | None = None, release: Release = _nothing) -> None:
    """Remove drafts and all but the newest `keep` generations; the current one always stays.

    `before` is the generation that was in use before it: what is newer than that was rolled back
    from, and goes, so that the next rollback does not lead there.
    """
    now = pointer(root)
    listed = [name for name in _listed(root) if name != now]
    left = [name for name in listed if before is not None and name > before]
    listed = [name for name in listed if name not in left]
    spare = left + listed[: max(0, len(listed) - (keep - 1))]
    for name in spare:
        # Renamed first, so that a sweep cut short leaves a draft and not half a generation.
        gone = root / _GENERATIONS / (name + _DRAFT)
        with contextlib.suppress(OSError):
            os.rename(root / _GENERATIONS / name, gone)
    _remove_drafts(root, release)


def _remove_drafts(root: Path, release: Release) -> None:
    for path in (root / _GENERATIONS).glob("*" + _DRAFT):
        _remove(path, release)
    with contextlib.suppress(OSError):
        (root / (CURRENT + _DRAFT)).unlink()


def _remove(folder: Path, release: Release) -> None:
    try:
        release(folder)
    except AssistantError as error:
        _log.warning("%s stays for now: %s", folder.name, error)
    else:
        shutil.rmtree(folder, ignore_errors=True)


def _listed(root: Path) -> list[str]:
    try:
        names = os.listdir(root / _GENERATIONS)
    except OSError:
        return []
    return sorted((n for n in names if _ID.fullmatch(n)), key=lambda n: (int(n.split("-")[0]), n))


def _next_id(root: Path) -> str:
    """Return an id after all others: counted, not timed, so clocks may jump."""
    names = [*_listed(root), pointer(root) or ""]
    last = max((int(name.split("-")[0]) for name in names if name), default=0)
    return f"{last + 1:06d}-{secrets.token_hex(4)}"


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a builder's lock; the kernel frees it when the process ends, however it ends.

    Raises BuildBusy when another process holds it.
    """
    if fcntl is None:
        raise UsageError(
            "building needs file locks (flock), which this system lacks; use Linux or macOS"
        )
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise IndexUnusable(f"cannot write to {path.parent}: {error.strerror}. {_CHOOSE}") from None
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            since = os.pread(file, 200, 0).decode("utf-8", "replace").strip()
            raise BuildBusy(
                f"a build is already running in {path.parent} since {since or 'just now'}. "
                "Wait for it to end; its lock is freed even if it is killed."
            ) from None
        with contextlib.suppress(OSError):  # a full disk must not stop what it only describes
            os.ftruncate(file, 0)
            started = datetime.now().astimezone().isoformat(" ", "seconds")
            os.pwrite(file, f"{started} (pid {os.getpid()})\n".encode(), 0)
        yield
    finally:
        os.close(file)


def _point(root: Path, name: str) -> None:
    """Replace the pointer file atomically and durably."""
    draft = root / (CURRENT + _DRAFT)
    _write(draft, name + "\n")
    os.replace(draft, root / CURRENT)
    _sync(root)


def _read_manifest(folder: Path) -> Manifest:
    path = folder / MANIFEST
    try:
        values = json.loads(path.read_bytes())
        if values["format"] > FORMAT:
            raise IndexUnusable(
                f"{path} has format {values['format']}, this program reads up to {FORMAT}. "
                f"Update the program, or: {REPAIR[0].lower() + REPAIR[1:]}"
            )
        if values.pop("seal", None) != _seal(values):
            raise ValueError("its own checksum differs")
        files = {str(name): FileRecord(**record) for name, record in values["files"].items()}
        if any(Path(name).is_absolute() or ".." in Path(name).parts for name in files):
            raise ValueError("a file outside of the generation")
        manifest = Manifest(**{**values, "files": files})
    except FileNotFoundError:
        raise IndexUnusable(f"{path} is missing. {REPAIR}") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise IndexUnusable(f"{path} is damaged ({error!s:.100}). {REPAIR}") from None
    if manifest.id != folder.name.removesuffix(_DRAFT):
        raise IndexUnusable(f"{path} belongs to generation {manifest.id}. {REPAIR}")
    return manifest


def _seal(values: dict[str, Any]) -> str:
    """Return the checksum that a manifest carries of itself."""
    plain = json.dumps(values, ensure_ascii=False, sort_keys=True)
    return hashlib.sha256(plain.encode("utf-8", "surrogatepass")).hexdigest()


def _sealed(values: dict[str, Any]) -> str:
    return json.dumps({**values, "seal": _seal(values)}, ensure_ascii=False, indent=1)


def _files(folder: Path) -> list[Path]:
    """Return every file below a folder; lock files of the search engine do not count."""
    found = (Path(base) / name for base, _, names in os.walk(folder) for name in names)
    return sorted(p for p in found if p.name != MANIFEST and p.suffix != ".lock")


def _record(path: Path) -> FileRecord:
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            return FileRecord(digest, file.tell())
    except OSError as error:
        raise IndexUnusable(f"{path} cannot be read: {error.strerror}. {REPAIR}") from None


def _write(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _sync(path: Path) -> None:
    """Make a file's bytes, or a folder's names, durable."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
