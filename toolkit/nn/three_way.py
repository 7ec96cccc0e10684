"""Three-way decision: accept, reject, or hand to a person, from a score that was calibrated once.

Source: decision-theoretic rough sets (Yao, "Three-way decisions with probabilistic rough sets", Information Sciences
180, 2010). With P the probability that an object is defective, rejecting costs (1 - P) false_alarm, accepting costs
P miss and a re-inspection costs inspection, whatever it finds. The cheapest is to reject from
``alpha = 1 - inspection / false_alarm`` on, to accept up to ``beta = inspection / miss``, and to re-inspect between.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from toolkit.errors import CloudError, HyperparameterError
from toolkit.ops import knn

Verdict = Literal["accept", "reject", "re-inspect"]


@dataclass(frozen=True)
class Costs:
    """What decisions cost, relative to each other; a right one costs nothing.

    Attributes:
        miss: of accepting a defective object.
        false_alarm: of rejecting a normal one.
        inspection: of a re-inspection.

    Raises:
        HyperparameterError: not positive, or re-inspection costs so much that it is never worth it.
    """

    miss: float = 1.0
    false_alarm: float = 1.0
    inspection: float = 0.2

    def __post_init__(self) -> None:
        if min(self.miss, self.false_alarm, self.inspection) <= 0 or self.beta > self.alpha:
            raise HyperparameterError(
                f"costs: expected positive ones with inspection / miss + inspection / false_alarm <= 1, got miss="
                f"{self.miss}, false_alarm={self.false_alarm}, inspection={self.inspection}."
            )

    @property
    def alpha(self) -> float:
        """Probability of a defect from which on an object is rejected."""
        return 1 - self.inspection / self.false_alarm

    @property
    def beta(self) -> float:
        """Probability of a defect up to which an object is accepted."""
        return self.inspection / self.miss

    def verdict(self, probability: float) -> Verdict:
        """The cheapest decision."""
        if probability >= self.alpha:
            return "reject"
        return "accept" if probability <= self.beta else "re-inspect"


@dataclass(frozen=True)
class Calibration:
    """P(defective | score) = 1 / (1 + exp(-(slope x + offset))), x = log of the score plus `floor`.

    The slope is never negative: a higher score can't make an object better.
    """

    slope: float
    offset: float
    floor: float = 1e-9

    @classmethod
    def fit(cls, normal: Sequence[float], defective: Sequence[float], floor: float = 1e-9) -> Calibration:
        """Logistic regression with an L2 penalty on the standardised log score; both classes weigh the same.

        Args:
            normal: scores of normal objects that the model has not seen.
            defective: scores of defective ones.
            floor: added to scores before the logarithm.

        Raises:
            CloudError: no scores of one kind.
        """
        if not len(normal) or not len(defective):
            raise CloudError(f"calibration: expected scores of both kinds, got {len(normal)} and {len(defective)}.")
        from sklearn.linear_model import LogisticRegression

        x = np.log(np.concatenate([normal, defective]) + floor)
        y = np.repeat([0, 1], [len(normal), len(defective)])
        centre, scale = float(x.mean()), float(x.std()) or 1.0
        model = LogisticRegression(class_weight="balanced").fit(((x - centre) / scale)[:, None], y)
        slope = max(0.0, float(model.coef_[0, 0]) / scale)
        return cls(slope, float(model.intercept_[0]) - slope * centre if slope else 0.0, floor)

    def probability(self, score: float) -> float:
        """P(defective | score)."""
        z = self.slope * math.log(max(score, 0.0) + self.floor) + self.offset
        return 1 / (1 + math.exp(-max(-500.0, min(500.0, z))))

    def score_at(self, probability: float) -> float:
        """The score of that probability; inf where no score has it."""
        if not self.slope:
            return math.inf
        return max(0.0, math.exp((math.log(probability / (1 - probability)) - self.offset) / self.slope) - self.floor)


def largest_region(point: Tensor, pos: Tensor, threshold: float, *, k: int = 8) -> float:
    """Share of a cloud's points in its largest connected region above a threshold.

    Args:
        point: (N,) scores.
        pos: (N, 3) points; two above the threshold are connected if one is among the `k` nearest of the other.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    high = torch.nonzero(point > threshold)[:, 0]
    if high.shape[0] == 0:
        return 0.0
    index = knn(pos, pos[high], min(k, pos.shape[0]))[0]
    number = torch.full((pos.shape[0],), -1)
    number[high] = torch.arange(high.shape[0])
    to = number[index]
    rows, there = torch.arange(high.shape[0])[:, None].expand_as(to), to >= 0
    graph = coo_matrix((np.ones(int(there.sum())), (rows[there].numpy(), to[there].numpy())), shape=(len(high),) * 2)
    return float(np.bincount(connected_components(graph, directed=False)[1]).max()) / pos.shape[0]
