"""What is normal at a place of a part: held-out residuals around it, by which scores there are measured.

Edges, thin walls and threads are never rebuilt as well as flat faces. One mean and deviation for a whole class makes
those the most anomalous places of every normal cloud; with registered clouds each place can have its own.
"""

from __future__ import annotations

from torch import Tensor

from toolkit.ops import knn


def deviations(value: Tensor, place: Tensor, rows: Tensor, *, nearby: int, floor: float) -> Tensor:
    """Values in standard deviations from what normal clouds show at the same place.

    Args:
        value: (M, V) residuals.
        place: (M, 3) where, in the pose of the class template.
        rows: (P, 3 + V) places and residuals of normal clouds, in the same pose.
        nearby: so many of the nearest rows make up a place; 0 = all rows, wherever they are.
        floor: added to a place's deviation, in deviations over all rows: a few values may agree by chance.

    Returns:
        (M, V).
    """
    mean, deviation = rows[:, 3:].mean(0), rows[:, 3:].std(0).clamp_min(1e-6)
    if not nearby:
        return (value - mean) / deviation
    near = rows[knn(rows[:, :3].contiguous(), place, min(nearby, len(rows)))[0], 3:]
    return (value - near.mean(1)) / (near.std(1, correction=0) + floor * deviation)
