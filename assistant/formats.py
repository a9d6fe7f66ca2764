"""Read one guide file's text and headings: Markdown, plain text, HTML, Q&A; PDF and DOCX by extra.

Markdown and plain text keep their characters unchanged, so offsets are those of the file. The
other formats give extracted text: one block a line, in reading order.
"""

import csv
import io
import re
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from assistant.errors import BadInput
from assistant.records import Heading, Kind, Variants

_EXTRA = 'install it with: pip install "guide-assistant[docs]"'
_LARGEST_UNPACKED = 512 * 2**20


@dataclass(frozen=True, slots=True)
class Parsed:
    """Hold what a format gave: canonical text, headings, where the guide begins, and meta data."""

    kind: Kind
    text: str
    headings: tuple[Heading, ...] = ()
    body: int = 0
    title: str = ""
    date: str = ""
    url: str | None = None
    variants: tuple[Variants, ...] = ()


# --- Markdown -----------------------------------------------------------------------------------

_FRONT_MATTER = re.compile(r"---[ \t]*\r?\n(.*?)^(?:---|\.\.\.)[ \t]*(?:\r?\n|\Z)", re.S | re.M)
_CLOSED_HEADING = re.compile(r"[ \t]+#+[ \t]*$")


def markdown(text: str) -> Parsed:
    """Read Markdown; headings by markdown-it-py's line map, so fences and setext are right."""
    from markdown_it import MarkdownIt

    meta, body = _front_matter(text)
    starts = _line_starts(text, body)
    headings = []
    tokens = MarkdownIt("commonmark").parse(_plain_lines(text[body:]))
    for i, token in enumerate(tokens):
        if token.type == "heading_open" and token.map and token.level == 0:
            first, last = token.map
            words = " ".join(tokens[i + 1].content.split())
            span = (starts[first], starts[min(last, len(starts) - 1)])
            headings.append(Heading(int(token.tag[1]), words, *span))
    title = str(meta.get("title") or (headings[0].title if headings else ""))
    url = str(meta["url"]) if meta.get("url") else None
    date = str(meta.get("date") or "")
    return Parsed("markdown", text, tuple(headings), body, title, date, url)


def _front_matter(text: str) -> tuple[dict[str, Any], int]:
    found = _FRONT_MATTER.match(text)
    if not found:
        return {}, 0
    try:
        meta = load_yaml(found[1])
    except BadInput:
        return {}, 0
    return (meta, found.end()) if isinstance(meta, dict) else ({}, 0)


def _plain_lines(text: str) -> str:
    """Return the text as markdown-it will count its lines: a lone CR or CRLF is one newline."""
    return text.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "\ufffd")


def _line_starts(text: str, begin: int) -> list[int]:
    """Return the offset of each line's start in the unchanged text, and of its end."""
    starts = [begin]
    starts += [m.end() for m in re.compile(r"\r\n|\r|\n").finditer(text, begin)]
    return [*starts, len(text)]


# --- Plain text ---------------------------------------------------------------------------------

_NUMBERING = (
    re.compile(r"第[一二三四五六七八九十百零〇\d]{1,4}[章篇部](?:[\s:：、.]|$)"),
    re.compile(r"[一二三四五六七八九十]{1,3}[、.．]"),
    re.compile(r"[（(][一二三四五六七八九十]{1,3}[）)]"),
    re.compile(r"\d{1,2}(?:\.\d{1,2}){0,3}[、.．]?(?=[\s\u4e00-\u9fff])(?!\s*\d)"),
    re.compile(r"[（(]\d{1,2}[）)]"),
)
_LONGEST_HEADING = 40
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n|$)")


def plain(text: str) -> Parsed:
    """Read plain text; headings by numbering on short lines that stand alone."""
    headings = tuple(_numbered_headings(text))
    return Parsed("text", text, headings, title=_first_line(text))


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "")[:80]


def _numbered_headings(text: str) -> Iterator[Heading]:
    """Yield headings; a run of numbered lines without text between them is a list, not headings."""
    lines = [(m.start(), m.end(), m[0].strip()) for m in _LINE.finditer(text) if m[0].strip()]
    levels = [_numbering_level(line) for _, _, line in lines]
    for i, (start, end, words) in enumerate(lines):
        level = levels[i]
        if level is None or i + 1 == len(lines):
            continue
        around = [levels[j] for j in (i - 1, i + 1) if 0 <= j < len(lines)]
        if level not in around:
            yield Heading(level + 1, words, start, end)


def _numbering_level(line: str) -> int | None:
    if len(line) > _LONGEST_HEADING or line[-1] in "。！？；，,;!?.…":
        return None
    matched = (i for i, pattern in enumerate(_NUMBERING) if pattern.match(line))
    level = next(matched, None)
    if level == 3:
        number = re.match(r"[\d.]+", line)
        level += number[0].strip(".").count(".") if number else 0
    return level


# --- HTML ---------------------------------------------------------------------------------------

_DROPPED = frozenset(
    ("script", "style", "template", "noscript", "head", "svg", "iframe", "object", "nav", "select")
)
_BLOCKS = frozenset(
    "address article aside blockquote body caption dd details div dl dt fieldset figcaption figure "
    "footer form h1 h2 h3 h4 h5 h6 header hr li main ol p pre section summary table tr ul".split()
)


def html(text: str) -> Parsed:
    """Read HTML by its tree (selectolax): visible text only, one block a line."""
    from selectolax.lexbor import LexborHTMLParser

    tree = LexborHTMLParser(text)
    writer = _Writer()
    if tree.body is not None:
        _walk(tree.body, writer)
    title = tree.css_first("title")
    name = " ".join(title.text().split()) if title is not None else ""
    link = tree.css_first('link[rel="canonical"]')
    url = link.attributes.get("href") if link is not None else None
    headings = tuple(writer.headings)
    return Parsed("html", writer.text(), headings, 0, name or _title_of(headings), "", url or None)


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
        words = " ".join("".join(self._line).split())
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


def _walk(root: Any, writer: _Writer) -> None:
    """Write the visible text below a node; iterative, so depth cannot exhaust the stack."""
    work: list[tuple[Any, bool]] = [(root, False)]
    while work:
        node, leaving = work.pop()
        tag = node.tag
        if leaving:
            level = int(tag[1]) if re.fullmatch(r"h[1-6]", tag) else 0
            writer.end(level)
        elif tag == "-text":
            writer.add(node.text_content or "")
        elif tag == "br":
            writer.end()
        elif tag not in _DROPPED and not tag.startswith(("-", "!")) and not _hidden(node):
            if tag in _BLOCKS:
                writer.end()
                work.append((node, True))
            elif tag in {"td", "th"} and node.prev is not None:
                writer.add(" | ")
            work.extend((child, False) for child in reversed(list(node.iter(include_text=True))))


def _hidden(node: Any) -> bool:
    attributes = node.attributes
    style = (attributes.get("style") or "").replace(" ", "").lower()
    return (
        "hidden" in attributes
        or attributes.get("aria-hidden") == "true"
        or "display:none" in style
        or "visibility:hidden" in style
    )


# --- PDF and DOCX (extra `docs`) ----------------------------------------------------------------


def pdf(data: bytes) -> Parsed:
    """Read a PDF's text page by page; headings by numbering, as in plain text."""
    try:
        from pypdf import PdfReader
        from pypdf.errors import PyPdfError
    except ImportError:
        raise BadInput(f"reading PDF needs an extra; {_EXTRA}") from None
    try:
        reader = PdfReader(io.BytesIO(data))
        pages = [page.extract_text() for page in reader.pages]
        title = str((reader.metadata and reader.metadata.title) or "")
    except (PyPdfError, ValueError, KeyError, TypeError, RecursionError, OSError) as error:
        raise BadInput(f"not a readable PDF ({error})") from None
    text = "\n".join(_tidy(page) for page in pages)
    return Parsed("pdf", text, tuple(_numbered_headings(text)), title=title or _first_line(text))


def _tidy(page: str) -> str:
    kept = (c for c in page.replace("\r\n", "\n") if c in "\n\t" or c.isprintable())
    return "".join(kept)


def docx(data: bytes) -> Parsed:
    """Read a DOCX in order: heading styles, paragraphs, and tables row by row."""
    try:
        import docx as python_docx
    except ImportError:
        raise BadInput(f"reading DOCX needs an extra; {_EXTRA}") from None
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > _LARGEST_UNPACKED:
                raise BadInput("it unpacks to more than 512 MB")
        document = python_docx.Document(io.BytesIO(data))
    except (zipfile.BadZipFile, KeyError, ValueError, OSError) as error:
        raise BadInput(f"not a readable DOCX ({error})") from None
    writer = _Writer()
    for block in document.iter_inner_content():
        if hasattr(block, "rows"):
            for row in block.rows:
                writer.add(" | ".join(cell.text for cell in row.cells))
                writer.end()
        else:
            style = str(block.style.name if block.style is not None else "")
            found = re.fullmatch(r"(?:Heading|标题) ?([1-6])", style)
            writer.add(block.text)
            writer.end(int(found[1]) if found else 1 if style == "Title" else 0)
    title = str(document.core_properties.title or "")
    headings = tuple(writer.headings)
    return Parsed("docx", writer.text(), headings, title=title or _title_of(headings))


# --- Questions and answers ----------------------------------------------------------------------


def load_yaml(text: str) -> Any:
    """Read YAML safely; aliases are refused, for they can unpack to gigabytes."""
    try:
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader)):
            raise BadInput("aliases (*name) are not taken in YAML here")
        return yaml.safe_load(text)
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
    listed = [questions] if isinstance(questions, str) else [str(q) for q in questions]
    return listed, str(entry.get("answer") or ""), str(entry.get("passage") or "")


def qa_csv(text: str, path: str) -> Parsed:
    """Read rows with a `question` (variants split by |, or more `question…` columns) and answer."""
    rows = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        names = {name: (name or "").strip().lower() for name in rows.fieldnames or []}
        if "answer" not in names.values() or not any(
            n.startswith("question") for n in names.values()
        ):
            raise BadInput("expected the columns question and answer in the first line")
        found = []
        for row in rows:
            asked = [v for k, v in row.items() if names.get(k, "").startswith("question") and v]
            answer = next((v for k, v in row.items() if names.get(k) == "answer" and v), "")
            found.append(([q for cell in asked for q in cell.split("|")], answer, ""))
    except csv.Error as error:
        raise BadInput(f"not readable as CSV ({error})") from None
    return _entries(found, path)


def _entries(entries: list[tuple[list[str], str, str]], path: str) -> Parsed:
    """Write answers as a document, the first question as heading; the rest are variants."""
    text, headings, variants = "", [], []
    for number, (questions, answer, passage) in enumerate(entries, 1):
        asked = [" ".join(q.split()) for q in questions if q.strip()]
        if not asked or not (answer.strip() or passage):
            raise BadInput(f"entry {number} needs questions, and an answer or a passage")
        if passage:
            variants.append(Variants(passage, tuple(asked), path))
            continue
        start = len(text)
        text += asked[0] + "\n"
        headings.append(Heading(1, asked[0], start, len(text)))
        text += answer.strip() + "\n\n"
        if asked[1:]:
            variants.append(Variants(f"{path}#{asked[0]}", tuple(asked[1:]), path))
    return Parsed("qa", text, tuple(headings), title=path, variants=tuple(variants))


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
