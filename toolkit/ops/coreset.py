"""Greedy k-centre selection of a memory bank.

Source: Gonzalez, "Clustering to minimize the maximum intercluster distance", 1985; as used by PatchCore (Roth et al.,
2022), random projection after Johnson and Lindenstrauss included.

The time goes into reading all rows once per step. The rows that are farthest now are mostly those that are chosen in
the next steps, too, as choosing one rarely brings the others nearer: so the distances to several of them are computed
in one pass, and used if and when their turn comes. The choice is the same.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from toolkit.errors import CloudError, HyperparameterError
from toolkit.ops.check import check_points

AHEAD = 16
"""Rows whose distances are computed together, at most; fewer where it turns out that few of them are used."""


def coreset(
    feature: Tensor, count: int, *, seed: int = 0, project: int | None = 64, start: int | None = None
) -> Tensor:
    """Choose ``count`` rows so that no row is far from a chosen one: each step takes the row farthest from all chosen.

    Args:
        feature: (N, D).
        count: rows to choose, 1 to N.
        seed: of the projection and of the random first row.
        project: measure distances in a random projection to this many dimensions, where D is greater (PatchCore's
            speed-up; it projects to 128 always). None: never.
        start: index of the first row; drawn with ``seed`` if None.

    Returns:
        (count,) int64, in the order of choice, all different.

    Raises:
        CloudError: fewer than ``count`` rows, NaN or infinite values.
        HyperparameterError: ``count`` or ``project`` < 1, or ``start`` outside the rows.
    """
    if count < 1 or (project is not None and project < 1):
        raise HyperparameterError(f"coreset: expected count and project >= 1, got {count} and {project}.")
    feature = check_points(feature, "coreset: feature").float()
    size, dim = feature.shape
    if size < count:
        raise CloudError(f"coreset: cannot choose {count} different rows from {size}. Ask for fewer.")
    generator = torch.Generator().manual_seed(seed)
    if start is None:
        start = int(torch.randint(size, (1,), generator=generator))
    if not 0 <= start < size:
        raise HyperparameterError(f"coreset: start = {start} is outside the rows 0..{size - 1}.")
    if project is not None and dim > project:
        directions = torch.randn(dim, project, generator=generator) / math.sqrt(project)
        feature = feature @ directions.to(feature.device)
    # Half the squared distance, h_x + h_c - x.c with h = |x|^2 / 2, needs one product. Centring keeps its digits.
    feature = feature - feature.mean(0)
    half = feature.square().sum(1) / 2
    nearest = torch.full_like(half, torch.inf)
    chosen = [start]
    rows, ready, ahead, used = torch.tensor([start], device=feature.device), {}, AHEAD, 0  # type: ignore[var-annotated]
    while len(chosen) < count:
        last = chosen[-1]
        if last not in ready:
            distance = torch.addmm(half[None].expand(len(rows), size), feature[rows], feature.t(), alpha=-1)
            ready = {int(row): line for row, line in zip(rows, distance)}
            used = 0
        used += 1
        torch.minimum(nearest, ready[last].add_(half[last]), out=nearest)
        nearest[last] = -torch.inf  # never twice, even where rows repeat
        chosen.append(int(nearest.max(0).indices))
        if chosen[-1] not in ready:
            ahead = min(2 * used, AHEAD)
            rows = nearest.topk(min(ahead, size)).indices
            if chosen[-1] not in rows:  # of equal distances, topk may take others
                rows[0] = chosen[-1]
    return torch.tensor(chosen, dtype=torch.long, device=feature.device)
