"""Farthest point sampling, voxel grids and coresets."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from benchmarks.baselines.sampling import fps_loop, patchcore_coreset
from benchmarks.clouds import bumpy, features
from benchmarks.harness import Bench, CheckFailed, at_most, close, equal
from toolkit.ops import bank_nearest, coreset, fps, voxel_downsample


def run(bench: Bench) -> None:
    """Measure the group."""
    for size, count, target in ((10_000, 1024, 40), (100_000, 4096, 100)):
        pos = bumpy(size)
        bench.paired("fps", f"{size:,} -> {count:,}", ("loop", lambda p=pos, c=count: fps_loop(p, c)),
                     ("fps(exact=False)", lambda p=pos, c=count: fps(p, c, exact=False)),
                     lambda a, b, p=pos: is_greedy(p, b), target=target)  # fmt: skip
    pos = bumpy(10_000)
    bench.paired("fps", "10,000 -> 1,024, chosen first point", ("loop", lambda: fps_loop(pos, 1024)),
                 ("fps", lambda: fps(pos, 1024)), equal)  # fmt: skip
    pos = bumpy(100_000)
    bench.paired("voxel", "100,000, edge 0.5", ("Open3D", lambda: open3d_voxels(pos)),
                 ("voxel_downsample", lambda: voxel_downsample(pos, 0.5)), same_rows(1e-4))  # fmt: skip
    for size, dim, count, target in ((100_000, 33, 1000, 25), (20_000, 384, 1000, 8)):
        feature = features(size, dim)
        bench.paired("coreset", f"{size:,} x {dim} -> {count:,}",
                     ("PatchCore's", lambda f=feature, c=count: patchcore_coreset(f, c)),
                     ("coreset", lambda f=feature, c=count: coreset(f, c)),
                     at_most(lambda rows, f=feature: cover_radius(f, rows), "cover radius"), target=target)  # fmt: skip


def is_greedy(pos: Tensor, chosen: Tensor, steps: int = 300) -> str:
    """Each of the first picks is as far from those before it as any point is, and all are different."""
    nearest = torch.full((pos.shape[0],), torch.inf)
    for step in range(1, steps):
        nearest = torch.minimum(nearest, (pos - pos[chosen[step - 1]]).square().sum(1))
        if float(nearest[chosen[step]]) < float(nearest.max()) * (1 - 1e-5):
            raise CheckFailed(f"pick {step} is not the farthest point")
    if len(chosen.unique()) != len(chosen):
        raise CheckFailed("a point was chosen twice")
    return f"first {steps} picks greedy, another first point"


def cover_radius(feature: Tensor, rows: Tensor | list[int]) -> float:
    """Largest distance of a row to the nearest chosen one."""
    return float(bank_nearest(feature[torch.as_tensor(rows)], feature, bf16=False)[0].max())


def open3d_voxels(pos: Tensor) -> np.ndarray:
    """Means of the points of each cell, cells anchored half an edge below the lowest corner as Open3D does."""
    import open3d

    cloud = open3d.geometry.PointCloud(open3d.utility.Vector3dVector(pos.double().numpy()))
    low = pos.amin(0).double().numpy()  # our anchor, so that the cells are the same
    return np.asarray(cloud.voxel_down_sample_and_trace(0.5, low, pos.amax(0).double().numpy() + 1)[0].points)


def same_rows(atol: float):
    """The same points, in whatever order."""

    def check(first: np.ndarray, second: Tensor) -> str:
        if len(first) != len(second):
            raise CheckFailed(f"{len(first)} cells against {len(second)}")
        order = [np.lexsort(np.round(np.asarray(m, np.float64), 3).T) for m in (first, second)]
        return close(atol, "means")(np.asarray(first)[order[0]], np.asarray(second)[order[1]])

    return check
