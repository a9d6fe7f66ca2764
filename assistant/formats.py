"""Read one guide file's text and headings: Markdown, plain text, HTML, Q&A; PDF and DOCX by extra.

Markdown and plain text keep their characters unchanged, so offsets are those of the file. The
other formats give extracted, clean text: one block a line, in reading order.
"""

import csv
import io
import logging
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from assistant.errors import BadInput
from assistant.records import Heading, Kind, Variants
from assistant.screen import clean

_EXTRA = 'install it with: .venv/bin/pip install -c constraints.txt -e ".[docs]"'
_LARGEST_UNPACKED = 512 * 2**20
_LARGEST_XML = 64 * 2**20
_LONGEST_PDF_TEXT = 50_000_000


@dataclass(frozen=True, slots=True)
class Parsed:
    """Hold what a format gave: canonical text, headings, where the guide begins, and meta data.

    `notes` say what a maintainer should look at in the file.
    """

    kind: Kind
    text: str
    headings: tuple[Heading, ...] = ()
    body: int = 0
    title: str = ""
    date: str = ""
    url: str | None = None
    variants: tuple[Variants, ...] = ()
    notes: tuple[str, ...] = ()


def _one_line(words: object) -> str:
    return " ".join(clean(str(words)).split())


def _web_address(address: object) -> str | None:
    """Return a http(s) address, None for anything else: it will be a link on the page."""
    given = _one_line(address or "")
    return given if re.fullmatch(r"https?://[^\s<>\"']+", given, re.IGNORECASE) else None


# --- Markdown -----------------------------------------------------------------------------------

_FRONT_MATTER = re.compile(r"---[ \t]*\r?\n(.*?)^(?:---|\.\.\.)[ \t]*(?:\r?\n|\Z)", re.S | re.M)
_NO_SPACE = re.compile(r"^#{1,6}[^#\s].*", re.M)
_LOOKS_LIKE_FIELDS = re.compile(r"(?:[ \t]*(?:#[^\n]*)?\r?\n)*[A-Za-z_][\w-]*[ \t]*:[ \t\r\n]")


def markdown(text: str) -> Parsed:
    """Read Markdown; headings by markdown-it-py's line map, so fences and setext are right."""
    from markdown_it import MarkdownIt

    meta, body, notes = _front_matter(text)
    starts = _line_starts(text, body)
    parser = MarkdownIt("commonmark")
    parser.core.ruler.disable(["inline", "text_join"])  # only headings need their words parsed
    known: dict[str, Any] = {}
    tokens = parser.parse(_plain_lines(text[body:]), known)
    parser.core.ruler.enable(["inline", "text_join"])
    headings = []
    for i, token in enumerate(tokens):
        if token.type == "heading_open" and token.map and token.level == 0:
            first, last = token.map
            inline = parser.parseInline(tokens[i + 1].content, known)[0].children or []
            span = (starts[first], starts[min(last, len(starts) - 1)])
            headings.append(Heading(int(token.tag[1]), _visible(inline), *span))
    if any(t.type == "html_block" and t.content.lstrip().startswith("<!--") for t in tokens):
        notes.append("it has HTML comments, which are quoted like any other text")
    notes += _missing_spaces(token.content for token in tokens if token.type == "inline")
    title = _one_line(meta.get("title") or (headings[0].title if headings else ""))
    date = _one_line(meta.get("date") or "")
    url = _web_address(meta.get("url"))
    if meta.get("url") and not url:
        notes.append("its url is no http(s) address and was left out")
    return Parsed("markdown", text, tuple(headings), body, title, date, url, notes=tuple(notes))


def _missing_spaces(blocks: Iterable[str]) -> list[str]:
    """Say which lines look like headings and are none; code is in no block."""
    found = [line for block in blocks for line in _NO_SPACE.findall(block)]
    more = f", and {len(found) - 1} more lines like it" if len(found) > 1 else ""
    said = f"“{{}}”{more}: no heading without a space behind the #"
    return [said.format(f"{clean(found[0]):.40}")] if found else []


def _visible(inline: Sequence[Any]) -> str:
    """Return a heading's words without Markdown's marks."""
    return " ".join(
        "".join(" " if t.type in {"softbreak", "hardbreak"} else t.content for t in inline).split()
    )


def _front_matter(text: str) -> tuple[dict[str, Any], int, list[str]]:
    """Return the fields at the top, where the guide begins behind them, and what is wrong."""
    found = _FRONT_MATTER.match(text)
    if not found:
        return {}, 0, []
    try:
        meta = load_yaml(found[1])
    except BadInput as error:
        if _LOOKS_LIKE_FIELDS.match(found[1]):
            return {}, found.end(), [f"its front matter was left out: {error}"]
        return {}, 0, []
    return (meta, found.end(), []) if isinstance(meta, dict) else ({}, 0, [])


def _plain_lines(text: str) -> str:
    """Return the text as markdown-it will count its lines: a lone CR or CRLF is one newline."""
    return text.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "\ufffd")


def _line_starts(text: str, begin: int) -> list[int]:
    """Return the offset of each line's start in the unchanged text, and of its end."""
    starts = [begin]
    starts += [m.end() for m in re.compile(r"\r\n|\r|\n").finditer(text, begin)]
    return [*starts, len(text)]


# --- Plain text ---------------------------------------------------------------------------------

_HAN_NUMBER = "[一二三四五六七八九十]{1,3}"
_CHAPTER = re.compile(r"第[一二三四五六七八九十百零〇0-9]{1,4}([章篇部节節])(?:[\s:：、.]|$)")
_NUMBERING = (
    (2, re.compile(_HAN_NUMBER + r"[、.．]\s?\S")),
    (3, re.compile(rf"[（(]{_HAN_NUMBER}[）)]\s?\S")),
    (8, re.compile(r"[（(][0-9]{1,2}[）)]\s?\S")),
)
_NUMBER = re.compile(
    r"(?P<number>[0-9]{1,2}(?:\.[0-9]{1,2}){0,3})"
    r"(?P<mark>、|[.．](?![0-9])|[ \t\u3000]+)?\s*(?P<word>\S)"
)
_NUMBER_LEVEL = 4
_UNITS = frozenset("元块万亿倍折度米公斤个年月日天号点时小分秒版级吨位次人家种项条名岁页")
_LONGEST_HEADING = 40
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n|$)")


def plain(text: str) -> Parsed:
    """Read plain text; headings by numbering on short lines that stand alone."""
    headings = tuple(_numbered_headings(text))
    return Parsed("text", text, headings, title=_first_line(text))


def _first_line(text: str) -> str:
    found = re.search(r"\S[^\r\n]*", text)
    return _one_line(found[0])[:80] if found else ""


def _numbered_headings(text: str) -> Iterator[Heading]:
    """Yield headings; a run of numbered lines without text between them is a list, not headings."""
    lines = [(m.start(), m.end(), m[0].strip()) for m in _LINE.finditer(text) if m[0].strip()]
    levels = [_numbering_level(line) for _, _, line in lines]
    for i, (start, end, words) in enumerate(lines):
        level = levels[i]
        if level is None or i + 1 == len(lines) or not _is_short(words):
            continue
        around = [levels[j] for j in (i - 1, i + 1) if 0 <= j < len(lines)]
        if level not in around:
            yield Heading(level, words, start, end)


def _is_short(line: str) -> bool:
    """Tell whether a line is short and ends like a title, not like a sentence."""
    return len(line) <= _LONGEST_HEADING and line[-1] not in "。！？；，,;!?.…"


def _numbering_level(line: str) -> int | None:
    """Return the heading level that a line's numbering stands for, None without numbering."""
    if chapter := _CHAPTER.match(line):
        return 2 if chapter[1] in "节節" else 1
    level = next((level for level, pattern in _NUMBERING if pattern.match(line)), None)
    return level or _number_level(line)


def _number_level(line: str) -> int | None:
    """Return the level of `1.`, `1、`, `1.1` or `1 概述`; "3.5元" and "3个工作日" are none."""
    found = _NUMBER.match(line)
    if not found:
        return None
    points, mark, word = found["number"].count("."), found["mark"], found["word"]
    if mark is None or mark.isspace():
        titled = "\u4e00" <= word <= "\u9fff" or "A" <= word <= "Z"
        if word in _UNITS or not titled or not (points or mark):
            return None
    return _NUMBER_LEVEL + points


# --- HTML ---------------------------------------------------------------------------------------

_DROPPED = frozenset(
    ("script", "style", "template", "noscript", "head", "svg", "iframe", "object", "nav", "select")
)
_BLOCKS = frozenset(
    "address article aside blockquote body caption dd details div dl dt fieldset figcaption figure "
    "footer form h1 h2 h3 h4 h5 h6 header hr li main ol p pre section summary table tr ul".split()
)
_HEADING_TAG = re.compile("h([1-6])")
_HIDING_STYLE = re.compile(
    r"display:none|visibility:(?:hidden|collapse)|font-size:0(?![.\d])|opacity:0(?:\.0+)?(?:;|$|!)"
)


def html(text: str) -> Parsed:
    """Read HTML by its tree (selectolax): visible text only, one block a line."""
    from selectolax.lexbor import LexborHTMLParser

    tree = LexborHTMLParser(text)
    writer = _Writer()
    unseen = _walk(tree.body, writer) if tree.body is not None else 0
    name = tree.css_first("title")
    title = _one_line(name.text()) if name is not None else ""
    link = tree.css_first('link[rel="canonical"]')
    url = _web_address(link.attributes.get("href")) if link is not None else None
    written = writer.text()
    notes = (f"{unseen} elements with text that the page hides were left out",) if unseen else ()
    headings = tuple(writer.headings)
    title = title or _title_of(headings)
    return Parsed("html", written, headings, title=title, url=url, notes=notes)


def _title_of(headings: tuple[Heading, ...]) -> str:
    return headings[0].title if headings else ""


class _Writer:
    """Collect blocks of text line by line and remember where headings fall."""

    def __init__(self) -> None:
        self.headings: list[Heading] = []
        self._done: list[str] = []
        self._length = 0
        self._line: list[str] = []

    def add(self, words: str) -> None:
        """Add inline text to the line."""
        self._line.append(words)

    def end(self, level: int = 0) -> None:
        """End the line; a level above 0 makes it a heading."""
        words = _one_line("".join(self._line))
        self._line = []
        if words:
            start = self._length
            self._done.append(words + "\n")
            self._length += len(words) + 1
            if level:
                self.headings.append(Heading(level, words, start, self._length))

    def text(self) -> str:
        """Return everything written."""
        self.end()
        return "".join(self._done)


def _walk(root: Any, writer: _Writer) -> int:
    """Write the visible text below a node; return how many elements with text were hidden.

    Iterative, so depth cannot exhaust the stack. Inside a heading, blocks do not end the line: a
    heading is one line, whatever it is made of.
    """
    unseen = 0
    level = 0
    work: list[tuple[Any, bool]] = [(root, False)]
    while work:
        node, leaving = work.pop()
        tag = node.tag or ""
        heading = _HEADING_TAG.fullmatch(tag)
        if leaving:
            if heading:
                writer.end(level)
                level = 0
            elif not level:
                writer.end()
        elif tag == "-text":
            writer.add(node.text_content or "")
        elif tag == "br" or (level and tag in _BLOCKS):
            writer.add(" ") if level else writer.end()
            work.extend(_children(node))
        elif tag in _DROPPED or tag.startswith(("-", "!")):
            continue
        elif _is_hidden(node):
            unseen += bool((node.text() or "").strip())
        else:
            if tag in _BLOCKS:
                writer.end()
                work.append((node, True))
                level = int(heading[1]) if heading else 0
            elif tag in {"td", "th"} and _follows_a_cell(node):
                writer.add(" | ")
            work.extend(_children(node))
    return unseen


def _children(node: Any) -> list[tuple[Any, bool]]:
    return [(child, False) for child in reversed(list(node.iter(include_text=True)))]


def _follows_a_cell(node: Any) -> bool:
    before = node.prev
    while before is not None and before.tag not in {"td", "th"}:
        before = before.prev
    return before is not None


def _is_hidden(node: Any) -> bool:
    attributes = node.attributes
    style = re.sub(r"\s", "", attributes.get("style") or "").lower()
    return (
        "hidden" in attributes
        or attributes.get("aria-hidden") == "true"
        or bool(_HIDING_STYLE.search(style))
    )


# --- PDF and DOCX (extra `docs`) ----------------------------------------------------------------


def pdf(data: bytes) -> Parsed:
    """Read a PDF's text page by page; headings by its outline, else by numbering."""
    try:
        from pypdf import PdfReader
    except ImportError:
        raise BadInput(f"reading PDF needs an extra; {_EXTRA}") from None
    logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # the report names what cannot be read
    try:
        reader = PdfReader(io.BytesIO(data))
        if reader.is_encrypted and not reader.decrypt(""):
            raise BadInput("a PDF that needs a password")
        pages = list(_pages(reader))
        title = _one_line((reader.metadata and reader.metadata.title) or "")
    except BadInput:
        raise
    except Exception as error:  # a broken PDF fails in any of the library's many ways
        raise BadInput(f"not a readable PDF ({type(error).__name__}: {error!s:.100})") from None
    text = "".join(pages)
    if not text.strip():
        raise BadInput("a PDF without text: scanned pages must go through text recognition first")
    headings = _outlined_headings(reader, pages) or tuple(_numbered_headings(text))
    return Parsed("pdf", text, headings, title=title or _first_line(text))


def _pages(reader: Any) -> Iterator[str]:
    length = 0
    for page in reader.pages:
        text = _unwrapped(clean(page.extract_text()))
        length += len(text)
        if length > _LONGEST_PDF_TEXT:
            raise BadInput(f"it unpacks to more than {_LONGEST_PDF_TEXT:,} characters")
        yield text


_NEARLY_FULL = 0.85
_SHORTEST_WRAP = 24


def _unwrapped(page: str) -> str:
    """Join lines that only the page's width has parted, so that sentences stay whole."""
    lines = [" ".join(line.split()) for line in page.split("\n")]
    width = max(map(len, lines), default=0)
    joined: list[str] = []
    previous = ""
    for line in lines:
        if _goes_on(previous, line, width):
            latin = previous[-1].isascii() and line[0].isascii()
            joined[-1] += (" " if latin else "") + line
        elif line:
            joined.append(line)
        previous = line
    return "".join(line + "\n" for line in joined)


def _goes_on(before: str, line: str, width: int) -> bool:
    """Tell whether a full line without an end runs on into one that is no item or heading."""
    return (
        bool(line)
        and len(before) >= max(_SHORTEST_WRAP, _NEARLY_FULL * width)
        and before[-1] not in "。！？；.!?;:：…"
        and _numbering_level(line) is None
        and not re.match(r"[-*•·▪●■□]|[0-9]{1,2}[.、)）]|[（(]", line)
    )


def _outlined_headings(reader: Any, pages: list[str]) -> tuple[Heading, ...]:
    """Return the lines that a PDF's outline names, () when it has none that is found."""
    starts = [0]
    for page in pages:
        starts.append(starts[-1] + len(page))
    found: list[Heading] = []
    try:
        for level, title, number in _outline(reader, reader.outline, 1):
            line = re.search(rf"^{re.escape(title)}\n", pages[number], re.M)
            if line:
                begin = starts[number] + line.start()
                found.append(Heading(min(level, 6), title, begin, starts[number] + line.end()))
    except Exception:  # an outline is a help, and a broken one is common
        return ()
    found.sort(key=lambda heading: heading.start)
    apart = (h for i, h in enumerate(found) if i == 0 or h.start >= found[i - 1].end)
    return tuple(apart)


def _outline(reader: Any, entries: Any, level: int) -> Iterator[tuple[int, str, int]]:
    for entry in entries:
        if isinstance(entry, list):
            yield from _outline(reader, entry, level + 1)
        elif title := _one_line(entry.title):
            number = reader.get_destination_page_number(entry)
            if number is not None and number >= 0:
                yield level, title, number


def docx(data: bytes) -> Parsed:
    """Read a DOCX in order: heading styles, paragraphs, and tables row by row."""
    try:
        import docx as python_docx
    except ImportError:
        raise BadInput(f"reading DOCX needs an extra; {_EXTRA}") from None
    try:
        _refuse_bombs(data)
        document = python_docx.Document(io.BytesIO(data))
        writer = _Writer()
        for block in document.iter_inner_content():
            if hasattr(block, "rows"):
                _write_table(block, writer)
            else:
                writer.add(block.text)
                writer.end(_style_level(block.style))
        title = _one_line(document.core_properties.title or "")
    except BadInput:
        raise
    except Exception as error:  # a broken DOCX fails in any of the library's many ways
        raise BadInput(f"not a readable DOCX ({type(error).__name__}: {error!s:.100})") from None
    text = writer.text()
    headings = tuple(writer.headings)
    return Parsed("docx", text, headings, title=title or _title_of(headings))


def _refuse_bombs(data: bytes) -> None:
    """Refuse an archive by the sizes it declares, which also bound what is unpacked."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = archive.infolist()
    if sum(entry.file_size for entry in entries) > _LARGEST_UNPACKED:
        raise BadInput("it unpacks to more than 512 MB")
    if any(e.file_size > _LARGEST_XML and e.filename.endswith((".xml", ".rels")) for e in entries):
        raise BadInput("a part of it unpacks to more than 64 MB")


def _write_table(table: Any, writer: _Writer) -> None:
    for row in table.rows:
        cells = {id(cell._tc): cell.text for cell in row.cells}  # a merged cell comes many times
        writer.add(" | ".join(cells.values()))
        writer.end()


def _style_level(style: Any) -> int:
    """Return the heading level of a style or of one that it is based on, 0 for none."""
    for _ in range(8):
        if style is None:
            break
        name = str(style.name or "")
        if found := re.fullmatch(r"(?:heading|标题) ?([1-6])", name, re.IGNORECASE):
            return int(found[1])
        if name == "Title":
            return 1
        style = style.base_style
    return 0


# --- Questions and answers ----------------------------------------------------------------------

_DEEPEST_YAML = 20
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def load_yaml(text: str) -> Any:
    """Read YAML safely; aliases are refused, for they can unpack to gigabytes."""
    try:
        depth = 0
        for event in yaml.parse(text, _LOADER):
            if isinstance(event, yaml.AliasEvent):
                raise BadInput("aliases (*name) are not taken in YAML here")
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > _DEEPEST_YAML:
                raise BadInput(f"YAML nested more than {_DEEPEST_YAML} deep is not taken here")
        return yaml.load(text, _LOADER)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise BadInput(f"not readable as YAML ({' '.join(str(error).split())[:200]})") from None


def qa_yaml(text: str, path: str) -> Parsed:
    """Read a list of entries: `questions`, and an `answer` text or a `passage` reference."""
    entries = load_yaml(text)
    if not isinstance(entries, list):
        raise BadInput("expected a YAML list of {questions: [...], answer: … or passage: …}")
    return _entries([_yaml_entry(entry) for entry in entries], path)


def _yaml_entry(entry: Any) -> tuple[list[str], str, str]:
    if not isinstance(entry, dict):
        raise BadInput(f"expected {{questions: [...], answer: …}}, saw {str(entry)[:60]!r}")
    questions = entry.get("questions") or entry.get("question") or []
    listed = questions if isinstance(questions, list) else [questions]
    answer, passage = entry.get("answer"), entry.get("passage")
    return [str(q) for q in listed], str(answer or ""), str(passage or "")


_COLUMNS = {
    "问题": "question",
    "问法": "question",
    "答案": "answer",
    "回答": "answer",
    "q": "question",
}


def qa_csv(text: str, path: str) -> Parsed:
    """Read rows with a `question` (variants split by |, or more `question…` columns) and answer.

    Instead of an answer, a row may have a `passage` that answers. Empty rows are passed over.
    """
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        columns = [_column(name) for name in next(rows, [])]
        if "question" not in columns or not {"answer", "passage"} & set(columns):
            raise BadInput("expected the columns question and answer in the first line")
        found = [_csv_entry(columns, row) for row in rows if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise BadInput(f"not readable as CSV ({error})") from None
    return _entries(found, path)


def _column(name: str) -> str:
    given = name.strip().lower()
    given = next((known for word, known in _COLUMNS.items() if given.startswith(word)), given)
    return "question" if given.startswith("question") else given


def _csv_entry(columns: list[str], row: list[str]) -> tuple[list[str], str, str]:
    cells = list(zip(columns, row, strict=False))
    asked = [q for column, cell in cells if column == "question" for q in cell.split("|")]
    answer = next((cell for column, cell in cells if column == "answer"), "")
    passage = next((cell.strip() for column, cell in cells if column == "passage"), "")
    return asked, answer, passage


def _entries(entries: list[tuple[list[str], str, str]], path: str) -> Parsed:
    """Write answers as a document, the first question as heading; the rest are variants."""
    parts: list[str] = []
    length = 0
    headings, variants = [], []
    for number, (questions, answer, passage) in enumerate(entries, 1):
        asked = [words for q in questions if (words := _one_line(q))]
        said = clean(answer).strip()
        if not asked or not (said or passage):
            raise BadInput(f"entry {number} needs questions, and an answer or a passage")
        if said and passage:
            raise BadInput(f"entry {number} has an answer and a passage; it may have one of them")
        if passage:
            variants.append(Variants(passage, tuple(asked), path))
            continue
        headings.append(Heading(1, asked[0], length, length + len(asked[0]) + 1))
        parts.append(f"{asked[0]}\n{said}\n\n")
        length += len(parts[-1])
        if asked[1:]:
            variants.append(Variants(f"{path}#{asked[0]}", tuple(asked[1:]), path))
    return Parsed("qa", "".join(parts), tuple(headings), title=path, variants=tuple(variants))


BINARY: dict[str, Callable[[bytes], Parsed]] = {".pdf": pdf, ".docx": docx}
TEXT: dict[str, Callable[[str], Parsed]] = {
    ".md": markdown,
    ".markdown": markdown,
    ".txt": plain,
    ".html": html,
    ".htm": html,
}
QA: dict[str, Callable[[str, str], Parsed]] = {
    ".qa.yaml": qa_yaml,
    ".qa.yml": qa_yaml,
    ".qa.csv": qa_csv,
}
