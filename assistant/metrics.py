"""Measure a ranking and a probability: pure functions, lists in, floats out.

Ranks count from 1; `None` is a right passage that was not found. Outcomes are true where the first
passage answered.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Rank = int | None


@dataclass(frozen=True, slots=True)
class Bin:
    """Hold one bar of a reliability diagram: mean confidence, share that was right, how many."""

    confidence: float
    right: float
    count: int


@dataclass(frozen=True, slots=True)
class Interval:
    """Hold a figure with the bounds of its 95 % bootstrap interval."""

    value: float
    low: float
    high: float


def recall_at(ranks: Sequence[Rank], k: int) -> float:
    """Return the share of questions whose right passage is among the first `k`."""
    return _share([rank is not None and rank <= k for rank in ranks])


def mean_reciprocal_rank(ranks: Sequence[Rank]) -> float:
    """Return the mean of 1 / rank, 0 for what was not found."""
    return float(np.mean([1 / rank if rank else 0.0 for rank in ranks])) if ranks else float("nan")


def auroc(scores: Sequence[float], outcomes: Sequence[bool]) -> float:
    """Return the chance that a true one scores above a false one, ties half (Mann & Whitney)."""
    values, truth = np.asarray(scores, dtype=float), np.asarray(outcomes, dtype=bool)
    good, bad = int(truth.sum()), int((~truth).sum())
    if not good or not bad:
        return float("nan")
    _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - (counts - 1) / 2  # the mean rank of each group of ties
    return float((middle[group][truth].sum() - good * (good + 1) / 2) / (good * bad))


def reliability(scores: Sequence[float], outcomes: Sequence[bool], bins: int = 10) -> list[Bin]:
    """Return the filled bins of equal width over [0, 1], lowest first."""
    values, truth = np.asarray(scores, dtype=float), np.asarray(outcomes, dtype=bool)
    number = np.minimum((values * bins).astype(int), bins - 1)
    return [
        Bin(float(values[inside].mean()), float(truth[inside].mean()), int(inside.sum()))
        for i in range(bins)
        if (inside := number == i).any()
    ]


def calibration_error(scores: Sequence[float], outcomes: Sequence[bool], bins: int = 10) -> float:
    """Return the expected calibration error: the mean gap of `reliability`, weighted by count."""
    if not len(scores):
        return float("nan")
    bars = reliability(scores, outcomes, bins)
    return sum(abs(b.confidence - b.right) * b.count for b in bars) / len(scores)


def brier(scores: Sequence[float], outcomes: Sequence[bool]) -> float:
    """Return the mean squared distance of the probability from what happened."""
    gaps = np.asarray(scores, dtype=float) - np.asarray(outcomes, dtype=float)
    return float(np.mean(gaps**2)) if len(gaps) else float("nan")


def risk_coverage(scores: Sequence[float], outcomes: Sequence[bool]) -> list[tuple[float, float]]:
    """Return (share answered, share of these that is wrong) for every cut, strictest first."""
    values, truth = np.asarray(scores, dtype=float), np.asarray(outcomes, dtype=bool)
    if not len(values):
        return []
    order = np.argsort(-values, kind="stable")
    count = np.arange(1, len(values) + 1)
    wrong = np.cumsum(~truth[order]) / count
    last = np.append(np.diff(values[order]) != 0, [True])  # equal scores are answered together
    return list(zip((count[last] / len(values)).tolist(), wrong[last].tolist(), strict=True))


def bootstrap(
    figure: Callable[[NDArray[np.int64]], float], count: int, rounds: int = 500, seed: int = 0
) -> Interval:
    """Return a figure of rows 0..count-1 with its 95 % percentile interval (Efron 1979)."""
    rows = np.arange(count)
    if not count:
        return Interval(float("nan"), float("nan"), float("nan"))
    random = np.random.default_rng(seed)
    drawn = [figure(random.integers(0, count, count)) for _ in range(rounds)]
    known = [value for value in drawn if not np.isnan(value)]
    low, high = np.percentile(known, [2.5, 97.5]) if known else (float("nan"), float("nan"))
    return Interval(figure(rows), float(low), float(high))


def _share(truths: Sequence[bool]) -> float:
    return sum(truths) / len(truths) if truths else float("nan")
