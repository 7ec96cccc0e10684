"""Surface normals and curvature from the covariance of each point's neighbourhood.

Source: Hoppe et al., "Surface reconstruction from unorganized points", 1992; surface variation: Pauly et al.,
"Efficient simplification of point-sampled surfaces", 2002. Eigenvalues in closed form (Smith, "Eigenvalues of a
symmetric 3 x 3 matrix", 1961) in float64; the few neighbourhoods where that loses digits go through an iterative
solver.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from toolkit.errors import HyperparameterError
from toolkit.ops.check import check_points, check_positive
from toolkit.ops.compiled import usable
from toolkit.ops.knn import knn

Orientation = Literal["outward", "consistent", "none"]

_ROWS = 2**16  # neighbourhoods held at a time
_LEAST = 3  # points that span a plane


def normals(pos: Tensor, *, k: int = 30, radius: float | None = None, orient: Orientation = "outward") -> Tensor:
    """Unit surface normals.

    Args:
        pos: (N, 3) points.
        k: neighbours that make up a neighbourhood, the point itself among them. All points, if there are fewer.
        radius: leave out neighbours farther away than this (but never the nearest three), in the unit of ``pos``.
        orient: ``"outward"`` away from the centroid, right for parts that are star-shaped seen from there and at least
            repeatable under rotation for all others; ``"consistent"`` neighbours agree, by a minimum spanning tree
            (Hoppe; Open3D; some 50 times slower), the whole turned outward; ``"none"`` whatever sign comes.

    Returns:
        (N, 3), in the dtype of ``pos``. On a line or a single place the normal is some unit vector across it.

    Raises:
        CloudError: fewer than 3 points, NaN or infinite coordinates.
        HyperparameterError: ``k`` < 3, ``radius`` <= 0 or an unknown ``orient``.
    """
    if orient not in ("outward", "consistent", "none"):
        raise HyperparameterError(f"normals: orient must be 'outward', 'consistent' or 'none', not {orient!r}.")
    pos = check_points(pos, "normals: pos", minimum=_LEAST, dim=3)
    normal = torch.cat([_smallest_axis(c) for c in _covariances(pos, k, radius, "normals")]).to(pos.dtype)
    if orient == "consistent":
        normal = _propagate_signs(pos, normal, min(k, pos.shape[0] - 1))
    if orient != "none":
        away = (normal * (pos - pos.double().mean(0))).sum(1)
        if orient == "outward":
            normal = torch.where(away[:, None] < 0, -normal, normal)
        elif away.sum() < 0:
            normal = -normal
    return normal


def curvature(pos: Tensor, *, k: int = 30, radius: float | None = None) -> Tensor:
    """Surface variation: smallest eigenvalue of the neighbourhood's covariance over the sum of all three.

    Args:
        pos, k, radius: as for `normals`.

    Returns:
        (N,) in [0, 1/3], in the dtype of ``pos``: 0 on a plane or a line, 1/3 where points scatter evenly.

    Raises:
        CloudError, HyperparameterError: as for `normals`.
    """
    pos = check_points(pos, "curvature: pos", minimum=_LEAST, dim=3)
    parts = []
    for covariance in _covariances(pos, k, radius, "curvature"):
        trace = covariance[:, 0] + covariance[:, 3] + covariance[:, 5]
        smallest = _smallest_eigenvalue(covariance).clamp_min(0)
        parts.append(torch.where(trace > 0, smallest / trace.clamp_min(torch.finfo(trace.dtype).tiny), 0.0))
    return torch.cat(parts).clamp_max(1 / 3).to(pos.dtype)


def _covariances(pos: Tensor, k: int, radius: float | None, name: str) -> Iterator[Tensor]:
    """Yield (rows, 6) float64: xx, xy, xz, yy, yz, zz of the points' neighbourhoods, chunk by chunk."""
    if k < _LEAST:
        raise HyperparameterError(f"{name}: expected k >= {_LEAST} neighbours, got {k}.")
    if radius is not None:
        check_positive(radius, f"{name}: radius")
    k = min(k, pos.shape[0])
    if usable(pos):
        from toolkit.ops.compiled.neighbourhoods import covariances

        found = covariances(pos.numpy(), k, math.inf if radius is None else radius)
        if found is not None:
            yield torch.from_numpy(found)
            return
    index, distance = knn(pos, pos, k)
    axes = pos.t().contiguous()
    for rows in torch.arange(pos.shape[0], device=pos.device).split(_ROWS):
        near = index[rows]
        # Relative to the point itself, so that a cloud far from the origin loses no digits.
        x, y, z = (axis[near] - axis[rows, None] for axis in axes)
        if radius is None:
            weight = torch.full_like(x, 1 / k)
        else:
            inside = distance[rows] <= radius
            inside[:, :_LEAST] = True
            weight = inside.to(x.dtype) / inside.sum(1, keepdim=True)
        x, y, z = (c - (c * weight).sum(1, keepdim=True) for c in (x, y, z))
        wx, wy, wz = weight * x, weight * y, weight * z
        products = ((wx, x), (wx, y), (wx, z), (wy, y), (wy, z), (wz, z))
        yield torch.stack([(a * b).sum(1) for a, b in products], 1).double()


def _smallest_eigenvalue(covariance: Tensor) -> Tensor:
    """(M,) from (M, 6), by the trigonometric solution of the characteristic cubic."""
    xx, xy, xz, yy, yz, zz = covariance.unbind(1)
    mean = (xx + yy + zz) / 3
    a, b, c = xx - mean, yy - mean, zz - mean
    spread = ((a * a + b * b + c * c + 2 * (xy * xy + xz * xz + yz * yz)) / 6).sqrt()
    determinant = a * (b * c - yz * yz) - xy * (xy * c - yz * xz) + xz * (xy * yz - b * xz)
    cosine = determinant / (2 * spread**3).clamp_min(torch.finfo(spread.dtype).tiny)
    angle = cosine.clamp(-1, 1).acos() / 3
    return mean + 2 * spread * (angle + 2 * math.pi / 3).cos()


def _smallest_axis(covariance: Tensor) -> Tensor:
    """(M, 3) unit eigenvector of the smallest eigenvalue, from (M, 6)."""
    scale = covariance.abs().amax(1, keepdim=True).clamp_min(torch.finfo(covariance.dtype).tiny)
    covariance = covariance / scale
    xx, xy, xz, yy, yz, zz = covariance.unbind(1)
    smallest = _smallest_eigenvalue(covariance)
    rows = torch.stack([xx - smallest, xy, xz, xy, yy - smallest, yz, xz, yz, zz - smallest], 1).view(-1, 3, 3)
    # Rows of (C - lambda I) span the plane across the eigenvector: it is the cross product of any two of them, and the
    # longest of the three products has the most digits.
    products = torch.linalg.cross(rows, rows.roll(-1, 1), dim=2)
    length = products.square().sum(2)
    best = length.argmax(1)
    size = length.gather(1, best[:, None])
    axis = products.gather(1, best[:, None, None].expand(-1, 1, 3)).squeeze(1) / size.sqrt().clamp_min(1e-300)
    doubtful = size.squeeze(1) < 1e-14  # two equal eigenvalues, a line or a single place
    if bool(doubtful.any()):
        matrix = torch.stack([xx, xy, xz, xy, yy, yz, xz, yz, zz], 1)[doubtful].view(-1, 3, 3)
        axis[doubtful] = torch.linalg.eigh(matrix)[1][:, :, 0]
    return axis


def _propagate_signs(pos: Tensor, normal: Tensor, k: int) -> Tensor:
    import open3d

    cloud = open3d.geometry.PointCloud(open3d.utility.Vector3dVector(pos.double().cpu().numpy()))
    cloud.normals = open3d.utility.Vector3dVector(normal.double().cpu().numpy())
    cloud.orient_normals_consistent_tangent_plane(k)
    return torch.from_numpy(np.array(cloud.normals)).to(normal)
