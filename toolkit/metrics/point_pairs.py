"""Intervals of the point AUROC over test objects, from how the points of each two objects compare.

The AUROC of all points of a category together is a mean over pairs of a defective and a normal point. Sorted by the
objects they come from, it is a weighted mean over pairs of objects, and a resample of objects only changes the weights.
So a table of at most M x M shares of won pairs gives the AUROC of every resample; no point score has to be kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from toolkit.metrics._checks import MetricInputError, labels_array, scores_array

MOST = 512
"""Scores kept of an object's normal points, and of its defective ones: evenly spaced order statistics of all. A share
of won pairs is then off by less than 1 / MOST; up to that many points it is exact."""


@dataclass(frozen=True)
class ObjectPoints:
    """Point scores of one object, sorted and thinned.

    Attributes:
        normal, defective: at most `MOST` scores each.
        normal_points, defective_points: numbers of all of them.
    """

    normal: NDArray[np.float32]
    defective: NDArray[np.float32]
    normal_points: int
    defective_points: int

    @classmethod
    def of(cls, score: ArrayLike, y: ArrayLike, most: int = MOST) -> ObjectPoints:
        """Of (N,) point scores and labels.

        Raises:
            MetricInputError: a score is NaN.
            LabelError: labels are not 0 and 1, or as many as there are scores.
        """
        scores = scores_array(score)
        defective = labels_array(y, scores.size)
        good, bad = (np.sort(scores[defective == kind]).astype(np.float32) for kind in (False, True))
        return cls(_thinned(good, most), _thinned(bad, most), good.size, bad.size)


def won_pairs(objects: Sequence[ObjectPoints]) -> NDArray[np.float64]:
    """(M, M) share of pairs of a defective point of the row's object and a normal one of the column's that are ordered
    rightly, ties half; 0 where there is no such pair."""
    wins = np.zeros((len(objects), len(objects)))
    ends = np.cumsum([o.defective.size for o in objects])
    queries = np.concatenate([o.defective for o in objects]) if objects else np.zeros(0, np.float32)
    rows = [i for i, o in enumerate(objects) if o.defective.size]
    starts = [ends[i] - objects[i].defective.size for i in rows]
    for column, other in enumerate(objects):
        if not rows or not other.normal.size:
            continue
        below = (np.searchsorted(other.normal, queries, "left") + np.searchsorted(other.normal, queries, "right")) / 2
        sums = np.add.reduceat(below, starts)
        wins[rows, column] = sums / [objects[i].defective.size for i in rows] / other.normal.size
    return wins


def resampled_point_auroc(
    wins: ArrayLike, normal_points: ArrayLike, defective_points: ArrayLike, weight: ArrayLike
) -> NDArray[np.float64]:
    """AUROC of all points together for many weightings of the objects.

    Args:
        wins: (M, M) from `won_pairs`.
        normal_points: (M,) normal points of each object.
        defective_points: (M,) defective ones.
        weight: (B, M) how often each object was drawn.

    Returns:
        (B,) AUROCs; NaN where one kind of points is missing.

    Raises:
        MetricInputError: sizes do not match.
    """
    table, weights = np.asarray(wins, np.float64), np.asarray(weight, np.float64)
    normal, defective = np.asarray(normal_points, np.float64), np.asarray(defective_points, np.float64)
    count = normal.size
    if table.shape != (count, count) or defective.shape != (count,) or weights.ndim != 2 or weights.shape[1] != count:
        raise MetricInputError(
            f"resampled_point_auroc: expected ({count}, {count}) shares, {count} numbers of points and "
            f"(B, {count}) weights; got {table.shape}, {defective.shape}, {weights.shape}."
        )
    left, right = weights * defective, weights * normal
    pairs = left.sum(axis=1) * right.sum(axis=1)
    won = np.einsum("bm,bm->b", left @ table, right)
    return np.divide(won, pairs, out=np.full(pairs.shape, np.nan), where=pairs > 0)


def _thinned(scores: NDArray, most: int) -> NDArray:
    """Order statistics in the middle of equal shares of sorted scores."""
    if most < 1:
        raise MetricInputError(f"most: expected 1 or more, got {most}.")
    if scores.size <= most:
        return scores
    return scores[((np.arange(most) + 0.5) * scores.size / most).astype(np.int64)]
