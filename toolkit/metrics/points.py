"""All point metrics of many clouds together: exact while their points fit into memory, from bins of scores beyond.

Every bound follows from the same thought: within a bin the order of normal and defective points is unknown, so the
value lies between what it would be with all defective points above the normal ones of their bin and with all below.
Bins are those of `toolkit.metrics.streaming.ScoreHistogram` (relative, no range chosen in advance).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from toolkit.errors import LabelError
from toolkit.metrics._checks import scores_array
from toolkit.metrics.aupro import LIMITS, _remaining, au_pro
from toolkit.metrics.detection import detection_metrics
from toolkit.metrics.streaming import CHUNK, ScoreHistogram, order_preserving_bits

EXACT_POINTS = 20_000_000
"""Points that are kept as they are: 160 MB, and about three times that while they are sorted."""

POINT_METRICS = ("point_auroc", "point_ap", "point_f1_max", "point_fpr95",
                 *(f"au_pro_{round(100 * limit)}" for limit in LIMITS))  # fmt: skip
"""Keys of `PointScores.metrics`; the number behind au_pro is the limit in per cent."""


class PointScores:
    """Scores and defect regions of clouds that arrive one by one.

    Args:
        exact_points: beyond that many points all go into bins.
        bits: of the bins; 20 take 24 MB.

    Example:
        >>> points = PointScores()
        >>> for score, region in clouds:
        ...     points.update(score, region)
        >>> points.metrics()["au_pro_30"]
    """

    def __init__(self, exact_points: int = EXACT_POINTS, bits: int = 20):
        self.exact_points, self.bits = exact_points, bits
        self.points = self.defective = 0
        self._regions = 0
        self._kept: list[tuple[NDArray, NDArray]] = []
        self._bins: _Bins | None = None

    def update(self, score: ArrayLike, region: ArrayLike) -> PointScores:
        """Add a cloud; returns itself.

        Args:
            score: (N,) point scores.
            region: (N,) integers: 0 on normal points, otherwise the number of the defect region within this cloud, as
                `toolkit.metrics.cloud_regions` and `image_regions` give them.

        Raises:
            MetricInputError: a score is NaN.
            LabelError: lengths differ, or a negative region number.
        """
        scores, regions = scores_array(score).astype(np.float32, copy=False), np.asarray(region).reshape(-1)
        if regions.size != scores.size or (regions < 0).any():
            raise LabelError(f"region: expected {scores.size} integers >= 0, one per score, got {regions.size}.")
        self.points += scores.size
        self.defective += int((regions > 0).sum())
        if self._bins is None:
            unique = np.where(regions > 0, regions + self._regions, 0).astype(np.int32)
            self._kept.append((scores, unique))
            self._regions += int(regions.max(initial=0))
            if self.points > self.exact_points:
                self._bins = _Bins(self.bits)
                for kept in self._kept:  # a region never spans two clouds
                    self._bins.update(*kept)
                self._kept = []
        else:
            self._bins.update(scores, regions)
        return self

    def metrics(self) -> dict[str, float]:
        """`POINT_METRICS` and ``point_error``: no value is further than that from the exact one; 0 if they are exact.

        NaN without a normal or without a defective point.
        """
        if self._bins is not None:
            return self._bins.metrics()
        if not self._kept:
            return {**dict.fromkeys(POINT_METRICS, float("nan")), "point_error": 0.0}
        score = np.concatenate([kept[0] for kept in self._kept])
        region = np.concatenate([kept[1] for kept in self._kept])
        found = detection_metrics(score, region > 0)
        values = [found["auroc"], found["average_precision"], found["f1_max"], found["fpr_at_95_tpr"],
                  *au_pro(score, region).values()]  # fmt: skip
        return {**dict(zip(POINT_METRICS, map(float, values))), "point_error": 0.0}


class _Bins:
    """Counts per bin, and how much of how many regions lies in it."""

    def __init__(self, bits: int):
        self.histogram = ScoreHistogram(bits)
        self.mass = np.zeros(1 << bits)
        self.regions = 0

    def update(self, scores: NDArray, regions: NDArray) -> None:
        for start in range(0, scores.size, CHUNK):
            part = slice(start, start + CHUNK)
            self.histogram.update(scores[part], regions[part] > 0)
        defective = regions > 0
        if not defective.any():
            return
        _, member, size = np.unique(regions[defective], return_inverse=True, return_counts=True)
        bins = order_preserving_bits(scores[defective]) >> np.uint32(32 - self.histogram.bits)
        np.add.at(self.mass, bins, 1.0 / size[member])
        self.regions += size.size

    def metrics(self) -> dict[str, float]:
        counts, mass = self.histogram.counts[:, ::-1], self.mass[::-1]
        kept = counts.any(axis=0)
        normal, defective = counts[:, kept].astype(float)
        if not normal.sum() or not defective.sum():
            return {**dict.fromkeys(POINT_METRICS, float("nan")), "point_error": 0.0}
        share = mass[kept] / self.regions
        true, false = np.cumsum(defective), np.cumsum(normal)
        above, at_least = (false - normal) / normal.sum(), false / normal.sum()
        found = [(self.histogram.auroc(), *self.histogram.auroc_bounds()),
                 (self.histogram.average_precision(), *self.histogram.average_precision_bounds())]  # fmt: skip
        f1 = [float((2 * true / (true + wrong + true[-1])).max()) for wrong in (false, false - normal)]
        found.append((f1[0], f1[0], f1[1]))
        reached = int(np.searchsorted(true, np.ceil(0.95 * true[-1] - 1e-9)))
        found.append((at_least[reached], above[reached], at_least[reached]))
        for limit in LIMITS:
            value, low, high = (float((share * _remaining(*rates, limit)).sum() / limit)
                                for rates in ((above, at_least), (at_least, at_least), (above, above)))  # fmt: skip
            found.append((value, low, high))
        error = max(max(high - value, value - low) for value, low, high in found)
        return {**dict(zip(POINT_METRICS, (float(value) for value, _, _ in found))), "point_error": float(error)}
