"""Fit the confidence curve to one index, with or without labelled questions.

Without labels the index asks itself: every question variant with its own view hidden and every
heading as a question (answerable), the same with the whole passage hidden (not answerable), and
the shipped bank of out-of-guide questions. Labelled questions are added when there are some.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from assistant.confidence import Curve, fit_curve, signals
from assistant.questions import fit_questions, locate, out_of_guide
from assistant.records import View
from assistant.search import Index
from assistant.settings import Settings

_MOST_PASSAGES = 400


@dataclass(frozen=True, slots=True)
class Probe:
    """Hold a question, the views hidden from it, and the rows that answer it."""

    ask: str
    hidden: frozenset[int]
    rows: frozenset[int]


def calibrate(index: Index, settings: Settings, facts: dict[str, str]) -> Curve:
    """Ask the index every probe and fit the curve to how often its first passage is right."""
    points: list[tuple[float, ...]] = []
    right: list[bool] = []
    for probe in probes(index, settings):
        ranking = index.search(probe.ask, 5, probe.hidden)
        points.append(signals(ranking))
        right.append(bool(ranking.hits) and ranking.hits[0].row in probe.rows)
    return fit_curve(points, right, settings.answered_risk, settings.refused_risk, facts)


def probes(index: Index, settings: Settings) -> Iterator[Probe]:
    """Return every question that the curve is fitted on, in a fixed order."""
    nothing: frozenset[int] = frozenset()
    for labelled in locate(fit_questions(settings.corpus), list(index.chunks())):
        yield Probe(labelled.question.ask, nothing, labelled.rows)
    for text in out_of_guide():
        yield Probe(text, nothing, nothing)
    step = max(1, len(index) // _MOST_PASSAGES)
    for row in range(0, len(index), step):
        yield from _own_questions(index, row)


def _own_questions(index: Index, row: int) -> Iterator[Probe]:
    first = index.first_view(row)
    views = index.views(row)
    whole = frozenset(range(first, first + len(views)))
    for number, view in enumerate(views):
        if (ask := _as_question(index, row, view)) is not None:
            yield Probe(ask, frozenset({first + number}) - {first}, frozenset({row}))
            yield Probe(ask, whole, frozenset())


def _as_question(index: Index, row: int, view: View) -> str | None:
    """Return what a user could ask for a view: a variant itself, a passage's own heading."""
    if view.kind == "variant":
        return view.text
    headings = index.chunk(row).headings
    return headings[-1] if view.kind == "passage" and headings else None
