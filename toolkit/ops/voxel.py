"""Voxel-grid down-sampling: one point per occupied cell, the mean of its points."""

from __future__ import annotations

from typing import Literal, overload

import torch
from torch import Tensor

from toolkit.errors import HyperparameterError
from toolkit.ops.check import check_points, check_positive

_ROWS = 2**16  # points at a time: what is computed of them stays in the cache


@overload
def voxel_downsample(pos: Tensor, size: float, *, return_inverse: Literal[False] = False) -> Tensor: ...
@overload
def voxel_downsample(pos: Tensor, size: float, *, return_inverse: Literal[True]) -> tuple[Tensor, Tensor]: ...
def voxel_downsample(pos: Tensor, size: float, *, return_inverse: bool = False) -> Tensor | tuple[Tensor, Tensor]:
    """The mean of the points in every occupied cell of a grid that starts at the cloud's lowest corner.

    Args:
        pos: (N, 3) points.
        size: edge of a cell, in the unit of ``pos``.
        return_inverse: also return which row each point went into, for averaging other attributes alike.

    Returns:
        (M, 3) means, cells in x, then y, then z order; with ``return_inverse`` also (N,) int64 rows.

    Raises:
        CloudError: no points, NaN or infinite coordinates.
        HyperparameterError: ``size`` <= 0, or so small that cells cannot be numbered in 63 bits.
    """
    check_positive(size, "voxel_downsample: size")
    pos = check_points(pos, "voxel_downsample: pos", dim=3)
    low = pos.amin(0)
    extent = [int(n) + 1 for n in ((pos.amax(0) - low).double() / size).tolist()]
    if extent[0] * extent[1] * extent[2] >= 2**63:
        raise HyperparameterError(
            f"voxel_downsample: cells of size {size:g} are too small for a cloud of this extent "
            f"({extent[0]} x {extent[1]} x {extent[2]} cells). Use a larger size, relative to the cloud's diagonal."
        )
    number = torch.empty(pos.shape[0], dtype=torch.long, device=pos.device)
    for part, to in zip(pos.split(_ROWS), number.split(_ROWS)):
        x, y, z = ((part - low).double() / size).long().unbind(1)
        torch.add((x * extent[1] + y) * extent[2], z, out=to)
    _, inverse, count = torch.unique(number, return_inverse=True, return_counts=True)
    total = torch.zeros((count.shape[0], 3), dtype=torch.float64, device=pos.device)
    for part, at in zip(pos.split(_ROWS), inverse.split(_ROWS)):
        total.index_add_(0, at, part.double())
    mean = (total / count[:, None]).to(pos.dtype)
    return (mean, inverse) if return_inverse else mean
