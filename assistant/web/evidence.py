"""Show an agent a passage: why it was found, what is around it, where it stands in the guide."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal
from weakref import WeakKeyDictionary

from assistant.answer import matched_words, quote
from assistant.errors import IndexUnusable, NotInGuide
from assistant.fold import fold, terms
from assistant.frontdesk import FrontDesk
from assistant.records import Chunk, Document, Hit, Quote, View
from assistant.screen import screen_question
from assistant.search import Index

_AT_MOST = 10
_TRIES = 3
_FAR_BEHIND = 0.5  # of the best passage's score

Nearness = Literal["very_near", "near", "related", "far"]
_NEARNESS: tuple[tuple[float, Nearness], ...] = (
    (0.8, "very_near"),
    (0.6, "near"),
    (0.45, "related"),
)


@dataclass(frozen=True, slots=True)
class Found:
    """Hold a found passage with what tells why it was found and what stands next to it.

    `best` is the view that is nearest to the question, `said` its words when they are a sentence or
    a way of asking. `words` are the parts of the question that the passage's search texts contain,
    and so count for BM25.
    """

    hit: Hit
    quote: Quote
    best: View
    said: str
    words: tuple[str, ...]
    before: Chunk | None
    after: Chunk | None

    @property
    def nearness(self) -> Nearness:
        """Return how near the question its best view is, as a word to be said."""
        return next((word for least, word in _NEARNESS if self.hit.view >= least), "far")


@dataclass(frozen=True, slots=True)
class Findings:
    """Hold what a search found, best first; `looked_for` has errors of sound put right."""

    looked_for: str
    found: tuple[Found, ...]

    @property
    def close(self) -> int:
        """Return how many of the first are not far behind the best by their ranking score."""
        scores = [one.hit.score for one in self.found]
        return sum(score >= scores[0] * _FAR_BEHIND for score in scores)


@dataclass(frozen=True, slots=True)
class Contents:
    """Hold what an index has passages of, by path: documents' titles, their headings in order."""

    titles: dict[str, str]
    headings: dict[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Placed:
    """Hold a passage that was shown once, and where its words stand in the guide as it is now.

    `quote` has the place of now where the words only moved, else the place of then.
    """

    quote: Quote
    place: Literal["same", "moved", "gone"]


def look_up(front: FrontDesk, question: str, path: str = "", section: str = "") -> Findings:
    """Search for an agent and explain what was found, all of it of one generation.

    Raises BadInput, with a sentence to show, for a question that is none; IndexUnusable.
    """
    asked = screen_question(question, front.settings.max_question_chars)
    for _ in range(_TRIES):
        index = front.desk.index
        try:
            hits = front.search(asked, _AT_MOST, path, section)
        except NotInGuide:  # an old link: the page offers to look everywhere
            hits = []
        if front.desk.index is index:
            looked_for = index.search(asked, 1).query
            return Findings(looked_for, tuple(_explain(index, looked_for, hit) for hit in hits))
    raise IndexUnusable("the index was replaced again and again during one search; search again.")


def _explain(index: Index, question: str, hit: Hit) -> Found:
    views = index.views(hit.row)
    best = views[hit.best - index.first_view(hit.row)]
    searched = "\n".join(view.text for view in views if view.kind != "sentence")
    return Found(
        hit=hit,
        quote=quote(index, question, hit),
        best=best,
        said=_said(best, hit.chunk),
        words=_words(question, searched),
        before=_neighbour(index, hit, -1),
        after=_neighbour(index, hit, 1),
    )


def _said(view: View, chunk: Chunk) -> str:
    """Return the words of a view: the guide's own for a sentence, the question of a variant."""
    if view.kind == "sentence":
        return chunk.text[view.start - chunk.start : view.end - chunk.start]
    return view.text if view.kind == "variant" else ""


def _words(question: str, searched: str) -> tuple[str, ...]:
    """Return what of a question a text contains: its words, then single characters elsewhere."""
    words = [question[begin:end] for begin, end in matched_words(searched, question)]
    known, said = set(terms(fold(searched))), fold("".join(words))
    singles = (term for term in terms(fold(question)) if len(term) == 1)
    apart = [one for one in singles if one in known and one not in said]
    return tuple(dict.fromkeys([*words, *apart]))


def _neighbour(index: Index, hit: Hit, step: int) -> Chunk | None:
    """Return the passage next to a hit's in its document, None at either end."""
    row = hit.row + step
    if not 0 <= row < len(index):
        return None
    chunk = index.chunk(row)
    return chunk if chunk.path == hit.chunk.path else None


# Read once per index: that walks over all its passages.
_CONTENTS: WeakKeyDictionary[Index, Contents] = WeakKeyDictionary()


def contents(index: Index) -> Contents:
    """Return the documents and headings of an index."""
    if (known := _CONTENTS.get(index)) is None:
        known = _CONTENTS[index] = _read_contents(index.chunks())
    return known


def _read_contents(chunks: Iterable[Chunk]) -> Contents:
    titles: dict[str, str] = {}
    headings: dict[str, dict[str, None]] = {}
    for chunk in chunks:
        titles[chunk.path] = chunk.title
        headings.setdefault(chunk.path, {}).update(dict.fromkeys(chunk.headings))
    return Contents(titles, {path: tuple(names) for path, names in headings.items()})


def place_now(quote: Quote, document: Document | None) -> Placed:
    """Tell where the words of a passage that was shown once stand in its document of now."""
    if document is None or (at := document.text.find(quote.text)) < 0:
        return Placed(quote, "gone")
    if document.text[quote.start : quote.end] == quote.text:
        return Placed(quote, "same")
    return Placed(replace(quote, start=at, end=at + len(quote.text)), "moved")


def as_markdown(quote: Quote, link: str) -> str:
    """Write a passage as Markdown to pass on: its words quoted, then where they stand."""
    words = "\n".join(f"> {line}".rstrip() for line in quote.text.split("\n"))
    source = f"{' › '.join(quote.headings)} (`{quote.path}`, {quote.start}–{quote.end})"
    return f"{words}\n\n— {source}: <{link}>"
