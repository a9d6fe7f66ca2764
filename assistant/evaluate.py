"""Ask an index labelled questions, and measure what it found and how sure it was.

What is measured is the index and its curve alone: small talk, distress and the wish for a person
are recognised before either is asked, and are not counted here.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from assistant.answer import decide
from assistant.confidence import Curve
from assistant.metrics import (
    Interval,
    auroc,
    bootstrap,
    brier,
    calibration_error,
    mean_reciprocal_rank,
    recall_at,
)
from assistant.questions import Labelled, Question, locate
from assistant.records import Ranking, Verdict
from assistant.search import Index, Query

DEPTH = 10
"""How far down a ranking the right passage is looked for."""

FIGURES = (
    "recall@1",
    "recall@3",
    "recall@5",
    "mrr",
    "auroc",
    "auroc_right",
    "calibration_error",
    "brier",
    "wrong_of_answered",
    "answered_of_answerable",
    "answered_of_unanswerable",
    "answerable_of_refused",
    "refused_of_answerable",
    "refused_of_unanswerable",
)


@dataclass(frozen=True, slots=True)
class Case:
    """Hold what one question got: the right passage's rank, the confidence, the first passage."""

    question: Question
    rank: int | None
    confidence: float
    verdict: Verdict
    found: str

    @property
    def answerable(self) -> bool:
        """Tell whether the guide has an answer."""
        return bool(self.question.passages)

    @property
    def right(self) -> bool:
        """Tell whether the first passage answers."""
        return self.rank == 1

    @property
    def failed(self) -> bool:
        """Tell whether the user was served badly: a wrong answer, or a wrong refusal."""
        wrong = self.verdict == "answered" and not self.right
        return wrong or (self.answerable and (self.verdict == "unanswered" or not self.right))


@dataclass(frozen=True, slots=True)
class Group:
    """Hold the figures of the questions of one language or kind."""

    questions: int
    figures: dict[str, Interval]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Hold the figures of all questions, of each language and kind, and every case.

    A figure that the questions cannot tell is not a number.
    """

    generation: str
    answered_cut: float
    refused_cut: float
    figures: dict[str, Interval]
    groups: dict[str, Group]
    cases: tuple[Case, ...]


def evaluate(
    index: Index, curve: Curve, questions: Sequence[Question], rounds: int = 500
) -> Evaluation:
    """Ask every question and measure; `rounds` is how often the bootstrap draws."""
    labelled = locate(questions, list(index.chunks()))
    rankings = _asked(index, labelled, DEPTH)
    cases = tuple(_case(curve, *one) for one in zip(labelled, rankings, strict=True))
    names = sorted({_language(c) for c in cases}) + sorted({_kind(c) for c in cases})
    parts = {
        name: tuple(c for c in cases if name in (_language(c), _kind(c)))
        for name in dict.fromkeys(names)
    }
    return Evaluation(
        index.folder.name,
        curve.answered_cut,
        curve.refused_cut,
        _figures(cases, rounds),
        {name: Group(len(part), _figures(part, rounds)) for name, part in parts.items()},
        cases,
    )


def first_right(index: Index, questions: Sequence[Question]) -> list[tuple[Question, bool]]:
    """Return every answerable question, and whether the first passage answers it."""
    located = [one for one in locate(questions, list(index.chunks())) if one.rows]
    rankings = _asked(index, located, 1)
    return [(one.question, _rank(one, r) == 1) for one, r in zip(located, rankings, strict=True)]


def recall(asked: Sequence[tuple[Question, bool]]) -> float:
    """Return the share of the answerable questions whose first passage answers (1 for none)."""
    return sum(right for _, right in asked) / len(asked) if asked else 1.0


def _asked(index: Index, labelled: Sequence[Labelled], depth: int) -> list[Ranking]:
    return index.search_many([Query(one.question.ask) for one in labelled], depth)


def _case(curve: Curve, one: Labelled, ranking: Ranking) -> Case:
    confidence = curve.probability(ranking)
    verdict = decide(confidence, curve.answered_cut, curve.refused_cut)
    found = " > ".join(ranking.hits[0].chunk.headings[-2:]) if ranking.hits else ""
    return Case(one.question, _rank(one, ranking), confidence, verdict, found)


def _rank(one: Labelled, ranking: Ranking) -> int | None:
    return next((i for i, hit in enumerate(ranking.hits, 1) if hit.row in one.rows), None)


def _language(case: Case) -> str:
    return case.question.lang or "no language"


def _kind(case: Case) -> str:
    return case.question.kind or "no kind"


def _figure(name: str, cases: Sequence[Case]) -> float:
    answerable = [c for c in cases if c.answerable]
    ranks = [c.rank for c in answerable]
    scores, right = [c.confidence for c in cases], [c.right for c in cases]
    if name.startswith("recall@"):
        return recall_at(ranks, int(name.removeprefix("recall@")))
    simple: dict[str, Callable[[], float]] = {
        "mrr": lambda: mean_reciprocal_rank(ranks),
        "auroc": lambda: auroc(scores, [c.answerable for c in cases]),
        "auroc_right": lambda: auroc(scores, right),
        "calibration_error": lambda: calibration_error(scores, right),
        "brier": lambda: brier(scores, right),
        "wrong_of_answered": lambda: _share(
            [not c.right for c in cases if c.verdict == "answered"]
        ),
        "answerable_of_refused": lambda: _share(
            [c.answerable for c in cases if c.verdict == "unanswered"]
        ),
    }
    if name in simple:
        return simple[name]()
    verdict, _, whom = name.partition("_of_")
    wanted = "answered" if verdict == "answered" else "unanswered"
    asked = answerable if whom == "answerable" else [c for c in cases if not c.answerable]
    return _share([c.verdict == wanted for c in asked])


def _figures(cases: Sequence[Case], rounds: int) -> dict[str, Interval]:
    return {name: _interval(name, cases, rounds) for name in FIGURES}


def _interval(name: str, cases: Sequence[Case], rounds: int) -> Interval:
    def figure(rows: NDArray[np.int64]) -> float:
        return _figure(name, [cases[row] for row in rows.tolist()])

    return bootstrap(figure, len(cases), rounds)


def _share(truths: Sequence[bool]) -> float:
    return sum(truths) / len(truths) if truths else math.nan
