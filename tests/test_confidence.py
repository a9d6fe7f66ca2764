"""A curve is worked by hand, agrees with scikit-learn, only rises with evidence, fits its index."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from fakes import CharacterEncoder
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from assistant import generations
from assistant.answer import decide
from assistant.build import build, open_generation, recalibrate
from assistant.calibrate import probes
from assistant.confidence import (
    SIGNALS,
    SIGNS,
    Curve,
    Points,
    cross_fitted,
    cuts,
    fit_curve,
    logistic,
)
from assistant.desk import Desk
from assistant.errors import IndexUnusable
from assistant.evaluate import evaluate
from assistant.metrics import auroc, calibration_error
from assistant.questions import out_of_guide, read_questions
from assistant.records import Ranking
from assistant.settings import Settings

LIBRARY = Path(__file__).parent / "fixtures" / "library"


def points(count=400, seed=1, judged=None):
    """Points whose first signal tells, with the odds exp(6 s − 3); the others are noise."""
    random = np.random.default_rng(seed)
    x = random.uniform(size=(count, len(SIGNALS)))
    right = random.uniform(size=count) < 1 / (1 + np.exp(-(6 * x[:, 0] - 3)))
    every = np.ones(count, dtype=bool)
    return Points(x, right, right, np.ones(count), every if judged is None else judged)


def test_a_probability_and_its_verdict_by_hand():
    """2 × 0.75 + 1 × 0.5 − 4 × 0.25 − 1 = 0, an even chance; ln 3 more evidence makes it 3 to 1."""
    weights = {"passage": 2.0, "support": 1.0, "crowd": -4.0}
    coefficients = tuple(weights.get(name, 0.0) for name in SIGNALS)
    curve = Curve(SIGNALS, coefficients, -1.0, 0.75, 0.5, {}, {})
    seen = {"passage": 0.75, "support": 0.5, "crowd": 0.25}
    even = [seen.get(name, 0.9) for name in SIGNALS]
    more = [
        s + (np.log(3) if name == "support" else 0) for s, name in zip(even, SIGNALS, strict=True)
    ]
    even, more = curve.probability(ranking_of(even)), curve.probability(ranking_of(more))
    assert (even, more) == (pytest.approx(1 / 2), pytest.approx(3 / 4))
    assert decide(even, curve.answered_cut, curve.refused_cut) == "uncertain"
    assert decide(more + 1e-9, curve.answered_cut, curve.refused_cut) == "answered"


def test_cuts_by_hand():
    p = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2])
    right = np.array([1, 1, 1, 0, 1, 0, 1, 0], dtype=bool)
    # from 0.5 up: one wrong of five, counted as two of six
    assert cuts(p, right, right, answered=0.34, refused=0.0) == (0.5, 0.3)
    # below 0.8 lie three answerable ones of six
    assert cuts(p, right, right, answered=0.3, refused=0.5) == (0.7, 0.8)
    # not even the most certain can be answered at a risk of a hundredth
    assert cuts(p, right, right, answered=0.01, refused=0.0)[0] == 1.0


def test_cross_fitting_agrees_with_scikit_learn():
    given_points = points()
    odds = cross_fitted(given_points)
    fold = np.random.default_rng(0).permutation(400) % 10
    model = make_pipeline(StandardScaler(), LogisticRegression(C=1.0))
    rest = fold != 3
    model.fit(given_points.signals[rest], given_points.right[rest])
    if (model[1].coef_[0] * np.array(list(SIGNS.values())) >= 0).all():
        expected = model.decision_function(given_points.signals[~rest])
        assert odds[~rest] == pytest.approx(expected, abs=1e-3)
    assert auroc(odds.tolist(), given_points.right.tolist()) > 0.8


@pytest.mark.parametrize("share", [0.03, 0.5, "separable"])
@pytest.mark.parametrize("count", [12, 900])
def test_the_coefficients_are_those_of_scikit_learn(count, share):
    """Weighted points, signals of unlike size, few of a kind, and kinds that a line parts."""
    random = np.random.default_rng(count)
    x = random.normal(size=(count, 5)) * [1, 0.01, 30, 0.2, 1] + [0, 1, -40, 0.5, 0]
    y = x[:, 0] > 0 if share == "separable" else random.uniform(size=count) < share
    y[:2] = True, False
    weight = random.uniform(0.01, 1, size=count)
    coefficients, intercept = logistic(x, y, weight)
    mean = np.average(x, axis=0, weights=weight)
    spread = np.sqrt(np.average((x - mean) ** 2, axis=0, weights=weight))
    model = LogisticRegression(C=1.0, solver="newton-cholesky", tol=1e-10, max_iter=10_000)
    model.fit((x - mean) / spread, y, sample_weight=weight)
    assert coefficients * spread == pytest.approx(model.coef_[0], abs=1e-6)
    assert intercept + coefficients @ mean == pytest.approx(model.intercept_[0], abs=1e-6)


def test_a_curve_says_what_it_knows():
    curve = fit_curve(points(2000), 0.1, 0.1, {})
    fresh = points(4000, seed=9)
    p = [curve.probability(ranking_of(row)) for row in fresh.signals]
    assert calibration_error(p, fresh.right.tolist()) < 0.04
    assert curve.report["calibration_error"] < 0.06


def ranking_of(row):
    """A ranking with these signals (in the order of SIGNALS)."""
    values = dict(zip(SIGNALS, row, strict=True))
    hit = _Hit(values["passage"], values["support"], values["coverage"])
    return Ranking("", (hit,), 1.0, 0.0, values["crowd"], values["spanned"])


class _Hit:
    def __init__(self, passage, support, coverage):
        self.passage, self.support, self.coverage = passage, support, coverage


@pytest.mark.parametrize("seed", range(5))
def test_more_evidence_never_makes_a_curve_less_sure(seed):
    """Whatever the points: here the outcomes have nothing to do with the signals."""
    random = np.random.default_rng(seed)
    x = random.uniform(size=(60, len(SIGNALS)))
    y = random.uniform(size=60) < 0.5
    curve = fit_curve(Points(x, y, y, np.ones(60), np.ones(60, dtype=bool)), 0.1, 0.1, {})
    for row in random.uniform(size=(20, len(SIGNALS))):
        for signal, name in enumerate(SIGNALS):
            more = row.copy()
            more[signal] += 0.3 * SIGNS[name]
            assert curve.probability(ranking_of(more)) >= curve.probability(ranking_of(row))


@pytest.mark.parametrize("outcome", [True, False])
def test_points_that_all_went_one_way_still_give_a_curve(outcome):
    same = np.full(20, outcome)
    curve = fit_curve(
        Points(np.zeros((20, len(SIGNALS))), same, same, np.ones(20), same | True), 0.03, 0.05, {}
    )
    p = curve.probability(ranking_of([0.5] * len(SIGNALS)))
    assert (p > 0.5) == outcome
    assert 0 < p < 1


def test_only_judged_points_choose_the_cuts():
    judged = np.arange(400) < 200
    one = fit_curve(points(judged=judged), 0.1, 0.1, {})
    assert one.report["judged"] == 200
    flipped = points(judged=judged)
    flipped = replace(flipped, answerable=np.where(judged, flipped.answerable, True))
    assert fit_curve(flipped, 0.1, 0.1, {}).refused_cut == one.refused_cut


def test_a_curve_reads_as_it_was_written_and_refuses_other_signals(tmp_path):
    curve = fit_curve(points(), 0.1, 0.1, {"model": "x"})
    curve.write(tmp_path / "c.json")
    assert Curve.read(tmp_path / "c.json") == curve
    replace(curve, names=("similarity",)).write(tmp_path / "d.json")
    with pytest.raises(IndexUnusable, match="other signals"):
        Curve.read(tmp_path / "d.json")
    (tmp_path / "e.json").write_text("{", "utf-8")
    with pytest.raises(IndexUnusable, match="assistant build"):
        Curve.read(tmp_path / "e.json")


def test_nothing_found_is_no_confidence():
    curve = fit_curve(points(), 0.1, 0.1, {})
    assert curve.probability(Ranking("", (), 0.0, 0.0, 0.0, 0.0)) == 0.0


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_verdicts_are_ordered_by_confidence(p, low, high):
    low, high = sorted((low, high))
    verdict = decide(p, high, low)
    assert (verdict == "answered") == (p >= high)
    assert (verdict == "unanswered") == (p < low and p < high)


@pytest.fixture
def small(tmp_path):
    """Settings of a built index over two small sections, with an encoder of characters."""
    (tmp_path / "corpus").mkdir()
    guide = "# 水果\n\n## 苹果\n\n苹果放冰箱。\n\n## 香蕉\n\n香蕉挂起来。\n"
    (tmp_path / "corpus" / "a.md").write_text(guide, "utf-8")
    small = Settings(corpus=tmp_path / "corpus", index=tmp_path / "index")
    build(small, CharacterEncoder())
    return small


def test_a_curve_of_other_settings_is_refused_until_it_is_fitted_anew(small):
    encoder = CharacterEncoder()
    first = Desk(small, encoder).generation
    other = small.model_copy(update={"lexical_weight": 0.3})
    with pytest.raises(IndexUnusable, match=r"lexical_weight.*assistant calibrate"):
        Desk(other, encoder)
    curve = recalibrate(other, encoder)
    assert curve.fitted_to["lexical_weight"] == "0.3"
    desk = Desk(other, encoder)
    assert desk.generation != first
    assert desk.ask("苹果放哪").quotes[0].headings[-1] == "苹果"


FACTS = {
    "encoder_sha256": "another model",
    "views.jsonl": "another corpus",
    "vectors.faiss": "other vectors",
    "background.faiss": "other questions to compare with",
    "passage_weight": "0.9",
    "answered_risk": "0.5",
}


@pytest.mark.parametrize("fact", FACTS)
def test_a_curve_of_another_model_corpus_or_setting_is_refused_by_name(small, fact):
    generation = generations.current(small.index).generation
    path = generation.folder / "confidence.json"
    curve = Curve.read(path)
    assert fact in curve.fitted_to
    replace(curve, fitted_to={**curve.fitted_to, fact: FACTS[fact]}).write(path)
    with pytest.raises(IndexUnusable, match=rf"{re.escape(fact)}.*assistant calibrate"):
        open_generation(generation, CharacterEncoder(), small)


def test_the_test_part_never_moves_the_curve(small):
    """Labels that contradict all others, in a file of the test part and then in one that counts."""
    first = recalibrate(small, CharacterEncoder())
    (small.corpus / "questions").mkdir()
    asked = "".join(f"- {{ask: 苹果怎么放{'呀' * n}, passage: null}}\n" for n in range(9))
    (small.corpus / "questions" / "test_two.yaml").write_text(asked, "utf-8")
    assert recalibrate(small, CharacterEncoder()) == first
    (small.corpus / "questions" / "more.yaml").write_text(asked, "utf-8")
    assert recalibrate(small, CharacterEncoder()).coefficients != first.coefficients


def test_fitting_is_the_same_every_time(small):
    encoder = CharacterEncoder()
    generation = generations.current(small.index).generation
    _, curve = open_generation(generation, encoder, small)
    assert recalibrate(small, encoder) == curve


def test_a_question_of_the_background_is_not_compared_with_itself(guide, encoder):
    generation = generations.current(guide.index).generation
    index, _ = open_generation(generation, encoder, guide)
    text = out_of_guide()[0]
    query = next(p.query for p in probes(index, guide, True) if p.query.ask == text)
    assert index.search(text, 5, unlike=query.unlike).crowd < index.search(text, 5).crowd


def test_a_guide_that_nothing_was_fitted_on_is_judged_all_the_same(tmp_path, encoder):
    """No labels, no variants, another subject: measured 0.90 with the shipped model."""
    (tmp_path / "corpus").mkdir()
    guide = (LIBRARY / "guide.md").read_text("utf-8")
    (tmp_path / "corpus" / "guide.md").write_text(guide, "utf-8")
    unseen = Settings(corpus=tmp_path / "corpus", index=tmp_path / "index")
    build(unseen, encoder)
    generation = generations.current(unseen.index).generation
    questions = read_questions(LIBRARY / "questions.yaml")
    done = evaluate(*open_generation(generation, encoder, unseen), questions, rounds=2)
    assert done.figures["auroc"].value >= 0.85
    assert done.figures["recall@5"].value >= 0.85


def test_the_library_questions_are_enough_to_judge_by():
    questions = yaml.safe_load((LIBRARY / "questions.yaml").read_text("utf-8"))
    assert sum(q["passage"] is not None for q in questions) >= 40
    assert sum(q["passage"] is None for q in questions) >= 40
