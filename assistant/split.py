"""Cut a document into sections at its headings, sections into passages, passages into sentences.

Every piece is an exact span of the canonical text; a passage lies inside one section, and the
passages of a section cover it but for white space.
"""

import difflib
import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from assistant.errors import BadInput
from assistant.records import Chunk, Document, Section, Variants, View
from assistant.screen import clean

Span = tuple[int, int]

_SEPARATORS = [
    "\r\n\r\n",
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
_ALIKE, _ALIKE_IN_FILE = 0.5, 0.3  # how like a reference must be to be named for another


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
# space, Chinese or a closing quote (so 3.5, v1.2, example.com and a?b=c stay whole), or at the end
# of a line.
_CLOSING = "”’」』）】》\"')\\]"
_BEHIND_END = r"(?=\s|$|[\u4e00-\u9fff])"
_SENTENCE_END = re.compile(  # the lookbehinds keep rows of marks linear
    rf"[。！？；…]+[!?]*[{_CLOSING}]*|(?<![!?])[!?]++[。！？…]*+[{_CLOSING}]*+{_BEHIND_END}|"
    rf"(?<!\.)\.++[{_CLOSING}]*+{_BEHIND_END}|[\r\n]+"
)
_ABBREVIATION = re.compile(
    r"(?<![A-Za-z0-9.])(?:[A-Za-z]|e\.g|i\.e|etc|vs|Mr|Mrs|Ms|Dr|No|Inc|Ltd|approx)\.\Z"
)
_LONGEST_ABBREVIATION = 8
_MARKER = re.compile(
    r"(?:[ \t]*(?:[-*+](?=[ \t])|[•·▪●◦○■□]|\d{1,2}(?:[.)](?!\d)|、)|[（(]\d{1,2}[)）]|"
    r"#{1,6}(?=[ \t])|>))*[ \t]*"
)


def sentences(text: str) -> list[Span]:
    """Return the spans of sentences and list items; list marks lie outside of them."""
    spans: list[Span] = []
    begin = 0
    for found in _SENTENCE_END.finditer(text):
        if found[0][0] == "." and _abbreviates(text, begin, found.end()):
            continue
        if found[0] in {"\n", "\r\n"} and _wraps(text, begin, found.start(), found.end()):
            continue
        spans.append((begin, found.end()))
        begin = found.end()
    spans.append((begin, len(text)))
    return [span for raw in spans if (span := _unmarked(text, *raw))]


def _abbreviates(text: str, begin: int, end: int) -> bool:
    near = text[max(begin, end - _LONGEST_ABBREVIATION) : end]
    return bool(_ABBREVIATION.search(near))


def _wraps(text: str, begin: int, end: int, after: int) -> bool:
    """Tell whether a newline only wraps a Latin line: a letter before, a small one behind it."""
    before = text[max(begin, end - 3) : end].rstrip()[-1:]
    behind = text[after : after + 1]
    return before.isascii() and before.isalpha() and behind.isascii() and behind.islower()


def _unmarked(text: str, begin: int, end: int) -> Span | None:
    begin, end = _trim(text, begin, end)
    if marker := _MARKER.match(text, begin, end):
        begin, end = _trim(text, marker.end(), end)
    return (begin, end) if any(c.isalnum() for c in text[begin:end]) else None


def views(passages: Sequence[Chunk], variants: Sequence[Variants]) -> list[View]:
    """Return the search texts of every passage: whole, by sentence, and by question variant.

    Search texts are clean, for what cannot be seen must not be found. Raises BadInput, naming the
    Q&A file, for a reference to no section.
    """
    table = _Table(passages)
    questions: dict[int, list[str]] = {}
    for one in variants:
        try:
            rows = table.find(one.passage)
        except BadInput as error:
            raise BadInput(f"{one.source}: {error}") from None
        for row in rows:
            questions.setdefault(row, []).extend(one.questions)
    return [
        view
        for row, chunk in enumerate(passages)
        for view in _views(row, chunk, questions.get(row, []))
    ]


def _views(row: int, chunk: Chunk, questions: Sequence[str]) -> Iterator[View]:
    heads = [heading for heading in map(clean, chunk.headings) if heading]
    yield View(row, "passage", "\n".join([*heads, clean(chunk.text)]), chunk.start, chunk.end)
    spans = sentences(chunk.text)
    if len(spans) > 1:
        for begin, end in spans:
            text = clean(chunk.text[begin:end])
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
    return _Table(passages).find(reference)


def unresolved(references: Iterable[str], passages: Sequence[Chunk]) -> dict[str, str]:
    """Return, in words, why each reference that does not name one section does not."""
    table = _Table(passages)
    problems = {}
    for reference in references:
        try:
            table.find(reference)
        except BadInput as error:
            problems[reference] = str(error)
    return problems


class _Table:
    """Look sections up by path and last heading."""

    def __init__(self, passages: Sequence[Chunk]) -> None:
        # (path, last heading) → headings → rows
        self._sections: dict[tuple[str, str], dict[tuple[str, ...], list[int]]] = {}
        for row, chunk in enumerate(passages):
            last = chunk.headings[-1] if chunk.headings else ""
            same = self._sections.setdefault((chunk.path, last), {})
            same.setdefault(chunk.headings, []).append(row)

    def find(self, reference: str) -> list[int]:
        """Return the rows of the one section that a reference names."""
        found = next((f for split in _readings(reference) if (f := self._named(*split))), {})
        if len(found) == 1:
            return next(iter(found.values()))
        if found:
            listed = "; ".join(" > ".join(headings) for headings in list(found)[:3])
            raise BadInput(
                f"{reference!r} names several sections ({listed}); write more of the headings"
            )
        close = self._close(reference)
        hint = f"; did you mean {' or '.join(map(repr, close))}?" if close else ""
        raise BadInput(f"{reference!r} names no section of the guide{hint}")

    def _close(self, reference: str) -> list[str]:
        """Return the references most like one: to the same file where there are some."""
        path, _, wanted = reference.partition("#")
        own = sorted(heading for file, heading in self._sections if file == path and heading)
        like = difflib.get_close_matches(wanted, own, n=2, cutoff=_ALIKE_IN_FILE)
        known = sorted(f"{file}#{heading}" for file, heading in self._sections if heading)
        return [f"{path}#{heading}" for heading in like] or difflib.get_close_matches(
            reference, known, n=2, cutoff=_ALIKE
        )

    def _named(self, path: str, parts: tuple[str, ...]) -> dict[tuple[str, ...], list[int]]:
        same = self._sections.get((path, parts[-1]), {})
        return {
            headings: rows for headings, rows in same.items() if headings[-len(parts) :] == parts
        }


def _readings(reference: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield the ways to read a reference: a path or a heading may itself have a # or a >."""
    for mark in re.finditer("#", reference):
        path, wanted = reference[: mark.start()], reference[mark.end() :].strip()
        yield path, (wanted,)
        if " > " in wanted:
            yield path, tuple(part.strip() for part in wanted.split(" > "))
    if "#" not in reference:
        yield reference, ("",)
