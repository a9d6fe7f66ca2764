"""Cut a document into sections at its headings, sections into passages, passages into sentences.

Every piece is an exact span of the canonical text; a passage lies inside one section, and the
passages of a section cover it but for white space.
"""

import difflib
import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence

from assistant.errors import BadInput
from assistant.records import Chunk, Document, Section, Variants, View

Span = tuple[int, int]

_SEPARATORS = [
    "\n\n",
    "\n",
    "。",
    "！",
    "？",
    "；",
    ". ",
    "! ",
    "? ",
    "; ",
    "，",
    "、",
    ", ",
    " ",
    "",
]
_SMALL_TAIL = 0.15
_STRETCH = 1.2
_LEAST_SENTENCE = 4


def sections(document: Document) -> list[Section]:
    """Return the sections that hold text, in order; headings run from the top heading down."""
    found: list[Section] = []
    open_headings: list[tuple[int, str]] = []
    starts = [*document.headings, None]
    begin = document.body
    path: tuple[str, ...] = (document.title,) if document.title else ()
    for heading in starts:
        end = heading.start if heading else len(document.text)
        text = document.text[begin:end]
        if text.strip():
            found.append(Section(document.path, path, begin, end, text))
        if heading:
            open_headings = [h for h in open_headings if h[0] < heading.level]
            open_headings.append((heading.level, heading.title))
            begin, path = heading.end, tuple(title for _, title in open_headings)
    return found


def chunks(document: Document, chunk_chars: int) -> list[Chunk]:
    """Return the passages of a document: whole sections, or their parts when they are long."""
    made: list[Chunk] = []
    seen: Counter[tuple[tuple[str, ...], str]] = Counter()
    for section in sections(document):
        for begin, end in _parts(section.text, chunk_chars):
            text = section.text[begin:end]
            seen[section.headings, text] += 1
            made.append(
                Chunk(
                    id=_id(document.path, section.headings, text, seen[section.headings, text]),
                    path=document.path,
                    title=document.title,
                    headings=section.headings,
                    start=section.start + begin,
                    end=section.start + end,
                    text=text,
                    url=document.url,
                )
            )
    return made


def _id(path: str, headings: tuple[str, ...], text: str, number: int) -> str:
    parts = "\0".join([path, *headings, text, str(number)])
    return hashlib.sha256(parts.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _parts(text: str, limit: int) -> list[Span]:
    """Return the spans of a section's parts, without outer white space."""
    if len(text.strip()) <= limit:
        spans = [(0, len(text))]
    else:
        spans = _join_small_tail(_cut(text, limit), limit)
    trimmed = (_trim(text, begin, end) for begin, end in spans)
    return [(begin, end) for begin, end in trimmed if begin < end]


def _cut(text: str, limit: int) -> list[Span]:
    # Imported where a section really is long: it costs 0.4 s, and short guides never need it.
    from langchain_text_splitters import RecursiveCharacterTextSplitter

    splitter = RecursiveCharacterTextSplitter(
        chunk_size=limit,
        chunk_overlap=0,
        separators=_SEPARATORS,
        keep_separator="end",
        strip_whitespace=False,
        add_start_index=True,
    )
    spans: list[Span] = []
    begin = 0
    for part in splitter.split_text(text):
        spans.append((begin, begin + len(part)))  # without overlap the parts tile the text
        begin += len(part)
    if begin != len(text) or any(text[b:e] == "" for b, e in spans):
        raise AssertionError("the splitter lost text")
    return spans


def _join_small_tail(spans: list[Span], limit: int) -> list[Span]:
    if len(spans) > 1:
        (begin, middle), (_, end) = spans[-2:]
        if end - middle < limit * _SMALL_TAIL and end - begin <= limit * _STRETCH:
            return [*spans[:-2], (begin, end)]
    return spans


def _trim(text: str, begin: int, end: int) -> Span:
    part = text[begin:end]
    return begin + len(part) - len(part.lstrip()), begin + len(part.rstrip())


# A sentence ends at a full-width mark with its closing quotes, at a Western mark before white
# space or Chinese (so 3.5, v1.2 and example.com stay whole), or at the end of a line.
_SENTENCE_END = re.compile(
    r"[。！？；…!?]+[”’」』）】》\"')\]]*|\.+[\"')\]”’]*(?=\s|$|[\u4e00-\u9fff])|[\r\n]+"
)
_ABBREVIATION = re.compile(
    r"(?:^|[\s(])(?:[A-Za-z]|e\.g|i\.e|etc|vs|Mr|Mrs|Ms|Dr|No|Inc|Ltd|approx)\.$"
)
_MARKER = re.compile(r"[ \t]*(?:[-*+•·▪●]|\d{1,2}[.)、](?!\d)|[（(]\d{1,2}[)）]|#{1,6}|>)[ \t]*")


def sentences(text: str) -> list[Span]:
    """Return the spans of sentences and list items; list marks lie outside of them."""
    spans: list[Span] = []
    begin = 0
    for found in _SENTENCE_END.finditer(text):
        if found[0][0] == "." and _ABBREVIATION.search(
            text, max(begin, found.end() - 12), found.end()
        ):
            continue
        if found[0] == "\n" and not _breaks_line(text, begin, found.end()):
            continue
        spans.append((begin, found.end()))
        begin = found.end()
    spans.append((begin, len(text)))
    return [span for raw in spans if (span := _unmarked(text, *raw))]


def _breaks_line(text: str, begin: int, end: int) -> bool:
    """Tell whether a single newline ends a sentence: not when a wrapped Latin line goes on."""
    before, after = text[begin : end - 1].rstrip(), text[end : end + 1]
    return not (
        before
        and before[-1].isascii()
        and before[-1].isalpha()
        and after.islower()
        and after.isascii()
    )


def _unmarked(text: str, begin: int, end: int) -> Span | None:
    begin, end = _trim(text, begin, end)
    if marker := _MARKER.match(text, begin, end):
        begin, end = _trim(text, marker.end(), end)
    return (begin, end) if any(c.isalnum() for c in text[begin:end]) else None


def views(passages: Sequence[Chunk], variants: Sequence[Variants]) -> list[View]:
    """Return the search texts of every passage: whole, by sentence, and by question variant."""
    questions: dict[int, list[str]] = {}
    for one in variants:
        for row in find_section(one.passage, passages):
            questions.setdefault(row, []).extend(one.questions)
    return [
        view
        for row, chunk in enumerate(passages)
        for view in _views(row, chunk, questions.get(row, []))
    ]


def _views(row: int, chunk: Chunk, questions: Sequence[str]) -> Iterator[View]:
    heads = [heading for heading in chunk.headings if heading]
    yield View(row, "passage", "\n".join([*heads, chunk.text]), chunk.start, chunk.end)
    spans = sentences(chunk.text)
    if len(spans) > 1:
        for begin, end in spans:
            text = chunk.text[begin:end]
            if sum(c.isalnum() for c in text) >= _LEAST_SENTENCE:
                said = "\n".join([*heads[-1:], text])
                yield View(row, "sentence", said, chunk.start + begin, chunk.start + end)
    for question in dict.fromkeys(questions):
        yield View(row, "variant", question, chunk.start, chunk.end)


def find_section(reference: str, passages: Sequence[Chunk]) -> list[int]:
    """Return the rows of the passages that a reference names: `path#heading`.

    The heading is the section's own, or several joined by ` > ` where that is not unique. Raises
    BadInput, naming close matches, when the reference names nothing or several sections.
    """
    path, _, wanted = reference.partition("#")
    parts = tuple(part.strip() for part in wanted.split(" > "))
    found: dict[tuple[str, ...], list[int]] = {}
    for row, chunk in enumerate(passages):
        if chunk.path == path and chunk.headings[-len(parts) :] == parts:
            found.setdefault(chunk.headings, []).append(row)
    if len(found) == 1:
        return next(iter(found.values()))
    if found:
        listed = "; ".join(" > ".join(headings) for headings in list(found)[:3])
        raise BadInput(
            f"{reference!r} names several sections ({listed}); write more of the headings"
        )
    known = {f"{c.path}#{c.headings[-1]}" for c in passages if c.headings}
    close = difflib.get_close_matches(reference, sorted(known), n=2, cutoff=0.5)
    hint = f"; did you mean {' or '.join(map(repr, close))}?" if close else ""
    raise BadInput(f"{reference!r} names no section of the guide{hint}")
