"""Choose the exact words to show and decide whether they answer."""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal, TypeVar

from assistant.fold import fold, terms
from assistant.records import Chunk, Hit, Quote, Ranking, Reason, Verdict
from assistant.screen import unmasked
from assistant.search import Index, Spans

Language = Literal["zh", "en"]
Found = TypeVar("Found", Hit, Quote)

_HAN = re.compile(r"[\u3400-\u9fff]")
_WORTH_SHOWING = 0.75  # of the best passage's score; weaker ones would only distract
_WORTH_MARKING = 0.85  # of the best sentence's score
_MOST_MARKS = 3
_RIVAL = 0.06  # of ranking score
_MOST_RIVALS = 3
_WORD_SHARE = 0.3  # what shared words add to a sentence's cosine

_MESSAGES: dict[Verdict, dict[Language, str]] = {
    "answered": {
        "zh": "指南里是这样说的：",
        "en": "The guide says:",
    },
    "uncertain": {
        "zh": "这些段落可能有帮助，但不一定完全回答您的问题：",
        "en": "These passages may help, but may not fully answer your question:",
    },
    "unanswered": {
        "zh": "指南里没有找到这个问题的答案。",
        "en": "The guide does not seem to answer this question.",
    },
}


def language_of(text: str) -> Language:
    """Return the language to reply in: Chinese when the question has a Chinese character.

    The masks that secrets were replaced by are no words of the person's.
    """
    return "zh" if _HAN.search(unmasked(text)) else "en"


def message_for(verdict: Verdict, language: Language) -> str:
    """Return the line that stands above the quotes."""
    return _MESSAGES[verdict][language]


def decide(confidence: float, answered_cut: float, refused_cut: float) -> Verdict:
    """Compare a calibrated confidence with the two cuts."""
    if confidence >= answered_cut:
        return "answered"
    return "uncertain" if confidence >= refused_cut else "unanswered"


def reason_for(verdict: Verdict, ranking: Ranking) -> Reason:
    """Return why an answer that is not sure is handed over."""
    if verdict == "unanswered":
        return "out_of_guide"
    return "ambiguous" if len(rivals(ranking.hits)) > 1 else "low_confidence"


def rivals(found: Sequence[Found]) -> tuple[Found, ...]:
    """Return what was found, at most three, that answers about as likely as the first does."""
    apart = _apart(found)[:_MOST_RIVALS]
    return tuple(one for one in apart if one.score >= apart[0].score - _RIVAL)


def _apart(found: Sequence[Found]) -> list[Found]:
    """Return what was found, each text once: a copy of a passage says nothing new."""
    first: dict[str, Found] = {}
    for one in found:
        first.setdefault(one.text if isinstance(one, Quote) else one.chunk.text, one)
    return list(first.values())


def quote(index: Index, question: str, hit: Hit) -> Quote:
    """Quote the whole passage of a hit and mark the sentences that answer."""
    return quote_chunk(
        hit.chunk,
        highlights=_mark(hit.chunk.text, question, *index.sentences(question, hit)),
        similarity=hit.similarity,
        lexical=hit.lexical,
        score=hit.score,
    )


def quote_chunk(
    chunk: Chunk,
    highlights: tuple[tuple[int, int], ...] = (),
    similarity: float = 0.0,
    lexical: float = 0.0,
    score: float = 0.0,
) -> Quote:
    """Quote a passage as it stands in the guide."""
    return Quote(
        text=chunk.text,
        path=chunk.path,
        title=chunk.title,
        headings=chunk.headings,
        start=chunk.start,
        end=chunk.end,
        highlights=highlights,
        similarity=similarity,
        lexical=lexical,
        score=score,
        url=chunk.url,
    )


def choose(index: Index, ranking: Ranking, top_k: int) -> tuple[Quote, ...]:
    """Quote the best passages, at most `top_k`, leaving out those far behind the first."""
    if not ranking.hits:
        return ()
    least = ranking.hits[0].score * _WORTH_SHOWING
    near = [hit for hit in _apart(ranking.hits)[:top_k] if hit.score >= least]
    return tuple(quote(index, ranking.query, hit) for hit in near)


def _mark(text: str, question: str, spans: Spans, cosines: Sequence[float]) -> Spans:
    """Return the spans of the sentences of a passage that answer best."""
    if not spans:
        return ((0, len(text)),)
    wanted = _wanted(question)
    shared = [len(wanted & own) / max(1, len(wanted)) for own in _terms_of(text, spans)]
    values = [c + _WORD_SHARE * share for c, share in zip(cosines, shared, strict=True)]
    least = max(values) * _WORTH_MARKING
    near = (i for i, value in enumerate(values) if value >= least)
    marked = set(sorted(near, key=lambda i: (-values[i], i))[:_MOST_MARKS])
    for i in sorted(marked):  # a sentence that opens a list is answered by the list
        if text[slice(*spans[i])].rstrip().endswith((":", "：")):
            marked.update(_list_behind(text, spans, i))
    return tuple(spans[i] for i in sorted(marked))


def _list_behind(text: str, spans: Spans, opener: int) -> list[int]:
    """Return the sentences of the list that starts right behind the opener."""
    items: list[int] = []
    previous = spans[opener][1]
    for i in range(opener + 1, len(spans)):
        gap = text[previous : spans[i][0]]
        starts_item = re.search(r"(?:^|\n)\s*(?:[-*+•]|\d+[.)、])\s*$", gap)
        if not starts_item and (not items or "\n" in gap):
            break
        items.append(i)
        previous = spans[i][1]
    return items


def matched_words(question: str, text: str) -> tuple[tuple[int, int], ...]:
    """Return the spans of `text` that share words (Han bigrams, whole words) with a question."""
    folded = fold(text)
    covered = bytearray(len(text))
    for term in {term for term in terms(fold(question)) if len(term) > 1}:
        pattern = rf"(?<![a-z0-9]){re.escape(term)}(?![a-z0-9])" if term.isascii() else term
        for found in re.finditer(pattern, folded):
            covered[found.start() : found.end()] = b"\1" * len(term)
    return tuple((found.start(), found.end()) for found in re.finditer(b"\1+", covered))


@lru_cache(maxsize=64)
def _wanted(question: str) -> frozenset[str]:
    return frozenset(terms(fold(question)))


@lru_cache(maxsize=2_000)
def _terms_of(text: str, spans: Spans) -> tuple[frozenset[str], ...]:
    """Return the terms of each sentence of a passage."""
    return tuple(frozenset(terms(fold(text[begin:end]))) for begin, end in spans)
