"""Load a corpus folder: every file is read right, or skipped and named with the reason.

Not guide text, and passed over in silence: `contacts.toml`, the folder `questions/`, a `README.md`
at the top, and names that begin with a dot.
"""

import codecs
import hashlib
import os
import stat
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from assistant import formats
from assistant.errors import BadInput, CorpusEmpty
from assistant.records import Corpus, Document, Skipped, Variants
from assistant.screen import clean
from assistant.settings import Settings

_NOT_GUIDE = {"contacts.toml", "README.md", "README.zh-CN.md"}
_QUESTIONS = "questions"
_SUFFIXES = ", ".join([*formats.TEXT, *formats.QA, *formats.BINARY])
_PLAUSIBLE = 0.85


class _Skip(Exception):
    """Carry the reason for skipping a file."""


def load_corpus(
    root: Path, settings: Settings, progress: Callable[[str], None] = lambda _: None
) -> Corpus:
    """Read every guide file below a folder; raise CorpusEmpty when none gives any text."""
    if not root.is_dir():
        raise CorpusEmpty(
            f"no corpus folder at {root}; expected a folder of guide files ({_SUFFIXES}). "
            "Name one with --corpus DIR."
        )
    documents: list[Document] = []
    variants: list[Variants] = []
    skipped: list[Skipped] = []
    warnings: list[Skipped] = []
    files: dict[str, str] = {}
    for name, path in _walk(root):
        shown = _shown(name)
        try:
            if len(files) >= settings.max_files:
                raise _Skip(f"more than {settings.max_files} files (setting max_files)")
            data = _read(root, path, int(settings.max_file_mb * 1_000_000))
            document, found = _parse(shown, data)
        except _Skip as reason:
            skipped.append(Skipped(shown, str(reason)))
            continue
        progress(shown)
        files[shown] = hashlib.sha256(data).hexdigest()
        variants.extend(found)
        if document.text.strip():
            documents.append(document)
            warnings.extend(_hidden_characters(document))
    if not documents:
        listed = "; ".join(f"{one.path}: {one.reason}" for one in skipped[:5]) or "it is empty"
        raise CorpusEmpty(f"no guide text in {root} ({listed}). Expected files: {_SUFFIXES}.")
    return Corpus(
        tuple(documents), tuple(variants), tuple(skipped), files=files, warnings=tuple(warnings)
    )


def _walk(root: Path) -> Iterator[tuple[str, Path]]:
    """Yield relative names and paths of everything that is not a folder, in sorted order."""
    for folder, folders, names in os.walk(root, followlinks=False):
        links = [name for name in folders if (Path(folder) / name).is_symlink()]
        folders[:] = sorted(
            f for f in folders if f not in links and not _passed_over(root, folder, f)
        )
        for name in sorted([*names, *links]):
            if not _passed_over(root, folder, name):
                path = Path(folder) / name
                yield path.relative_to(root).as_posix(), path


def _passed_over(root: Path, folder: str, name: str) -> bool:
    if name.startswith("."):
        return True
    return Path(folder) == root and (name in _NOT_GUIDE or name == _QUESTIONS)


def _shown(name: str) -> str:
    """Return a name that can be printed and stored, whatever bytes it has."""
    return name if name.isprintable() and "�" not in name else ascii(name)[1:-1]


def _read(root: Path, path: Path, limit: int) -> bytes:
    """Read a regular file inside the root whole and unchanged; else raise _Skip."""
    for _ in range(2):
        try:
            resolved = path.resolve(strict=True)
            status = resolved.stat()
        except (OSError, RuntimeError, ValueError):
            raise _Skip("a link to nothing, or one that goes in circles") from None
        if not resolved.is_relative_to(root.resolve()):
            raise _Skip("a link that leaves the corpus folder")
        if stat.S_ISDIR(status.st_mode):
            raise _Skip("a link to a folder; links to folders are not followed")
        if not stat.S_ISREG(status.st_mode):
            raise _Skip("not a regular file")
        if status.st_size > limit:
            raise _Skip(f"{status.st_size:,} bytes, at most {limit:,} (setting max_file_mb)")
        try:
            with open(resolved, "rb") as file:
                data = file.read(limit + 1)
                after = os.fstat(file.fileno())
        except OSError as error:
            raise _Skip(f"cannot be read: {error.strerror}") from None
        if (len(data), after.st_mtime_ns) == (status.st_size, status.st_mtime_ns):
            return data
    raise _Skip("it changed while it was read; build again when it is at rest")


def _parse(path: str, data: bytes) -> tuple[Document, tuple[Variants, ...]]:
    lower = path.lower()
    suffix = "." + lower.rsplit(".", 1)[-1]
    if not data.strip(b"\0 \t\r\n\xef\xbb\xbf\xff\xfe"):
        raise _Skip("empty")
    try:
        if suffix in formats.BINARY:
            parsed = formats.BINARY[suffix](data)
        elif qa := next(
            (reader for end, reader in formats.QA.items() if lower.endswith(end)), None
        ):
            parsed = qa(decode(data), path)
        elif suffix in formats.TEXT:
            parsed = formats.TEXT[suffix](decode(data))
        else:
            raise _Skip(f"not a guide file; read are {_SUFFIXES}")
    except BadInput as error:
        raise _Skip(str(error)) from None
    if not parsed.text.strip() and not parsed.variants:
        raise _Skip("no text in it")
    document = Document(
        path=path,
        title=clean(parsed.title).strip() or path,
        text=parsed.text,
        kind=parsed.kind,
        sha256=hashlib.sha256(data).hexdigest(),
        headings=parsed.headings,
        body=parsed.body,
        date=parsed.date,
        url=parsed.url,
    )
    return document, tuple(
        replace(one, questions=tuple(q for q in map(clean, one.questions) if q.strip()))
        for one in parsed.variants
    )


def decode(data: bytes) -> str:
    """Return the text of a file in UTF-8, UTF-16 or GB18030; raise BadInput rather than guess.

    A file is never half read: a wrong byte names its offset, and text that decodes to unlikely
    characters is refused.
    """
    for mark, name in (
        (codecs.BOM_UTF8, "utf-8"),
        (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"),
    ):
        if data.startswith(mark):
            return _strict(data[len(mark) :], name)
    if name := _unmarked_utf16(data):
        return _strict(data, name)
    if b"\0" in data:
        raise BadInput("a binary file (it has NUL bytes)")
    if data.startswith(
        (b"%PDF-", b"PK\x03\x04", b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"\x1f\x8b")
    ):
        raise BadInput("a binary file under a text file's name")
    try:
        return _printable(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        return _legacy(data, error)


def _strict(data: bytes, name: str) -> str:
    try:
        return _printable(data.decode(name))
    except UnicodeDecodeError as error:
        raise BadInput(
            f"not valid {name}: byte {data[error.start]:#04x} at offset {error.start}"
        ) from None


def _unmarked_utf16(data: bytes) -> str:
    """Return the UTF-16 flavour of a file without a mark, "" when it does not look like one."""
    if len(data) % 2 or len(data) < 4:
        return ""
    for name, high in (("utf-16-le", 1), ("utf-16-be", 0)):
        zeros = data[high::2].count(0)
        if zeros and not data[1 - high :: 2].count(0):
            try:
                if _plausible(data.decode(name)):
                    return name
            except UnicodeDecodeError:
                continue
    return ""


def _legacy(data: bytes, error: UnicodeDecodeError) -> str:
    """Read GB18030 where it gives plausible Chinese, else name the byte that broke UTF-8."""
    complaint = BadInput(
        f"neither UTF-8, UTF-16 nor GB18030: byte {data[error.start]:#04x} at offset {error.start} "
        "breaks UTF-8. Save it as UTF-8."
    )
    if _mostly_utf8(data):
        raise complaint
    try:
        text = data.decode("gb18030")
    except UnicodeDecodeError:
        raise complaint from None
    if not _plausible(text):
        raise complaint
    return _printable(text)


def _mostly_utf8(data: bytes) -> bool:
    """Tell whether a broken file is UTF-8 but for a few bytes."""
    text = data.decode("utf-8", errors="replace")
    wide = sum(ord(c) > 127 for c in text)
    return text.count("\ufffd") * 4 < wide


def _plausible(text: str) -> bool:
    """Tell whether nearly all characters are ASCII, common Chinese or usual punctuation."""
    wide = [c for c in text if ord(c) > 127]
    common = sum(_is_common(c) for c in wide)
    controls = any(
        unicodedata.category(c) in {"Cc", "Co", "Cn"} and c not in "\t\r\n\f" for c in text
    )
    return not controls and common >= _PLAUSIBLE * len(wide)


def _is_common(character: str) -> bool:
    """Tell whether GB 2312 has the character: what real Chinese pages are made of."""
    try:
        character.encode("gb2312")
    except UnicodeEncodeError:
        return False
    return "\u4e00" <= character <= "\u9fff" or unicodedata.category(character)[0] in "PSZ"


def _printable(text: str) -> str:
    controls = [c for c in text if c < " " and c not in "\t\r\n\f\v"]
    if "\0" in controls or len(controls) * 100 > len(text):
        raise BadInput("a binary file (it has control characters)")
    return text


def _hidden_characters(document: Document) -> Iterator[Skipped]:
    """Warn of characters that a reader cannot see: they can carry hidden instructions."""
    plain = document.text.replace("\r\n", "\n").replace("\r", "\n")
    hidden = [c for c in plain if ord(c) > 127 and unicodedata.category(c) == "Cf"]
    if hidden and clean(plain) != plain:
        codes = ", ".join(sorted({f"U+{ord(c):04X}" for c in hidden})[:5])
        yield Skipped(
            document.path, f"read, but it has {len(hidden)} invisible characters ({codes})"
        )
