"""Neighbours, Chamfer distance and feature propagation as released code has them: full distance matrices."""

from __future__ import annotations

import torch
from torch import Tensor


def cdist_knn(pos: Tensor, query: Tensor, k: int, rows: int = 512) -> tuple[Tensor, Tensor]:
    """Index and distance of the `k` nearest, from chunks of a distance matrix."""
    indices, distances = [], []
    for part in query.split(rows):
        distance, index = torch.cdist(part, pos).topk(k, largest=False)
        indices.append(index)
        distances.append(distance)
    return torch.cat(indices), torch.cat(distances)


def cdist_chamfer(a: Tensor, b: Tensor) -> Tensor:
    """Mean squared distance to the nearest, both ways, differentiated through the full matrix."""
    distance = torch.cdist(a, b) ** 2
    return distance.min(1).values.mean() + distance.min(0).values.mean()


def sorted_interpolation(value: Tensor, centre: Tensor, pos: Tensor) -> Tensor:
    """PointNet++'s feature propagation: all distances, a full sort of each row for its first three, a gather."""
    square = -2 * pos @ centre.T + (pos**2).sum(-1)[:, None] + (centre**2).sum(-1)[None]
    distance, index = square.sort(dim=-1)
    distance, index = distance[:, :3], index[:, :3]
    weight = 1.0 / (distance + 1e-8)
    weight = weight / weight.sum(1, keepdim=True)
    return (value[index] * weight[:, :, None]).sum(1)
