"""How a cloud differs from what it should look like: distances both ways and local descriptors, at several scales."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch_geometric.utils import scatter

from toolkit.ops import fpfh, interpolate, knn, normals, smooth, voxel_downsample

VOTERS = ("fine distance", "coarse distance", "missing", "descriptor")


@dataclass(frozen=True)
class Surface:
    """A cloud averaged on a grid, with what is compared.

    Attributes:
        pos: (M, 3) grid points.
        normal: (M, 3) unit normals, outward.
        histogram: (M, 33) square roots of FPFH.
        voxel: edge of the grid.
    """

    pos: Tensor
    normal: Tensor
    histogram: Tensor
    voxel: float


def surface(pos: Tensor, voxel: float, *, thin: bool = True) -> Surface:
    """Describe (N, 3) points on a grid of that edge; thin=False: they are its points already."""
    grid = voxel_downsample(pos, voxel) if thin else pos
    normal = normals(grid, k=30, radius=3 * voxel)
    return Surface(grid, normal, fpfh(grid, normal, radius=5 * voxel, k=100).sqrt_(), voxel)


def differences(seen: Surface, repaired: Surface, *, matches: int = 16) -> Tensor:
    """(M, 4) disagreements of the grid points of a cloud with its repaired version, in the order of `VOTERS`.

    Distances are counted in voxels. "fine distance": to the plane of the nearest repaired points, mean over 8
    neighbours; "coarse": signed first, so that noise cancels, mean over 64; "missing": how far the repaired surface
    nearest to this place is from the cloud, i.e. what a hole or a break took away beside it; "descriptor": to the most
    alike FPFH among the nearest repaired points, as no registration is exact to a voxel.

    Args:
        seen: the cloud.
        repaired: what it is compared with, in the same pose.
        matches: repaired points among which a descriptor looks for its like.
    """
    index, _ = knn(repaired.pos, seen.pos, min(matches, len(repaired.pos)))
    near = index[:, :3]
    height = ((seen.pos[:, None] - repaired.pos[near]) * repaired.normal[near]).sum(2).mean(1) / seen.voxel
    fine = smooth(height.abs(), seen.pos, k=8)
    coarse = smooth(height, seen.pos, k=64).abs()

    back, away = knn(seen.pos, repaired.pos, 1)
    lost = scatter(away[:, 0] / seen.voxel, back[:, 0], dim_size=len(seen.pos), reduce="max")
    missing = smooth(lost, seen.pos, k=8)

    unlike = (repaired.histogram[index] - seen.histogram[:, None]).square().sum(2).amin(1).sqrt()
    return torch.stack([fine, coarse, missing, smooth(unlike, seen.pos, k=16)], 1)


def carried(value: Tensor, seen: Surface, pos: Tensor) -> Tensor:
    """(N,) values of the grid points (M,) at all points of the cloud."""
    return interpolate(value, seen.pos, pos, k=min(3, len(seen.pos))).float()


def misfit(pos: Tensor, repaired: Tensor, voxel: float) -> float:
    """Mean squared distance of points to a repaired cloud in voxels, each counted as 2 at most: defects do not pull."""
    return float((knn(repaired, pos, 1)[1] / voxel).clamp_max(2).square().mean())
