"""Nearest neighbours and normals."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from benchmarks.baselines import open3d_calls
from benchmarks.baselines.neighbours import cdist_knn
from benchmarks.clouds import bumpy
from benchmarks.harness import Bench, CheckFailed, close
from toolkit.ops import knn, normals

Found = tuple[np.ndarray, np.ndarray]


def run(bench: Bench) -> None:
    """Measure the group."""
    _search(bench)
    pos = bumpy(100_000).numpy()
    bench.paired("normals", "100,000, 30 within 1.0", ("Open3D, file order", lambda: open3d_calls.normals(pos)),
                 ("normals", lambda: normals(torch.from_numpy(pos), radius=1.0, orient="none")), same_lines,
                 target=float("nan"))  # fmt: skip


def _search(bench: Bench) -> None:
    cloud, query = bumpy(100_000), bumpy(4_096, seed=1)
    bench.paired("knn", "100,000, 4,096 queries, k 128", ("cdist", lambda: cdist_knn(cloud, query, 128)),
                 ("knn", lambda: knn(cloud, query, 128)), by_distance(0.02), target=20,
                 note="cdist's matrix products lose digits")  # fmt: skip
    for size, wanted, k in ((100_000, query, 128), (100_000, None, 16)):
        points = bumpy(size)
        wanted = points if wanted is None else wanted
        name = f"{size:,}, {'all' if wanted is points else '4,096'} queries, k {k}"
        for tree in (pykdtree, scipy_tree, small_gicp):
            bench.paired("knn", name, (tree.__name__, lambda t=tree, p=points, q=wanted, k=k: t(p, q, k)),
                         ("knn", lambda p=points, q=wanted, k=k: knn(p, q, k)), by_distance(1e-4),
                         target=1 / 1.1)  # fmt: skip


def pykdtree(pos: Tensor, query: Tensor, k: int) -> Found:
    """Index and distance by pykdtree."""
    from pykdtree.kdtree import KDTree

    return KDTree(pos.numpy()).query(query.numpy(), k=k)[::-1]


def scipy_tree(pos: Tensor, query: Tensor, k: int) -> Found:
    """Index and distance by scipy, with the faster of its trees for many or few queries."""
    from scipy.spatial import cKDTree

    many = len(query) > len(pos) // 10
    return cKDTree(pos.numpy(), balanced_tree=many, compact_nodes=many).query(query.numpy(), k=k)[::-1]


def small_gicp(pos: Tensor, query: Tensor, k: int) -> Found:
    """Index and distance by small_gicp."""
    import small_gicp as library

    index, square = library.KdTree(pos.double().numpy()).batch_knn_search(query.double().numpy(), k)
    return np.asarray(index), np.sqrt(np.asarray(square))


def by_distance(atol: float):
    """Neighbours at the same distances; which of several equally near ones is found does not matter."""

    def check(first: Found, second: Found) -> str:
        return close(atol, "distances")(first[1], second[1])

    return check


def same_lines(first: np.ndarray, second: Tensor) -> str:
    """Directions agree up to sign, but for one in a thousand (neighbourhoods without a clear normal)."""
    cosine = np.abs((np.asarray(first) * second.double().numpy()).sum(1))
    worst = float(np.quantile(cosine, 0.001))
    if worst < 0.999:
        raise CheckFailed(f"one in a thousand normals differs by {np.degrees(np.arccos(worst)):.1f} degrees")
    return f"|cos| >= {worst:.6f} on 99.9 %"
