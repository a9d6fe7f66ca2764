"""Take proposed questions and answers into the guide: a Q&A file of their own, for the next build.

An accepted entry is written before the decision is: killed in between, the file is whole and
accepting again writes nothing twice. Whatever else stands in the file keeps its every byte.
"""

import contextlib
import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import orjson
import yaml

from assistant.contacts import read_contacts, unlisted
from assistant.errors import AssistantError, BadInput
from assistant.fold import fold
from assistant.formats import load_yaml, qa_yaml
from assistant.history import History, NotFound, Proposal
from assistant.load import load_corpus
from assistant.records import Corpus
from assistant.screen import clean
from assistant.search import Index
from assistant.settings import Settings
from assistant.split import chunks, find_section

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

FILE = "accepted.qa.yaml"
Standing = Literal["built", "waiting", "gone"]

_HEAD = (
    "# Entries that maintainers accepted on the page; a build reads them like any other Q&A file.\n"
    "# Edit them freely: a new one goes to the end, and nothing else in this file is touched.\n"
)


class NotWritten(AssistantError):
    """Report that the file of accepted entries could not be written; it is as it was."""


@dataclass(frozen=True, slots=True)
class Review:
    """Hold what accepting a proposal writes, and what to look at before.

    `problem` says why it cannot be accepted, "" when it can. `contacts` stand in the answer but not
    on the operator's list. `elsewhere` are questions that Q&A files answer already, and where.
    """

    words: str
    problem: str = ""
    contacts: tuple[str, ...] = ()
    elsewhere: tuple[tuple[str, str], ...] = ()


# --- Before --------------------------------------------------------------------------------------


def review(proposals: Sequence[Proposal], settings: Settings) -> list[Review]:
    """Say of each proposal what would be written, what is wrong with it, and what is odd."""
    if not proposals:
        return []
    try:
        corpus, listed = load_corpus(settings.corpus, settings), read_contacts(settings.corpus)
    except AssistantError as error:
        return [Review(entry(one), str(error)) for one in proposals]
    known = _known_questions(corpus)
    reviews = []
    for one in proposals:
        problem = ""
        try:
            _check(one, corpus, settings)
        except BadInput as error:
            problem = str(error)
        odd = dict.fromkeys(found.text.strip() for found in unlisted(clean(one.answer), listed))
        places = [(q, place) for q in _questions(one) for place in known.get(fold(q), ())]
        elsewhere = [(q, place) for q, place in places if place != one.passage]
        reviews.append(Review(entry(one), problem, tuple(odd), tuple(dict.fromkeys(elsewhere))))
    return reviews


def entry(proposal: Proposal) -> str:
    """Return the lines that accepting writes: a comment that marks them, and a YAML entry."""
    values: dict[str, Any] = {"questions": _questions(proposal)}
    if passage := _one_line(proposal.passage):
        values["passage"] = passage
    if answer := clean(proposal.answer).strip():
        values["answer"] = answer
    written = yaml.dump([values], Dumper=_Dumper, allow_unicode=True, sort_keys=False, width=10_000)
    return f"# proposal {proposal.id}, {_mark(proposal)}\n{written}"


class _Dumper(yaml.SafeDumper):
    """Write texts of several lines as blocks, as people would."""


_Dumper.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar(
        "tag:yaml.org,2002:str", text, style="|" if "\n" in text else None
    ),
)


def _mark(proposal: Proposal) -> str:
    """Return what tells an entry by its words, whatever number a new history gives it."""
    words = [_questions(proposal), _one_line(proposal.passage), clean(proposal.answer).strip()]
    return f"words {hashlib.sha256(orjson.dumps(words)).hexdigest()[:16]}"


def _questions(proposal: Proposal) -> list[str]:
    return list(dict.fromkeys(q for asked in proposal.questions if (q := _one_line(asked))))


def _one_line(words: str) -> str:
    return " ".join(clean(words).split())


def _check(proposal: Proposal, corpus: Corpus, settings: Settings) -> None:
    """Raise BadInput when a build would not take an entry."""
    read = qa_yaml(entry(proposal), FILE)
    for variants in read.variants if proposal.passage else ():
        passages = [c for one in corpus.documents for c in chunks(one, settings.chunk_chars)]
        try:
            find_section(variants.passage, passages)
        except BadInput as error:
            raise BadInput(f"在指南里找不到它引用的段落。 / {error}") from None


def _known_questions(corpus: Corpus) -> dict[str, list[str]]:
    """Return the questions of the Q&A files, folded, with the passages that answer them."""
    known: dict[str, list[str]] = {}
    for one in corpus.variants:
        for question in one.questions:
            known.setdefault(fold(_one_line(question)), []).append(one.passage)
    for document in corpus.documents:
        for heading in document.headings if document.kind == "qa" else ():
            place = f"{document.path}#{heading.title}"
            known.setdefault(fold(heading.title), []).append(place)
    return known


# --- Deciding ------------------------------------------------------------------------------------


def accept(history: History, number: int, settings: Settings, by: str, note: str = "") -> Proposal:
    """Write a proposal into the corpus and decide it; accepted twice, it is written once.

    Raises BadInput when a build would not take it, NotWritten, NotSaved (nothing is written then),
    NotFound, and Taken when it was decided already.
    """
    _check(proposal_of(history, number), load_corpus(settings.corpus, settings), settings)
    with _alone(settings.corpus):
        proposal = proposal_of(history, number)
        path = settings.corpus / FILE
        before = _read(path)
        after = _with_entry(before, proposal) if proposal.state == "new" else before
        if after != before:
            _replace(path, before, after)
        try:
            return history.decide(number, True, by, note)
        except AssistantError:
            if after != before:
                _replace(path, after, before)
            raise


def refuse(history: History, number: int, settings: Settings, by: str, note: str = "") -> Proposal:
    """Refuse a proposal; what an accepting cut short has left of it is taken out again."""
    with _alone(settings.corpus):
        proposal = proposal_of(history, number)
        path = settings.corpus / FILE
        before = _read(path)
        after = before.replace(entry(proposal).encode(), b"")
        if proposal.state == "new" and after != before:
            _replace(path, before, b"" if after.strip() == _HEAD.strip().encode() else after)
        return history.decide(number, False, by, note)


def proposal_of(history: History, number: int) -> Proposal:
    """Return a proposal by its number; raise NotFound."""
    found = next((one for one in history.proposals() if one.id == number), None)
    if found is None:
        raise NotFound(f"没有这条建议。 / There is no proposal {number}.")
    return found


def _with_entry(data: bytes, proposal: Proposal) -> bytes:
    """Return the file with an entry at its end, unchanged when it is there already."""
    if _mark(proposal).encode() in data:
        return data
    text = _utf8(data)
    head = text or _HEAD
    whole = head + ("" if head.endswith("\n") else "\n") + "\n" + entry(proposal)
    try:
        before, after = (load_yaml(one.removeprefix("\ufeff")) for one in (text, whole))
        qa_yaml(whole.removeprefix("\ufeff"), FILE)
    except BadInput as error:
        raise BadInput(f"{FILE}: {error}. Put it in order, then accept again.") from None
    if not isinstance(after, list) or after[:-1] != (before or []):
        raise BadInput(
            f"{FILE} has a form that no entry can be added to; expected a YAML list whose entries "
            "begin with '- ' at the start of a line. Put it in order, then accept again."
        )
    return whole.encode()


def _utf8(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadInput(
            f"{FILE} is not UTF-8 (byte {data[error.start]:#04x} at offset {error.start}). Save it "
            "as UTF-8, then accept again."
        ) from None


# --- Afterwards ----------------------------------------------------------------------------------


def accepted_file(settings: Settings) -> bytes:
    """Return the file of accepted entries, empty when there is none yet."""
    return _read(settings.corpus / FILE)


def questions_of(index: Index) -> frozenset[str]:
    """Return every question that an index has from Q&A files."""
    asked = {v.text for row in range(len(index)) for v in index.views(row) if v.kind == "variant"}
    answers = (document for document in index.documents() if document.kind == "qa")
    return frozenset(asked.union(*([h.title for h in one.headings] for one in answers)))


def standing(
    proposal: Proposal, data: bytes, questions: frozenset[str], built_sha256: str
) -> Standing:
    """Tell whether an accepted entry is in the index in use, waits for a build, or was removed.

    `data` is the file as it is and `built_sha256` the hash of the one that the index was built of.
    """
    if questions.issuperset(_questions(proposal)):
        return "built"
    if _mark(proposal).encode() not in data:
        return "gone"
    return "built" if hashlib.sha256(data).hexdigest() == built_sha256 else "waiting"


# --- The file ------------------------------------------------------------------------------------


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the corpus folder's lock: entries are written, and decided, one after the other."""
    if fcntl is None:
        raise NotWritten("taking entries needs file locks (flock); use Linux or macOS")
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise NotWritten(f"the corpus folder cannot be opened: {error.strerror}") from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _read(path: Path) -> bytes:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(handle, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise NotWritten(
            f"{FILE} cannot be read: {error.strerror}. It must be a plain file in the corpus folder"
        ) from None


def _replace(path: Path, before: bytes, after: bytes) -> None:
    """Replace the file atomically and durably, unless someone changed it; nothing: remove it."""
    draft = path.with_name(f".{FILE}.tmp")  # a name that a build passes over
    try:
        with draft.open("wb") as file:
            file.write(after)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            draft.chmod(path.stat().st_mode & 0o777)
        if _read(path) != before:
            raise NotWritten(f"{FILE} was changed by someone else just now. Try again.")
        if after:
            os.replace(draft, path)
        else:
            path.unlink()
        _sync(path.parent)
    except OSError as error:
        raise NotWritten(
            f"{FILE} cannot be written: {error.strerror}. The proposal stays open; make room, or "
            "make the corpus folder writable, and try again."
        ) from None
    finally:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
