"""Scores of normal training clouds by a model that has not seen them: what calibration uses instead of test statistics.

Released code of this field scales the parts of a fused score by their extremes over the test set. A stream has no test
set to look at, so scales come from here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

Item = TypeVar("Item")
Model = TypeVar("Model")


def held_out_scores(
    items: Sequence[Item],
    fit: Callable[[Sequence[Item]], Model],
    score: Callable[[Model, Item], Tensor],
    folds: int = 4,
) -> list[Tensor]:
    """Each item's scores by a model fitted to the others, in the order of the items.

    Args:
        items: normal training clouds or their features.
        fit: makes a model of some of them.
        score: (N,) or (N, S) scores of one item under a model.
        folds: fit at most so many models, each without every folds-th item. A single item can't be held out; it is
            scored by the model fitted to itself, and the scale is then too small: have at least two clouds per class.
    """
    if len(items) < 2:
        return [score(fit(items), item) for item in items]
    folds = min(folds, len(items))
    models = [fit([item for i, item in enumerate(items) if i % folds != fold]) for fold in range(folds)]
    return [score(models[i % folds], item) for i, item in enumerate(items)]


def centre_and_scale(scores: Sequence[Tensor]) -> tuple[float, float]:
    """Mean and standard deviation over all points of held-out scores; the scale is 1 where all are equal."""
    every = torch.cat([s.flatten() for s in scores]).double()
    scale = float(every.std()) if every.numel() > 1 else 0.0
    return float(every.mean()), scale if scale > 0 else 1.0
