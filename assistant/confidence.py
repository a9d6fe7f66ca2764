"""Turn the shape of a hit list into a calibrated probability that the first passage answers.

A logistic regression over a few raw signals (Platt 1999), fitted to one index: scikit-learn at
build or calibrate time, a dot product when serving. Two cuts on the probability are chosen for
stated risks.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import orjson
from numpy.typing import NDArray

from assistant.errors import IndexUnusable
from assistant.records import Ranking

Floats = NDArray[np.float64]

SIGNALS = (
    "similarity",
    "passage",
    "view",
    "margin",
    "lexical",
    "coverage",
    "unknown",
    "agreement",
)


def signals(ranking: Ranking) -> tuple[float, ...]:
    """Return the signals of a ranking, in the order of `SIGNALS`; zeros when it has no hit."""
    if not ranking.hits:
        return (0.0,) * len(SIGNALS)
    first = ranking.hits[0]
    second = ranking.hits[1].similarity if len(ranking.hits) > 1 else 0.0
    return (
        first.similarity,
        first.passage,
        first.view,
        first.similarity - second,
        first.lexical / ranking.weight if ranking.weight else 0.0,
        first.coverage,
        ranking.unknown,
        float(first.row == ranking.dense) + float(first.row == ranking.lexical),
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


def fit_curve(
    points: Sequence[tuple[float, ...]],
    answered: Sequence[bool],
    answered_risk: float,
    refused_risk: float,
    fitted_to: dict[str, str],
) -> Curve:
    """Fit a logistic regression to signals and outcomes, and choose the cuts on them."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x, y = np.array(points), np.array(answered, dtype=bool)
    model = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", C=1.0))
    model.fit(x, y)
    scaler, regression = model[0], model[1]
    coefficients = regression.coef_[0] / scaler.scale_
    intercept = float(regression.intercept_[0] - (coefficients * scaler.mean_).sum())
    p = 1 / (1 + np.exp(-(x @ coefficients + intercept)))
    upper, lower = cuts(p, y, answered_risk, refused_risk)
    return Curve(
        names=SIGNALS,
        coefficients=tuple(float(c) for c in coefficients),
        intercept=intercept,
        answered_cut=upper,
        refused_cut=min(lower, upper),
        fitted_to=fitted_to,
        report={"questions": float(len(y)), "answerable": float(y.sum())},
    )


def cuts(p: Floats, y: NDArray[np.bool_], answered: float, refused: float) -> tuple[float, float]:
    """Return the upper and the lower cut.

    The upper is the lowest with at most a share `answered` of wrong ones above it, the lower the
    highest with at most a share `refused` of answerable ones below it.
    """
    order = np.argsort(-p, kind="stable")
    wrong = np.cumsum(~y[order]) / np.arange(1, len(y) + 1)
    good = np.flatnonzero(wrong <= answered)
    upper = float(p[order][good[-1]]) if len(good) else 1.0
    rising = order[::-1]
    lost = np.cumsum(y[rising]) / np.arange(1, len(y) + 1)
    fine = np.flatnonzero(lost <= refused)
    lower = float(p[rising][fine[-1]]) if len(fine) else 0.0
    return upper, lower
