"""Turn the shape of a hit list into a calibrated probability that the first passage answers.

A logistic regression over a few raw signals (Platt 1999), fitted to one index: scikit-learn at
build or calibrate time, a dot product when serving. Two cuts on the probability are chosen for
stated risks.
"""

import math
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import orjson
from numpy.typing import NDArray

from assistant.errors import IndexUnusable
from assistant.metrics import auroc, calibration_error
from assistant.records import Ranking

Floats = NDArray[np.float64]
Truths = NDArray[np.bool_]

_FOLDS = 10
_STRENGTH = 1.0  # inverse of the ridge penalty on standardised signals

SIGNALS = (
    "passage",
    "view",
    "support",
    "lexical",
    "coverage",
    "unknown",
    "crowd",
    "spanned",
)


def signals(ranking: Ranking) -> tuple[float, ...]:
    """Return the signals of a ranking, in the order of `SIGNALS`; zeros when it has no hit."""
    if not ranking.hits:
        return (0.0,) * len(SIGNALS)
    first = ranking.hits[0]
    return (
        first.passage,
        first.view,
        first.support,
        min(1.0, first.lexical / ranking.weight) if ranking.weight else 0.0,
        first.coverage,
        ranking.unknown,
        ranking.crowd,
        ranking.spanned,
    )


@dataclass(frozen=True, slots=True)
class Curve:
    """Hold the fitted coefficients and the two cuts; `fitted_to` names the index facts."""

    names: tuple[str, ...]
    coefficients: tuple[float, ...]
    intercept: float
    answered_cut: float
    refused_cut: float
    fitted_to: dict[str, str]
    report: dict[str, float]

    def probability(self, ranking: Ranking) -> float:
        """Return the probability that the first hit answers; 0 when nothing was found."""
        if not ranking.hits:
            return 0.0
        value = self.intercept + sum(
            c * s for c, s in zip(self.coefficients, signals(ranking), strict=True)
        )
        return 1 / (1 + math.exp(-max(-500.0, min(500.0, value))))

    def write(self, path: Path) -> None:
        """Write the curve as readable JSON."""
        path.write_bytes(orjson.dumps(asdict(self), option=orjson.OPT_INDENT_2))

    @classmethod
    def read(cls, path: Path) -> "Curve":
        """Read a curve; refuse one whose signals are not those of this program."""
        try:
            values = orjson.loads(path.read_bytes())
            curve = cls(
                **{
                    **values,
                    "names": tuple(values["names"]),
                    "coefficients": tuple(values["coefficients"]),
                }
            )
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise IndexUnusable(
                f"cannot read {path.name}: {error}. Rebuild with: assistant build"
            ) from None
        if curve.names != SIGNALS:
            raise IndexUnusable(
                f"{path.name} was fitted to other signals. Rebuild with: assistant build"
            )
        return curve


@dataclass(frozen=True, slots=True)
class Points:
    """Hold what a curve is fitted on, row by row: signals and what came of them.

    `right`: the first passage answered; `answerable`: some passage does; `weight`: how much the row
    counts; `judged`: whether the cuts and the report are taken from it.
    """

    signals: Floats
    right: Truths
    answerable: Truths
    weight: Floats
    judged: Truths


def fit_curve(
    points: Points, answered_risk: float, refused_risk: float, fitted_to: dict[str, str]
) -> Curve:
    """Fit a logistic regression, and choose the cuts on cross-fitted probabilities.

    Every judged point gets its probability from a fit that did not see it, so that neither the cuts
    nor the reported figures rest on memorised points.
    """
    coefficients, intercept = _regression(points.signals, points.right, points.weight)
    held_out = cross_fitted(points)
    judged = points.judged
    p, right, answerable = held_out[judged], points.right[judged], points.answerable[judged]
    upper, lower = cuts(p, right, answerable, answered_risk, refused_risk)
    return Curve(
        names=SIGNALS,
        coefficients=tuple(coefficients.tolist()),
        intercept=intercept,
        answered_cut=upper,
        refused_cut=min(lower, upper),
        fitted_to=fitted_to,
        report={
            "points": float(len(points.right)),
            "judged": float(judged.sum()),
            "answerable": float(answerable.sum()),
            "auroc": auroc(p.tolist(), answerable.tolist()),
            "calibration_error": calibration_error(p.tolist(), right.tolist()),
            "wrong_of_answered": _mean(~right[p >= upper]),
            "answered_of_answerable": _mean(p[answerable] >= upper),
        },
    )


def cross_fitted(points: Points) -> Floats:
    """Return for every point its probability by a fit on the other folds."""
    fold = np.random.default_rng(0).permutation(len(points.right)) % _FOLDS
    held_out = np.zeros(len(points.right))
    for number in range(_FOLDS):
        rest, own = fold != number, fold == number
        coefficients, intercept = _regression(
            points.signals[rest], points.right[rest], points.weight[rest]
        )
        held_out[own] = 1 / (1 + np.exp(-(points.signals[own] @ coefficients + intercept)))
    return held_out


def _regression(x: Floats, y: Truths, weight: Floats) -> tuple[Floats, float]:
    """Fit a weighted logistic regression; its coefficients are those of the raw signals."""
    from sklearn.linear_model import LogisticRegression

    if y.all() or not y.any():  # nothing to tell apart: the base rate, as far as it is known
        rate = (float(y.sum()) + 1) / (len(y) + 2)
        return np.zeros(x.shape[1]), math.log(rate / (1 - rate))
    mean = np.average(x, axis=0, weights=weight)
    spread = np.sqrt(np.average((x - mean) ** 2, axis=0, weights=weight))
    spread[spread == 0] = 1.0
    model = LogisticRegression(C=_STRENGTH, max_iter=1000)
    model.fit((x - mean) / spread, y, sample_weight=weight)
    coefficients: Floats = model.coef_[0] / spread
    return coefficients, float(model.intercept_[0] - coefficients @ mean)


def cuts(
    p: Floats, right: Truths, answerable: Truths, answered: float, refused: float
) -> tuple[float, float]:
    """Return the upper and the lower cut.

    The upper is the lowest with at most a share `answered` of wrong ones from it up, counting one
    more wrong one than there was (conformal risk control, Angelopoulos et al. 2022: a few lucky
    points must not lower it); the lower is the highest with at most a share `refused` of answerable
    ones below it.
    """
    levels = np.unique(p)
    wrong = [((~right[p >= v]).sum() + 1) / ((p >= v).sum() + 1) for v in levels]
    upper = next((float(v) for v, w in zip(levels, wrong, strict=True) if w <= answered), 1.0)
    lost = [_mean(answerable[p < level]) for level in levels]
    lower = next(
        (float(v) for v, w in zip(levels[::-1], lost[::-1], strict=True) if w <= refused), 0.0
    )
    return upper, lower


def _mean(values: Truths) -> float:
    return float(values.mean()) if len(values) else 0.0
