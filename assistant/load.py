"""Load a corpus folder: every file is read right, or skipped and named with the reason.

Not guide text, and passed over in silence: `contacts.toml`, the folder `questions/`, a `README.md`
at the top, and names that begin with a dot.
"""

import codecs
import errno
import hashlib
import os
import re
import stat
import time
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from assistant import formats
from assistant.errors import BadInput, CorpusEmpty
from assistant.fold import simplify
from assistant.records import Corpus, Document, Skipped, Variants
from assistant.screen import clean, hidden
from assistant.settings import Settings

_NOT_GUIDE = {"contacts.toml", "README.md", "README.zh-CN.md"}
_QUESTIONS = "questions"
_AT_REST_S = 0.05  # longer than a writer that was cut off by the scheduler waits to go on
_SUFFIXES = ", ".join([*formats.TEXT, *formats.QA, *formats.BINARY])


class _Skip(Exception):
    """Carry the reason for skipping a file."""


# --- The folder ---------------------------------------------------------------------------------


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
    limit = int(settings.max_file_mb * 1_000_000)
    for number, (name, path) in enumerate(_walk(root, skipped)):
        shown = _shown(name)
        if number >= settings.max_files:
            reason = f"more than {settings.max_files} files (setting max_files); it and the rest"
            skipped.append(Skipped(shown, f"{reason} were not read"))
            break
        try:
            read, data = _reader(name), _read(root, path, limit)
            parsed = _parsed(read, data, shown)
        except _Skip as problem:
            skipped.append(Skipped(shown, str(problem)))
            continue
        progress(shown)
        files[shown] = hashlib.sha256(data).hexdigest()
        variants.extend(_clean_variants(parsed.variants))
        document = _document(parsed, shown, files[shown])
        if document.text.strip():
            documents.append(document)
        warnings.extend(Skipped(shown, note) for note in [*parsed.notes, *_oddities(parsed.text)])
    warnings.extend(_copies(documents))
    if not documents:
        listed = "; ".join(f"{one.path}: {one.reason}" for one in skipped[:5]) or "it is empty"
        raise CorpusEmpty(f"no guide text in {root} ({listed}). Expected files: {_SUFFIXES}.")
    return Corpus(
        tuple(sorted(documents, key=lambda one: one.path)),
        tuple(variants),
        tuple(sorted(skipped, key=lambda one: one.path)),
        files=files,
        warnings=tuple(sorted(warnings, key=lambda one: one.path)),
    )


def _walk(root: Path, skipped: list[Skipped]) -> Iterator[tuple[str, Path]]:
    """Yield relative names and paths of everything that is not a folder, in a fixed order.

    Folders that cannot be listed are named in `skipped`.
    """

    def unlisted(error: OSError) -> None:
        path = Path(error.filename)
        if path == root:
            raise CorpusEmpty(f"the corpus folder {root} cannot be listed: {error.strerror}")
        name = _shown(path.relative_to(root).as_posix())
        skipped.append(Skipped(name, f"cannot be listed: {error.strerror}"))

    for folder, folders, names in os.walk(root, followlinks=False, onerror=unlisted):
        links = {name for name in folders if (Path(folder) / name).is_symlink()}
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
    """Return a name that can be printed and stored, whatever bytes it has, unlike any other's."""
    return name if name.isprintable() and "\\" not in name else ascii(name)[1:-1]


# --- One file -----------------------------------------------------------------------------------


def _read(root: Path, path: Path, limit: int) -> bytes:
    """Read a regular file inside the root whole and unchanged; else raise _Skip."""
    for _ in range(2):
        try:
            resolved = path.resolve(strict=True)
            if not resolved.is_relative_to(root.resolve()):
                raise _Skip("a link that leaves the corpus folder")
            _refuse_special(resolved.stat().st_mode)
            if (data := _read_at_rest(resolved, limit)) is not None:
                return data
        except (OSError, RuntimeError, ValueError) as error:
            raise _Skip(_unreadable(error)) from None
    raise _Skip("it changed while it was read; build again when it is at rest")


def _refuse_special(mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise _Skip("a link to a folder; links to folders are not followed")
    if not stat.S_ISREG(mode):
        raise _Skip("not a regular file")


def _read_at_rest(path: Path, limit: int) -> bytes | None:
    """Return a file's bytes, None when it was written to meanwhile.

    Opened without following links and without waiting, so what was checked is what is read.
    A file written to just now may be half of what its writer is about to write, and size and
    time say nothing of that before the next part: it is given a moment to change.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(handle, "rb") as file:
        before = os.fstat(handle)
        _refuse_special(before.st_mode)
        if before.st_size > limit:
            raise _Skip(f"{before.st_size:,} bytes, at most {limit:,} (setting max_file_mb)")
        data = file.read(limit + 1)
        if abs(time.time() - before.st_mtime) < _AT_REST_S:
            time.sleep(_AT_REST_S)
        after = os.fstat(handle)
    unchanged = (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns)
    return data if unchanged and len(data) == after.st_size else None


def _unreadable(error: Exception) -> str:
    code = error.errno if isinstance(error, OSError) else None
    if code in {errno.ENOENT, errno.ELOOP, None}:
        return "a link to nothing, or one that goes in circles"
    return f"cannot be read: {error.strerror}" if isinstance(error, OSError) else str(error)


_Reader = Callable[[bytes, str], formats.Parsed]


def _reader(name: str) -> _Reader:
    """Return what reads a file of this name; raise _Skip when nothing does."""
    lower = name.lower()
    for end, qa in formats.QA.items():
        if lower.endswith(end):
            return lambda data, path: qa(decode(data), path)
    suffix = "." + lower.rsplit(".", 1)[-1]
    if text := formats.TEXT.get(suffix):
        return lambda data, _: text(decode(data))
    if binary := formats.BINARY.get(suffix):
        return lambda data, _: binary(data)
    raise _Skip(f"not a guide file; read are {_SUFFIXES}")


def _parsed(read: _Reader, data: bytes, path: str) -> formats.Parsed:
    if not data.strip(b"\0 \t\r\n\xef\xbb\xbf\xff\xfe"):
        raise _Skip("empty")
    try:
        parsed = read(data, path)
    except BadInput as error:
        raise _Skip(str(error)) from None
    if not parsed.text[parsed.body :].strip() and not parsed.variants:
        raise _Skip("no text in it")
    return parsed


def _document(parsed: formats.Parsed, path: str, sha256: str) -> Document:
    return Document(
        path=path,
        title=parsed.title or path,
        text=parsed.text,
        kind=parsed.kind,
        sha256=sha256,
        headings=parsed.headings,
        body=parsed.body,
        date=parsed.date,
        url=parsed.url,
    )


def _copies(documents: Sequence[Document]) -> Iterator[Skipped]:
    """Name the documents whose text is that of another: a copy, or a link inside the folder."""
    first: dict[str, str] = {}
    for document in documents:
        path = first.setdefault(document.text, document.path)
        if path != document.path:
            yield Skipped(document.path, f"it has the same content as {path}; remove one of them")


def _clean_variants(variants: tuple[Variants, ...]) -> Iterator[Variants]:
    for one in variants:
        questions = tuple(q for asked in one.questions if (q := clean(asked).strip()))
        if questions:
            yield replace(one, questions=questions)


def _oddities(text: str) -> Iterator[str]:
    """Say what a reader cannot see in a text: it can carry hidden instructions, or be damage."""
    if unseen := hidden(text.replace("\r\n", "\n").replace("\r", "\n")):
        codes = ", ".join(sorted({f"U+{ord(c):04X}" for c in unseen})[:5])
        yield f"read, but it has {len(unseen)} invisible characters ({codes})"
    if lost := text.count("\ufffd"):
        yield f"read, but {lost} characters in it were lost before (U+FFFD)"


# --- Encodings ----------------------------------------------------------------------------------

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_BINARY_STARTS = (b"%PDF-", b"PK\x03\x04", b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"\x1f\x8b")
_MOST_CONTROLS = 0.01


def decode(data: bytes) -> str:
    """Return the text of a file in UTF-8, UTF-16, GB18030 or Big5; raise BadInput, never guess.

    A file is never half read: a wrong byte names its offset, and text that decodes to unlikely
    characters is refused.
    """
    for mark, name in _MARKS:
        if data.startswith(mark):
            return _strict(data, len(mark), name)
    if name := _unmarked_utf16(data):
        return _strict(data, 0, name)
    if b"\0" in data:
        raise BadInput(f"a binary file (NUL at offset {data.index(0)})")
    if data.startswith(_BINARY_STARTS):
        raise BadInput("a binary file under a text file's name")
    try:
        return _printable(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        return _legacy(data, error)


def _strict(data: bytes, begin: int, name: str) -> str:
    try:
        return _printable(data[begin:].decode(name))
    except UnicodeDecodeError as error:
        at = begin + error.start
        raise BadInput(f"not valid {name}: byte {data[at]:#04x} at offset {at}") from None


def _unmarked_utf16(data: bytes) -> str:
    """Return the UTF-16 flavour of a file without a mark, "" when it does not look like one.

    Spaces, line ends and Latin letters have a zero as their high byte; the same side must be the
    only one on which the text makes sense.
    """
    if len(data) % 2 or len(data) < 4:
        return ""
    zeros = data[0::2].count(0), data[1::2].count(0)
    name = "utf-16-be" if zeros[0] > zeros[1] else "utf-16-le"
    if zeros[0] == zeros[1]:
        return ""
    try:
        return name if _makes_sense(data.decode(name)) else ""
    except UnicodeDecodeError:
        return ""


def _legacy(data: bytes, error: UnicodeDecodeError) -> str:
    """Read GB18030 or Big5 where just one of them gives Chinese; else name the byte that broke."""
    broken = error
    readings = []
    for name in () if _mostly_utf8(data) else ("gb18030", "cp950"):
        try:
            readings.append(_chinese(data.decode(name)))
        except UnicodeDecodeError as problem:
            if _chinese(data[: problem.start].decode(name)):
                broken = problem
    readings = [text for text in readings if text]
    if len(readings) == 1:
        return _printable(readings[0])
    raise BadInput(
        f"none of UTF-8, UTF-16, GB18030 and Big5: byte {data[broken.start]:#04x} at offset "
        f"{broken.start} breaks {broken.encoding.upper()}. Save it as UTF-8."
    )


def _mostly_utf8(data: bytes) -> bool:
    """Tell whether a broken file is UTF-8 but for a few bytes."""
    text = data.decode("utf-8", errors="replace")
    wide = len(text) - len(text.encode("ascii", errors="ignore"))
    return text.count("\ufffd") * 4 < wide


def _chinese(text: str) -> str:
    """Return a text that reads as Chinese, "" for any other."""
    return text if not text.isascii() and _HAN.search(text) and _makes_sense(text) else ""


_HAN = re.compile("[\u4e00-\u9fff]")
# The most frequent characters of modern Chinese, and of support pages.
_FREQUENT = frozenset(
    "的一是不了在有我他这为之大来以个中上们到说国和地也子时道出而要于就下得可你年生自会那后能对着事"
    "其里所去行过家十用发天如然作方成者多日都三小军二无同么经法当起与好看学进种将还分此心前面又定见"
    "只主没公从使件数置户程务选应理设或据本服文示请建单表新管项关更成息动性信部接存入加通式并提包目"
    "型这开安机名问点指备供保间码实阅些功客运现解改该代网字取但因给手什吗怎办钱款收账号系员时候"
)
_SAMPLE = 200_000
_LEAST_FREQUENT = 0.12
_FEWEST_FREQUENT = 2
_LEAST_GB2312 = 0.85
_WELL_KNOWN = 0.25
_ENOUGH_TO_KNOW = 20


def _makes_sense(text: str) -> bool:
    """Tell whether a text is ASCII and likely Chinese, without controls and unassigned characters.

    A wrong encoding of Chinese gives rare characters: real text is made of GB 2312 (or, in a page
    long enough, of much that is frequent once simplified).
    """
    sample = text[:_SAMPLE]
    if any(_is_impossible(c) for c in set(text)):
        return False
    wide = [c for c in sample if ord(c) > 127]
    han = _HAN.findall(simplify("".join(wide)))
    frequent = sum(c in _FREQUENT for c in han)
    common = sum(map(_is_common, wide))
    if not han:
        return common == len(wide)
    if frequent < max(_FEWEST_FREQUENT, _LEAST_FREQUENT * len(han)):
        return False
    known = len(han) >= _ENOUGH_TO_KNOW and frequent >= _WELL_KNOWN * len(han)
    return common >= _LEAST_GB2312 * len(wide) or known


def _is_impossible(character: str) -> bool:
    return character not in "\t\r\n\f" and unicodedata.category(character) in {"Cc", "Co", "Cn"}


def _is_common(character: str) -> bool:
    """Tell whether GB 2312 has the character: what real Chinese pages are made of."""
    try:
        character.encode("gb2312")
    except UnicodeEncodeError:
        return False
    return "\u4e00" <= character <= "\u9fff" or unicodedata.category(character)[0] in "PSZ"


def _printable(text: str) -> str:
    controls = len(re.findall("[\0-\x08\x0e-\x1f]", text))
    if "\0" in text or controls > _MOST_CONTROLS * len(text):
        raise BadInput("a binary file (it has control characters)")
    return text
