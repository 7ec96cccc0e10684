"""Open3D as the Real3D-AD family calls it: points in file order, every point described, templates described anew."""

from __future__ import annotations

from typing import Any

import numpy as np
import open3d


def cloud_of(pos: np.ndarray, normal: np.ndarray | None = None) -> Any:
    """An Open3D cloud of (N, 3) points."""
    cloud = open3d.geometry.PointCloud(open3d.utility.Vector3dVector(pos.astype(np.float64)))
    if normal is not None:
        cloud.normals = open3d.utility.Vector3dVector(normal.astype(np.float64))
    return cloud


def normals(pos: np.ndarray, radius: float = 1.0, k: int = 30) -> np.ndarray:
    """(N, 3) normals of whatever sign."""
    cloud = cloud_of(pos)
    cloud.estimate_normals(open3d.geometry.KDTreeSearchParamHybrid(radius=radius, max_nn=k))
    return np.asarray(cloud.normals)


def outward(pos: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """Normals turned away from the centroid. Not in the released code; where features are to be compared with ours
    number by number, the sign must be settled the same way."""
    inside = ((pos - pos.mean(0)) * normal).sum(1) < 0
    return np.where(inside[:, None], -normal, normal)


def fpfh(pos: np.ndarray, normal: np.ndarray, radius: float = 2.5, k: int = 100) -> np.ndarray:
    """(N, 33) FPFH of all points."""
    search = open3d.geometry.KDTreeSearchParamHybrid(radius=radius, max_nn=k)
    return np.asarray(open3d.pipelines.registration.compute_fpfh_feature(cloud_of(pos, normal), search).data).T


def registration(source: np.ndarray, template: np.ndarray, voxel: float = 0.5) -> np.ndarray:
    """(4, 4) transform of the source onto the template by RANSAC on FPFH of normals of whatever sign.

    The axes of the source are exchanged first (a start that a tutorial put there to make the task harder), the template
    is voxelised and described in every call, and nothing is seeded.
    """
    exchange = np.array([[0, 0, 1, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]], float)
    moving, fixed = cloud_of(source), cloud_of(template)
    moving.transform(exchange)
    (moving, moving_feature), (fixed, fixed_feature) = (_described(cloud, voxel) for cloud in (moving, fixed))
    tools, reach = open3d.pipelines.registration, 1.5 * voxel
    found = tools.registration_ransac_based_on_feature_matching(
        moving, fixed, moving_feature, fixed_feature, True, reach, tools.TransformationEstimationPointToPoint(False), 3,
        [tools.CorrespondenceCheckerBasedOnEdgeLength(0.9), tools.CorrespondenceCheckerBasedOnDistance(reach)],
        tools.RANSACConvergenceCriteria(100_000, 0.999))  # fmt: skip
    return np.asarray(found.transformation) @ exchange


def _described(cloud: Any, voxel: float) -> tuple[Any, Any]:
    small = cloud.voxel_down_sample(voxel)
    small.estimate_normals(open3d.geometry.KDTreeSearchParamHybrid(radius=2 * voxel, max_nn=30))
    search = open3d.geometry.KDTreeSearchParamHybrid(radius=5 * voxel, max_nn=100)
    return small, open3d.pipelines.registration.compute_fpfh_feature(small, search)
