"""Registered clouds place by place: thinning dense ones, ways from a surface, what normal clouds show at a place."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from toolkit.ops import interpolate, knn, voxel_downsample


def thinned(pos: Tensor, raw: Tensor, most: int, edge: float) -> tuple[Tensor, Tensor]:
    """Points and the same points in another frame, averaged on a grid of the first if there are more than `most`.

    Args:
        pos: (N, 3) points in the frame of their class.
        raw: (N, 3) the same points where the cloud has them.
        most: larger clouds are thinned.
        edge: of the grid, in the unit of ``pos``.

    Returns:
        (M, 3) and (M, 3).
    """
    if pos.shape[0] <= most:
        return pos, raw
    thin, row = voxel_downsample(pos, edge, return_inverse=True)
    count = torch.bincount(row, minlength=thin.shape[0])[:, None]
    return thin, torch.zeros_like(thin).index_add_(0, row, raw) / count


def plane_gap(surface: Tensor, normal: Tensor, pos: Tensor, near: int = 6) -> Tensor:
    """(M, 3) ways to points (M, 3) from a surface given by points (T, 3) with unit normals (T, 3).

    The surface at a place is the plane through the mean of its `near` nearest points, across the normal of the nearest.
    """
    index = knn(surface, pos, min(near, len(surface)))[0]
    middle, across = nn.functional.embedding_bag(index, surface, mode="mean"), normal[index[:, 0]]
    return ((pos - middle) * across).sum(1, keepdim=True) * across


def place_means(places: Sequence[Tensor], values: Sequence[Tensor], edge: float) -> Tensor:
    """(M, 3 + V): places on a grid and the mean of the values (N, V) that clouds (N, 3) of a class have there."""
    every = torch.cat([torch.cat(pair, 1) for pair in zip(places, values, strict=True)])
    grid, row = voxel_downsample(every[:, :3], edge, return_inverse=True)
    count = torch.bincount(row, minlength=grid.shape[0])[:, None]
    return torch.zeros(grid.shape[0], every.shape[1]).index_add_(0, row, every) / count


def less_means(value: Tensor, place: Tensor, means: Tensor | None) -> Tensor:
    """Values (N, V) at places (N, 3) less what `place_means` holds there; as they are if there are none."""
    if means is None:
        return value
    return value - interpolate(means[:, 3:], means[:, :3].contiguous(), place, k=8)
