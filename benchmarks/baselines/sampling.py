"""Farthest point sampling and greedy coresets as released code has them."""

from __future__ import annotations

import torch
from torch import Tensor


def fps_loop(pos: Tensor, count: int) -> Tensor:
    """The loop that PointNet++ code falls back to without its CUDA extension: one full scan per chosen point."""
    chosen = torch.zeros(count, dtype=torch.long)
    nearest = torch.full((pos.shape[0],), 1e10)
    last = torch.zeros((), dtype=torch.long)
    for step in range(count):
        chosen[step] = last
        distance = ((pos - pos[last].view(1, 3)) ** 2).sum(-1)
        closer = distance < nearest
        nearest[closer] = distance[closer]
        last = nearest.max(-1)[1]
    return chosen


def patchcore_coreset(feature: Tensor, count: int, *, seed: int = 0, starts: int = 10, dim: int = 128) -> list[int]:
    """PatchCore's approximate greedy coreset: a projection to 128 dimensions whatever the features have, ten random
    first rows, and per step distances from norms that are computed again, joined to the old ones and minimised."""
    generator = torch.Generator().manual_seed(seed)
    layer = torch.nn.Linear(feature.shape[1], dim, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(dim, feature.shape[1], generator=generator) / feature.shape[1] ** 0.5)
        feature = layer(feature)
        first = torch.randperm(len(feature), generator=generator)[:starts]
        anchor = _distances(feature, feature[first]).mean(-1).reshape(-1, 1)
        chosen = []
        for _ in range(count):
            row = int(torch.argmax(anchor))
            chosen.append(row)
            to_row = _distances(feature, feature[row : row + 1])
            anchor = torch.cat([anchor, to_row], dim=-1).min(dim=1).values.reshape(-1, 1)
    return chosen


def _distances(a: Tensor, b: Tensor) -> Tensor:
    """(N, M) Euclidean distances from batched products of every row with itself."""
    norm_a = a.unsqueeze(1).bmm(a.unsqueeze(2)).reshape(-1, 1)
    norm_b = b.unsqueeze(1).bmm(b.unsqueeze(2)).reshape(1, -1)
    return (-2 * a.mm(b.T) + norm_a + norm_b).clamp(0, None).sqrt()
