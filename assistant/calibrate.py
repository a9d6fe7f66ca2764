"""Fit the confidence curve to one index, with or without labelled questions.

Without labels an index is asked the shipped bank of unanswerable questions, and its own question
variants and headings: each with its own view hidden (answerable), and with its whole passage hidden
(not answerable). How far the model's cosines can be trusted is learnt from small practice guides
that ship with the package and are indexed with the model in use. Labelled questions, where there
are some, count most.
"""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from assistant.confidence import Curve, Points, fit_curve, signals
from assistant.embed import Encoder, Vectors
from assistant.questions import (
    Practice,
    asked_anywhere,
    fit_questions,
    locate,
    out_of_guide,
    practice_guides,
)
from assistant.records import View
from assistant.search import Index, Query, write_tables
from assistant.settings import Settings
from assistant.split import chunks, views

_MOST_OWN, _FEW_OWN = 500, 200  # the latter where labelled questions are enough
_ENOUGH = 100  # labelled questions from which on the cuts rest on them alone
_BANK_WEIGHT = 0.3
_OWN_WEIGHT = 30.0  # of all own questions together, in labelled questions
_PRACTICE_HALF = 20.0  # labelled questions at which practice counts half
_LEAST_WEIGHT = 0.1  # below which practising is not worth its time


@dataclass(frozen=True, slots=True)
class Probe:
    """Hold a question, with what is left out while it is asked, and the rows that answer it."""

    query: Query
    rows: frozenset[int] = frozenset()
    weight: float = 1.0
    judged: bool = False


@dataclass(frozen=True, slots=True)
class Point:
    """Hold what came of one probe."""

    signals: tuple[float, ...]
    right: bool
    answerable: bool
    weight: float
    judged: bool


def calibrate(index: Index, encoder: Encoder, settings: Settings, facts: dict[str, str]) -> Curve:
    """Ask the index every probe and fit the curve to how often its first passage is right."""
    labelled = len(fit_questions(settings.corpus))
    alone = labelled >= _ENOUGH
    own = _ask(index, list(probes(index, settings, alone)))
    points = list(own)
    weight = _PRACTICE_HALF / (_PRACTICE_HALF + labelled)
    if weight >= _LEAST_WEIGHT and (guides := practice()):
        anyones = encoder.encode_queries([*out_of_guide(), *asked_anywhere()])
        for guide in guides:
            learnt = practise(guide, anyones, encoder, settings)
            points += [_judge(point, weight, not alone) for point in learnt]
    curve = fit_curve(_stack(points), settings.answered_risk, settings.refused_risk, facts)
    most = max((curve.of(point.signals) for point in own if point.answerable), default=0.0)
    counts = {"labelled": float(labelled), "most_confident": most}
    return replace(curve, report={**curve.report, **counts})


def background(corpus: Path) -> list[str]:
    """Return the questions that an index compares with: unanswerable ones, then any trade's."""
    silent = [question.ask for question in fit_questions(corpus) if not question.passages]
    return [*silent, *out_of_guide(), *asked_anywhere()]


def practice() -> list[Practice]:
    """Return the guides to practise on."""
    return practice_guides()


def probes(index: Index, settings: Settings, alone: bool) -> Iterator[Probe]:
    """Return every question that the curve is fitted on, in a fixed order.

    `alone`: the labelled questions are enough to judge the curve by.
    """
    unlike = 0  # the place in the background, where unanswerable questions come first
    for labelled in locate(fit_questions(settings.corpus), list(index.chunks())):
        silent = not labelled.question.passages
        query = Query(labelled.question.ask, unlike=unlike if silent else None)
        yield Probe(query, labelled.rows, judged=True)
        unlike += silent
    for number, text in enumerate(out_of_guide(), unlike):
        yield Probe(Query(text, unlike=number), weight=_BANK_WEIGHT, judged=not alone)
    own = list(own_questions(index))
    own = own[:: max(1, len(own) // (_FEW_OWN if alone else _MOST_OWN))]
    for probe in own:
        yield replace(probe, weight=min(_BANK_WEIGHT, _OWN_WEIGHT / len(own)))


def own_questions(index: Index) -> Iterator[Probe]:
    """Return the index's own variants and headings as questions, answerable and masked."""
    step = max(1, len(index) // _MOST_OWN)
    for row in range(0, len(index), step):
        first, whole = index.first_view(row), index.views(row)
        for number, view in enumerate(whole):
            if (ask := _as_question(index, row, view)) is not None:
                yield Probe(Query(ask, frozenset({first + number}) - {first}), frozenset({row}))
                yield Probe(Query(ask, frozenset(range(first, first + len(whole)))))


def _as_question(index: Index, row: int, view: View) -> str | None:
    """Return what a user could ask for a view: a variant itself, a passage's own heading."""
    if view.kind == "variant":
        return view.text
    headings = index.chunk(row).headings
    return headings[-1] if view.kind == "passage" and headings else None


def practise(
    guide: Practice, anyones: Vectors, encoder: Encoder, settings: Settings
) -> list[Point]:
    """Index a practice guide with the model in use and ask it its questions.

    `anyones` are the vectors of the background that is not the guide's own.
    """
    document = guide.document()
    passages = chunks(document, settings.chunk_chars)
    texts = views(passages, ())
    vectors = encoder.encode_passages([view.text for view in texts])
    others = np.concatenate([encoder.encode_queries(guide.silent), anyones])
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        write_tables(Path(folder), [document], passages, texts, vectors, others, settings.precision)
        index = Index(Path(folder), encoder, settings)
        asked = [
            Probe(
                Query(ask),
                frozenset(row for row, c in enumerate(passages) if c.headings[-1] == heading),
            )
            for heading, questions in guide.questions.items()
            for ask in questions
        ]
        asked += [Probe(Query(ask, unlike=number)) for number, ask in enumerate(guide.silent)]
        return _ask(index, asked)


def _ask(index: Index, probes: Sequence[Probe]) -> list[Point]:
    """Ask an index every probe."""
    rankings = index.search_many([probe.query for probe in probes], 5)
    return [
        Point(
            signals(ranking),
            bool(ranking.hits) and ranking.hits[0].row in probe.rows,
            bool(probe.rows),
            probe.weight,
            probe.judged,
        )
        for probe, ranking in zip(probes, rankings, strict=True)
    ]


def _judge(point: Point, weight: float, judged: bool) -> Point:
    return replace(point, weight=weight, judged=judged)


def _stack(points: Sequence[Point]) -> Points:
    return Points(
        signals=np.array([point.signals for point in points]),
        right=np.array([point.right for point in points]),
        answerable=np.array([point.answerable for point in points]),
        weight=np.array([point.weight for point in points]),
        judged=np.array([point.judged for point in points]),
    )
