"""Choose what the ask page offers to ask: the operator's own examples, else the guide's.

The guide's are questions that it is known to answer, one of each section, else its headings; only
such as the desk itself answers or shows that section for.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import get_args

from assistant.answer import Language, language_of
from assistant.desk import Desk
from assistant.errors import BadInput
from assistant.handoff import DOUBTS
from assistant.questions import fit_questions
from assistant.records import Chunk, Quote
from assistant.screen import clean

MOST = 5
"""How many examples are shown at most, in each language."""

Examples = dict[Language, tuple[str, ...]]

_MOST_TRIED = 40
_MOST_SECTIONS = 500
_LONGEST: dict[Language, int] = {"zh": 24, "en": 60}
_NUMBER = re.compile(
    r"\s*(?:第?[一二三四五六七八九十]{1,3}[、.．章节]|[0-9]{1,2}(?:\.[0-9]{1,2})*[.、)]?\s|"
    r"[（(][一二三四五六七八九十0-9]{1,3}[）)])\s*"
)


@dataclass(frozen=True, slots=True)
class _Candidate:
    """Hold words to ask, and the section (`path#heading`) that should be shown for them."""

    words: str
    section: str


def examples(desk: Desk) -> Examples:
    """Return the example questions in each language; none where the guide gives none.

    Where there are none in a language, those of the other are shown.
    """
    listed = [clean(words).strip() for words in desk.contacts.examples]
    sections = list(_sections(desk))
    found: Examples = {}
    for language in get_args(Language):
        own = tuple(words for words in listed if words and language_of(words) == language)
        found[language] = own[:MOST] or _of_guide(desk, sections, language)
    zh, en = found["zh"], found["en"]
    return {"zh": zh or en, "en": en or zh}


def _of_guide(desk: Desk, sections: list[Chunk], language: Language) -> tuple[str, ...]:
    """Return what the desk answers best of the guide's own questions, else of its headings."""
    for candidates in (_questions(desk, sections), _headings(sections)):
        short = (
            one
            for one in candidates
            if language_of(one.words) == language and 1 < len(one.words) <= _LONGEST[language]
        )
        if chosen := _tried(desk, _spread(short)):
            return chosen
    return ()


def _sections(desk: Desk) -> Iterator[Chunk]:
    """Yield the first passage of every section, of some where there are many."""
    index = desk.index
    seen = set()
    for row in range(0, len(index), max(1, len(index) // _MOST_SECTIONS)):
        chunk = index.chunk(row)
        if chunk.headings and (place := (chunk.path, chunk.headings)) not in seen:
            seen.add(place)
            yield chunk


def _questions(desk: Desk, sections: list[Chunk]) -> Iterator[_Candidate]:
    """Yield the questions that Q&A files and labels give, those of Q&A files first."""
    index = desk.index
    known = {_section(chunk) for chunk in sections}
    for row in range(0, len(index), max(1, len(index) // _MOST_SECTIONS)):
        for view in index.views(row):
            if view.kind == "variant":
                yield _Candidate(clean(view.text).strip(), _section(index.chunk(row)))
    try:
        labelled = fit_questions(desk.settings.corpus)
    except BadInput:
        labelled = []  # the build names what is wrong with them
    for question in labelled:
        for section in question.passages[:1]:
            if section in known:
                yield _Candidate(clean(question.ask).strip(), section)


def _headings(sections: list[Chunk]) -> Iterator[_Candidate]:
    for chunk in [one for one in sections if one.headings[-1] != one.title] or sections:
        yield _Candidate(_NUMBER.sub("", clean(chunk.headings[-1]), 1).strip(), _section(chunk))


def _section(passage: Chunk | Quote) -> str:
    return f"{passage.path}#{passage.headings[-1] if passage.headings else ''}"


def _spread(candidates: Iterator[_Candidate]) -> list[_Candidate]:
    """Return one candidate of each section, the documents by turns."""
    first: dict[str, _Candidate] = {}
    for one in candidates:
        first.setdefault(one.section, one)
    before: Counter[str] = Counter()
    turns = []
    for one in first.values():
        path = one.section.partition("#")[0]
        turns.append((before[path], one))
        before[path] += 1
    return [one for _, one in sorted(turns, key=lambda turn: turn[0])]


def _tried(desk: Desk, candidates: list[_Candidate]) -> tuple[str, ...]:
    """Return the words that lead to their section, those that are answered first."""
    answered: list[str] = []
    shown: list[str] = []
    for one in candidates[:_MOST_TRIED]:
        try:
            answer = desk.ask(one.words)
        except BadInput:
            continue
        doubtful = answer.handoff is None or answer.handoff.reason in DOUBTS
        if answer.quotes and doubtful and _section(answer.quotes[0]) == one.section:
            (answered if answer.verdict == "answered" else shown).append(one.words)
        if len(answered) == MOST:
            break
    return tuple(dict.fromkeys([*answered, *shown]))[:MOST]


class KnownExamples:
    """Know the examples of the guide in use, found anew with each generation. Thread-safe."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._kept: tuple[object, Examples] | None = None

    def now(self) -> Examples:
        """Return the examples of the generation and of the operator's list in use."""
        key = (self._desk.generation, self._desk.contacts.examples)
        kept = self._kept
        if kept is None or kept[0] != key:
            kept = self._kept = (key, examples(self._desk))
        return kept[1]
