"""Turn the shape of a hit list into a calibrated probability that the first passage answers.

A logistic regression over a few raw signals (Platt 1999), fitted to one index at build or calibrate
time, a dot product when serving. Two cuts on the probability are chosen for stated risks.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import orjson
from numpy.typing import NDArray

from assistant.errors import IndexUnusable
from assistant.metrics import auroc, calibration_error
from assistant.price import is_unpriced
from assistant.records import Ranking

Floats = NDArray[np.float64]
Truths = NDArray[np.bool_]

_FOLDS = 10
_STRENGTH = 1.0  # inverse of the ridge penalty on standardised signals
_CLOSE = 1e-9  # a step so small that the fit is done; ten do in practice
_MOST_STEPS = 100
_UNPRICED = 0.5  # what is left of a price that the passage does not name: never sure of it

SIGNS = {"passage": 1, "support": 1, "coverage": 1, "crowd": -1, "spanned": 1}
SIGNALS = tuple(SIGNS)


def signals(ranking: Ranking) -> tuple[float, ...]:
    """Return the signals of a ranking, in the order of `SIGNALS`; zeros when it has no hit."""
    if not ranking.hits:
        return (0.0,) * len(SIGNALS)
    first = ranking.hits[0]
    return (first.passage, first.support, first.coverage, ranking.crowd, ranking.spanned)


@dataclass(frozen=True, slots=True)
class Curve:
    """Hold the fitted coefficients and the two cuts; `fitted_to` names the index facts."""

    names: tuple[str, ...]
    coefficients: tuple[float, ...]
    intercept: float
    answered_cut: float
    refused_cut: float
    fitted_to: dict[str, str]
    report: dict[str, float | None]

    def probability(self, ranking: Ranking) -> float:
        """Return the probability that the first hit answers; 0 when nothing was found."""
        if not ranking.hits:
            return 0.0
        likely = self.of(signals(ranking))
        return likely * _UNPRICED if is_unpriced(ranking.query, ranking.hits[0]) else likely

    def of(self, values: Sequence[float]) -> float:
        """Return the probability that belongs to the values of the signals."""
        value = self.intercept + sum(c * s for c, s in zip(self.coefficients, values, strict=True))
        return 1 / (1 + math.exp(-max(-500.0, min(500.0, value))))

    @property
    def reserved(self) -> bool:
        """Tell whether no question of the guide's own came up to the upper cut."""
        return self.answered_cut > (self.report.get("most_confident") or 0.999_999)

    @property
    def labelled(self) -> int:
        """Return how many labelled questions it was fitted on."""
        return int(self.report.get("labelled") or 0)

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
    judged = points.judged
    held_out, right = cross_fitted(points)[judged], points.right[judged]
    slope, shift = _straighten(held_out, right)
    coefficients, intercept = slope * coefficients, slope * intercept + shift
    p = _probability(slope * held_out + shift)
    answerable = points.answerable[judged]
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
            "wrong_of_answered": _mean(~right[p >= upper]) if (p >= upper).any() else None,
            "answered_of_answerable": _mean(p[answerable] >= upper),
        },
    )


def cross_fitted(points: Points) -> Floats:
    """Return for every point its log-odds by a fit on the other folds."""
    fold = np.random.default_rng(0).permutation(len(points.right)) % _FOLDS
    held_out = np.zeros(len(points.right))
    for number in range(_FOLDS):
        rest, own = fold != number, fold == number
        coefficients, intercept = _regression(
            points.signals[rest], points.right[rest], points.weight[rest]
        )
        held_out[own] = points.signals[own] @ coefficients + intercept
    return held_out


def _straighten(odds: Floats, right: Truths) -> tuple[float, float]:
    """Return slope and shift that put cross-fitted log-odds on the diagonal (Platt 1999).

    The ridge penalty and the weights of points that are not judged leave them too flat.
    """
    if right.all() or not right.any():
        return 1.0, 0.0
    slope, shift = logistic(odds[:, None], right, np.ones(len(odds)))
    return max(0.1, float(slope[0])), shift


def _probability(odds: Floats) -> Floats:
    p: Floats = 1 / (1 + np.exp(-np.clip(odds, -500, 500)))
    return p


def _regression(x: Floats, y: Truths, weight: Floats) -> tuple[Floats, float]:
    """Fit a weighted logistic regression; its coefficients are those of the raw signals.

    A signal whose coefficient comes out with the wrong sign is left out, and the rest fitted again:
    a better match must never look less certain.
    """
    coefficients, used = np.zeros(x.shape[1]), np.ones(x.shape[1], dtype=bool)
    if y.all() or not y.any():  # nothing to tell apart: the base rate, as far as it is known
        rate = (float(y.sum()) + 1) / (len(y) + 2)
        return coefficients, math.log(rate / (1 - rate))
    signs = np.array(list(SIGNS.values()))
    while used.any():
        coefficients[:] = 0.0
        coefficients[used], intercept = logistic(x[:, used], y, weight)
        wrong = coefficients * signs < 0
        if not wrong.any():
            return coefficients, intercept
        used &= ~wrong
    return np.zeros(x.shape[1]), logistic(x[:, :0], y, weight)[1]


def logistic(x: Floats, y: Truths, weight: Floats) -> tuple[Floats, float]:
    """Fit a weighted logistic regression with a ridge, by Newton's method with halved steps.

    The coefficients are those of scikit-learn, without the second that its import takes.
    """
    if not x.shape[1]:
        rate = float(np.average(y, weights=weight))
        return np.zeros(0), math.log(rate / (1 - rate))
    mean = np.average(x, axis=0, weights=weight)
    spread = np.sqrt(np.average((x - mean) ** 2, axis=0, weights=weight))
    spread[spread == 0] = 1.0
    rows = np.column_stack([(x - mean) / spread, np.ones(len(x))])
    ridge = np.append(np.full(x.shape[1], 1 / _STRENGTH), 0.0)

    def loss(fitted: Floats) -> float:
        odds = rows @ fitted
        return float(weight @ np.logaddexp(0, np.where(y, -odds, odds)) + ridge @ fitted**2 / 2)

    fitted = np.zeros(len(ridge))
    for _ in range(_MOST_STEPS):
        p = _probability(rows @ fitted)
        slope = rows.T @ (weight * (p - y)) + ridge * fitted
        bend = rows.T @ (rows * (weight * p * (1 - p))[:, None]) + np.diag(ridge)
        step = np.linalg.solve(bend, slope)
        while np.abs(step).max() > _CLOSE and loss(fitted - step) > loss(fitted):
            step /= 2
        fitted -= step
        if np.abs(step).max() <= _CLOSE:
            break
    coefficients: Floats = fitted[:-1] / spread
    return coefficients, float(fitted[-1] - coefficients @ mean)


def cuts(
    p: Floats, right: Truths, answerable: Truths, answered: float, refused: float
) -> tuple[float, float]:
    """Return the upper and the lower cut.

    The upper is the lowest with at most a share `answered` of wrong ones from it up, the lower the
    highest with at most a share `refused` of answerable ones below it.
    """
    levels = np.unique(p)
    wrong = [_risk(~right[p >= level]) for level in levels]
    upper = next((float(v) for v, w in zip(levels, wrong, strict=True) if w <= answered), 1.0)
    lost = [_mean(answerable[p < level]) for level in levels]
    lower = next(
        (float(v) for v, w in zip(levels[::-1], lost[::-1], strict=True) if w <= refused), 0.0
    )
    return upper, lower


def _risk(wrong: Truths) -> float:
    """Return the share of wrong ones, as if there were one more.

    Then the risk of the next question stays below the bound on average (conformal risk control,
    Angelopoulos et al. 2022).
    """
    return (int(wrong.sum()) + 1) / (len(wrong) + 1)


def _mean(values: Truths) -> float:
    return float(values.mean()) if len(values) else 0.0
