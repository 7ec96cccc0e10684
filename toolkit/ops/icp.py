"""Iterative closest point, point to plane.

Source: Chen, Medioni, "Object modelling by registration of multiple range images", 1992. Written here rather than taken
from Open3D because Open3D's parallel sums make its result differ in the last digits from run to run.
"""

from __future__ import annotations

import torch
from torch import Tensor

from toolkit.ops.check import check_points, check_positive
from toolkit.ops.knn import Neighbours
from toolkit.ops.rigid import assemble, rotation_about, transformed


def icp(
    source: Tensor,
    target: Tensor | Neighbours,
    normal: Tensor,
    start: Tensor,
    *,
    distance: float,
    iterations: int = 30,
    tolerance: float = 1e-5,
) -> Tensor:
    """Refine a rigid transform so that ``source`` comes to lie on the surface of ``target``.

    Each round pairs every source point with its nearest target point and solves for the small motion that brings it
    into that point's tangent plane. Motions that the surface does not resist (along a plane, around an axis of
    symmetry) are left out of the solution.

    Args:
        source: (N, 3) points to move.
        target: (M, 3) points to come to rest on; as `Neighbours` where several sources come to rest on them.
        normal: (M, 3) unit normals of ``target``; signs do not matter.
        start: (4, 4) transform to start from.
        distance: pairs farther apart than this are ignored, in the unit of the points.
        iterations: most rounds.
        tolerance: stop when a round moves no point by more than this, relative to the target's extent.

    Returns:
        (4, 4) float64. ``start`` where fewer than 6 pairs are near enough.

    Raises:
        CloudError: an empty cloud, NaN or infinite coordinates.
        HyperparameterError: ``distance`` <= 0.
    """
    check_positive(distance, "icp: distance")
    source = check_points(source, "icp: source", dim=3).double()
    search = target if isinstance(target, Neighbours) else Neighbours(check_points(target, "icp: target", dim=3))
    target = search.pos
    normal = normal.double()
    transform = start.to(source.device, torch.float64)
    centre = target.double().mean(0)
    extent = float((target.double() - centre).norm(dim=1).max()) or 1.0
    for _ in range(iterations):
        moved = transformed(source, transform)
        index, away = search.find(moved.to(target.dtype), 1)
        near = away[:, 0] <= distance
        if int(near.sum()) < 6:
            break
        # Around the centre and in units of the extent, rotations and translations weigh alike.
        point = (moved[near] - centre) / extent
        goal = (target[index[near, 0]].double() - centre) / extent
        plane = normal[index[near, 0]]
        row = torch.cat([torch.linalg.cross(point, plane, dim=1), plane], 1)
        offset = ((goal - point) * plane).sum(1)
        value, vector = torch.linalg.eigh(row.t() @ row)
        firm = value > 1e-5 * value[-1]
        step = vector[:, firm] @ ((vector[:, firm].t() @ (row.t() @ offset)) / value[firm])
        rotation = rotation_about(step[:3])
        shift = centre + extent * step[3:] - rotation @ centre
        transform = assemble(rotation, shift) @ transform
        if float(step[:3].norm() + step[3:].norm()) < tolerance:
            break
    return transform
