"""FPFH of a cloud on a voxel grid: the hand-made features of BTF and PatchCore."""

from __future__ import annotations

from torch import Tensor

from toolkit.errors import CloudError
from toolkit.ops import fpfh, normals, voxel_downsample


def describe(pos: Tensor, voxel: float, *, rows: Tensor | None = None, normal_radius: float = 3.0, normal_k: int = 30,
             fpfh_radius: float = 5.0, fpfh_k: int = 100, hellinger: bool = True,
             histograms: bool = True) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The points of a cloud that are described, and their features.

    Args:
        pos: (N, 3) points.
        voxel: edge of the grid, in the unit of ``pos``.
        rows: (M,) indices of the points to describe, from all points; None describes the mean point of each voxel, from
            these means.
        normal_radius, fpfh_radius: neighbourhoods, in voxels.
        normal_k, fpfh_k: at most so many neighbours, the nearest.
        hellinger: square roots of the counts, whose Euclidean distance is, up to a factor, the Hellinger distance.
        histograms: False returns (M, 0) features.

    Returns:
        (M, 3) points and (M, 33) float32.

    Raises:
        CloudError: fewer than 3 points or occupied voxels, NaN or infinite coordinates.
        HyperparameterError: sizes that are not positive.
    """
    if rows is None:
        points = pos.shape[0]
        pos = voxel_downsample(pos, voxel)
        if histograms and pos.shape[0] < 3:
            raise CloudError(
                f"A grid of {voxel:g} leaves {pos.shape[0]} of {points} points, fewer than 3. Use a smaller voxel."
            )
    described = pos if rows is None else pos[rows]
    if not histograms:
        return described, pos.new_empty((described.shape[0], 0))
    normal = normals(pos, k=normal_k, radius=normal_radius * voxel)
    feature = fpfh(pos, normal, radius=fpfh_radius * voxel, k=fpfh_k, rows=rows)
    return described, feature.sqrt_() if hellinger else feature
