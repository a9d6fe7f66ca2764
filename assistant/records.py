"""What flows through the assistant: read these records and you know the program.

Offsets are character offsets (Python `str` indices) into `Document.text`, the one canonical text of
a guide file: for Markdown and plain text the file's decoded characters, unchanged; for HTML, PDF,
DOCX and Q&A files the text extracted from them. `document.text[x.start:x.end] == x.text` holds for
every Section, Chunk and Quote.
"""

from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["markdown", "text", "html", "pdf", "docx", "qa"]
Verdict = Literal["answered", "uncertain", "unanswered"]
Reason = Literal[
    "low_confidence",
    "ambiguous",
    "out_of_guide",
    "asked_for_human",
    "urgent_account_security",
    "contact_check",
]


@dataclass(frozen=True, slots=True)
class Heading:
    """Mark a heading: its level (1 is the top), its words, and the span of its whole line(s)."""

    level: int
    title: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Document:
    """Hold one guide file: where it lies in the corpus, its canonical text and its headings.

    `path` is relative to the corpus folder, with forward slashes. `body` is the offset at which the
    guide begins (behind front matter). `sha256` is the hash of the file's bytes. `url` is the
    page's public address when its front matter names one.
    """

    path: str
    title: str
    text: str
    kind: Kind
    sha256: str
    headings: tuple[Heading, ...] = ()
    body: int = 0
    date: str = ""
    url: str | None = None


@dataclass(frozen=True, slots=True)
class Variants:
    """Hold questions that a passage answers, from a Q&A file: search text, never quoted.

    `passage` is a reference, `path#heading` (see `split.find_section`).
    """

    passage: str
    questions: tuple[str, ...]
    source: str


@dataclass(frozen=True, slots=True)
class Skipped:
    """Name a corpus file that was not read, and why, in words a maintainer can act on."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class Corpus:
    """Hold what loading a corpus folder gave; documents are sorted by path."""

    documents: tuple[Document, ...]
    variants: tuple[Variants, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    files: dict[str, str] = field(default_factory=dict)
    """Every file that was read, with the sha256 of its bytes."""
    warnings: tuple[Skipped, ...] = ()
    """Files that were read but want a look, and why."""


@dataclass(frozen=True, slots=True)
class Section:
    """Hold the text between one heading and the next; `headings` run from the top down."""

    path: str
    headings: tuple[str, ...]
    start: int
    end: int
    text: str


@dataclass(frozen=True, slots=True)
class Chunk:
    """Hold one passage: an exact span of one section, the unit that is found and quoted.

    `id` is derived from path, headings, text and its count among equals, so an unchanged passage
    keeps its id over rebuilds even when text before it moves it.
    """

    id: str
    path: str
    title: str
    headings: tuple[str, ...]
    start: int
    end: int
    text: str
    url: str | None = None


@dataclass(frozen=True, slots=True)
class View:
    """Hold one search text for the passage at row `chunk` of the chunk table.

    `text` helps finding and is never shown. `start` and `end` are the span of the document that the
    view stands for: the sentence of a sentence view, else the whole passage.
    """

    chunk: int
    kind: Literal["passage", "sentence", "variant"]
    text: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Hit:
    """Hold a found passage with its raw evidence.

    `passage` is the cosine of the whole-passage view and `view` of the best view of any kind;
    `best` is that view's row, `support` the mean cosine of the three best. `lexical` is the best
    raw BM25 of its views, `coverage` the share of the query's BM25 term weight (0..1) that they
    contain. `score` ranks: it is a fusion, and no evidence of certainty.
    """

    chunk: Chunk
    row: int
    passage: float
    view: float
    support: float
    best: int
    lexical: float
    coverage: float
    score: float

    @property
    def similarity(self) -> float:
        """Return the mean of both cosines, the best single signal of relevance."""
        return (self.passage + self.view) / 2


@dataclass(frozen=True, slots=True)
class Ranking:
    """Hold the hits of one query as it was looked for, best first, and what is known of it.

    `weight` is the sum of the BM25 weights (idf) of the query's terms and `unknown` the share of it
    that no passage contains. `crowd` is the mean cosine with the five nearest of the questions that
    people ask anywhere. `spanned` is the length of the query's projection on the five best
    views of the first hit.
    """

    query: str
    hits: tuple[Hit, ...]
    weight: float
    unknown: float
    crowd: float
    spanned: float


@dataclass(frozen=True, slots=True)
class Quote:
    """Hold the guide's exact words: one whole passage, and the sentences in it that answer.

    `highlights` are spans of offsets into `text`. `similarity` is a cosine, `lexical` a raw BM25.
    """

    text: str
    path: str
    title: str
    headings: tuple[str, ...]
    start: int
    end: int
    highlights: tuple[tuple[int, int], ...]
    similarity: float
    lexical: float
    score: float
    url: str | None


@dataclass(frozen=True, slots=True)
class Channel:
    """Name a way to reach a person: quoted from the guide, its address only from the operator."""

    name: str
    quote: Quote | None
    contact: str | None


@dataclass(frozen=True, slots=True)
class ChecklistItem:
    """Name one thing to prepare before contacting a person, with the guide's own words for it."""

    item: str
    quote: Quote | None


@dataclass(frozen=True, slots=True)
class Handoff:
    """Hold what a person needs to be helped by a person."""

    reason: Reason
    message: str
    channels: tuple[Channel, ...]
    checklist: tuple[ChecklistItem, ...]
    ticket_draft: str


@dataclass(frozen=True, slots=True)
class Filled:
    """Hold what the user wrote for one checklist item."""

    item: str
    text: str


@dataclass(frozen=True, slots=True)
class Ticket:
    """Hold what a person at support needs to know of a question, secrets masked.

    `previous` is the question of the turn before, "" when there was none. `quotes` are those that
    were shown, with their places and scores.
    """

    reason: Reason
    question: str
    previous: str
    quotes: tuple[Quote, ...]
    filled: tuple[Filled, ...]
    generation: str


@dataclass(frozen=True, slots=True)
class Answer:
    """Hold the whole answer to one question, as every door shows it.

    `confidence` is the calibrated probability that the first quote answers the question.
    `generation` is the id of the index that was asked ("" when there was none).
    """

    question: str
    verdict: Verdict
    confidence: float
    message: str
    quotes: tuple[Quote, ...]
    handoff: Handoff | None
    generation: str
    elapsed_ms: float
