"""Move the rows of the embedding matrix, step by step, from their first vectors.

A row is its first vector, plus what it learned, plus the mean of what the characters of a compound
learned (fastText's idea, Bojanowski et al. 2017), so that rare compounds share it. Only the rows of
a batch are touched. A step has one second moment a row (not one a number, so that it does not
depend on the basis): `rate` is the length of a step against the length of an average row.
"""

from dataclasses import dataclass

import numpy as np
import torch
from embedder_batches import Batch, Numbers, Random, Spans, flat_places
from numpy.typing import NDArray
from scipy import sparse
from torch.nn import functional

Rows = NDArray[np.float32]
_MEMORY, _MEMORY_OF_SIZES = 0.9, 0.99


@dataclass(frozen=True, slots=True)
class Manner:
    """Say how a step is taken."""

    scale: float
    """What cosines are multiplied by in the loss."""
    drop: float
    """Share of tokens left out."""
    pull: float
    """How strongly what was learned is pulled back to nothing, against the rate."""
    near: float
    """What is added to the scores of near misses."""


class Matrix:
    """Hold first vectors, what was learned, and the moments of the steps."""

    CHANGING = ("learned", "moments", "sizes", "counts")

    def __init__(self, first: Rows, parts: sparse.csr_matrix, shared: float) -> None:
        self.first = first
        self.learned = np.zeros_like(first)
        self.moments = np.zeros_like(first)
        self.sizes = np.zeros(len(first), np.float32)
        self.counts = np.zeros(len(first), np.int64)
        own = sparse.identity(len(first), dtype=np.float32, format="csr")
        self.sharing = (own + shared * parts).tocsr().astype(np.float32)

    def rows(self, wanted: Numbers) -> Rows:
        """Return composed rows."""
        composed: Rows = self.first[wanted] + self.sharing[wanted] @ self.learned
        return composed

    def all(self) -> Rows:
        """Return every composed row; [PAD] and [UNK] stay zero."""
        rows = self.rows(np.arange(len(self.first)))
        rows[:2] = 0
        return rows

    def step(self, wanted: Numbers, gradient: Rows, rate: float, pull: float) -> None:
        """Take one step against the gradient of the composed rows."""
        sharing = self.sharing[wanted]
        touched = np.unique(sharing.indices)
        slope = sharing[:, touched].T @ gradient
        self.counts[touched] += 1
        moments = _MEMORY * self.moments[touched] + (1 - _MEMORY) * slope
        sizes = _MEMORY_OF_SIZES * self.sizes[touched]
        sizes += (1 - _MEMORY_OF_SIZES) * np.einsum("ij,ij->i", slope, slope)
        self.moments[touched], self.sizes[touched] = moments, sizes
        age = self.counts[touched]
        length = np.sqrt(sizes / (1 - _MEMORY_OF_SIZES**age)) * (1 - _MEMORY**age) + 1e-12
        kept = (1 - rate * pull) * self.learned[touched]
        self.learned[touched] = kept - (rate / length).astype(np.float32)[:, None] * moments


def shortened(
    ids: NDArray[np.int32], spans: Spans, drop: float, random: Random
) -> tuple[NDArray[np.int32], Numbers]:
    """Return the flat ids of the texts and their lengths after a share of tokens was dropped."""
    flat = ids[flat_places(spans)]
    kept = random.random(len(flat)) >= drop
    begins = np.cumsum(spans.lengths) - spans.lengths
    kept[begins] |= np.add.reduceat(kept, begins) == 0
    return flat[kept], np.add.reduceat(kept.astype(np.int64), begins)


def gradient_of(
    matrix: Matrix, ids: NDArray[np.int32], batch: Batch, manner: Manner, random: Random
) -> tuple[Numbers, Rows, float]:
    """Return the pieces of a batch, the gradient of their rows, and the loss."""
    sides = [s for s in (batch.anchors, batch.positives, batch.negatives) if len(s)]
    cut = [shortened(ids, side, manner.drop, random) for side in sides]
    wanted, place = np.unique(np.concatenate([flat for flat, _ in cut]), return_inverse=True)
    rows = torch.from_numpy(matrix.rows(wanted) * (wanted > 1)[:, None]).requires_grad_()
    units, at = [], 0
    for flat, lengths in cut:
        offsets = torch.from_numpy(np.cumsum(lengths) - lengths)
        inside = torch.from_numpy(place[at : at + len(flat)])
        bags = functional.embedding_bag(inside, rows, offsets, mode="sum")
        units.append(functional.normalize(bags, dim=1))
        at += len(flat)
    loss = contrast(units, same_texts(batch), manner)
    loss.backward()
    assert rows.grad is not None
    return wanted, rows.grad.numpy(), loss.item()


def same_texts(batch: Batch) -> torch.Tensor:
    """Tell which other rows hold the same anchor or positive: they are no negatives."""
    same = np.zeros((len(batch.anchors), len(batch.anchors)), dtype=bool)
    for side in (batch.anchors, batch.positives):
        same |= (side.begins[:, None] == side.begins) & (side.lengths[:, None] == side.lengths)
    np.fill_diagonal(same, False)
    return torch.from_numpy(same)


def contrast(units: list[torch.Tensor], same: torch.Tensor, manner: Manner) -> torch.Tensor:
    """Return InfoNCE in both directions, with the near misses as further negatives one way."""
    anchors, positives = units[:2]
    scores = (anchors @ positives.T * manner.scale).masked_fill(same, -1e4)
    right = torch.arange(len(anchors))
    forward = scores
    if len(units) > 2:
        near = anchors @ units[2].T * manner.scale + manner.near
        forward = torch.cat([scores, near], dim=1)
    both = functional.cross_entropy(forward, right), functional.cross_entropy(scores.T, right)
    return (both[0] + both[1]) / 2
