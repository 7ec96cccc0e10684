"""Nearest neighbours of points.

Up to 8 dimensions: a k-d tree on the CPU (pykdtree; scipy's where that is missing and for few queries in a large
cloud), tiles of distances that stay small on a GPU; both measure coordinate differences, not ``|a|^2 - 2ab + |b|^2``,
which loses digits. More dimensions: the matrix products of `bank_nearest`, whose answers are measured again.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from toolkit.errors import CloudError, HyperparameterError
from toolkit.ops.bank import bank_nearest
from toolkit.ops.check import check_points
from toolkit.ops.morton import morton_order

TREE_DIM = 8
"""Above this dimension a k-d tree looks at nearly every point."""

_TILE = 2**24  # distances held at a time
_SORT_FROM = 2**15  # queries from which spatial sorting gains more than it costs


def knn(pos: Tensor, query: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The ``k`` points nearest to each query, nearest first.

    Args:
        pos: (N, D) points to search.
        query: (Q, D) where to search; may be ``pos`` itself, each point then finds itself at distance 0.
        k: neighbours per query, 1 to N.

    Returns:
        index (Q, k) int64 into ``pos`` and Euclidean distance (Q, k) float32. Equal distances come in any order.

    Raises:
        CloudError: fewer than ``k`` points, different dimensions, NaN or infinite values.
        HyperparameterError: ``k`` < 1.
    """
    if k < 1:
        raise HyperparameterError(f"knn: expected k >= 1, got {k}.")
    pos = check_points(pos, "knn: pos")
    query = pos if query is pos else check_points(query, "knn: query", minimum=0)
    if query.shape[1] != pos.shape[1]:
        raise CloudError(f"knn: points have {pos.shape[1]} dimensions but queries have {query.shape[1]}.")
    if pos.shape[0] < k:
        raise CloudError(f"knn: k = {k} neighbours asked of {pos.shape[0]} points. Use a smaller k or a denser cloud.")
    if query.shape[0] == 0:
        return query.new_empty((0, k), dtype=torch.long), query.new_empty((0, k), dtype=torch.float32)
    if pos.shape[1] > TREE_DIM:
        distance, index = bank_nearest(pos, query, k=k, bf16=False)
        return index, distance
    if pos.device.type != "cpu":
        return _tiled(pos, query.to(pos.dtype), k)
    return _tree(pos, query.to(pos.dtype), k)


def _tree(pos: Tensor, query: Tensor, k: int) -> tuple[Tensor, Tensor]:
    size = query.shape[0]
    order: np.ndarray | slice = slice(None)
    if size >= _SORT_FROM and query.shape[1] == 3:
        order = morton_order(query).numpy()  # neighbouring queries walk the same branches: twice as fast at 100,000
    found, away = _query(pos.numpy(), query.numpy()[order], k)
    index, distance = np.empty((size, k), np.int64), np.empty((size, k), np.float32)
    index[order] = found.reshape(size, k)
    distance[order] = away.reshape(size, k)
    return torch.from_numpy(index), torch.from_numpy(distance)


def _query(points: np.ndarray, query: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    if len(points) >= _SORT_FROM and len(query) < len(points) // 16:
        # Building the tree is what takes the time: this kind is built in half of it and no slower to search.
        from scipy.spatial import cKDTree

        tree = cKDTree(points, leafsize=32, balanced_tree=False, compact_nodes=False)
    else:
        tree = _built(points)
    distance, found = tree.query(query, k=k)
    return found, distance


def _built(points: np.ndarray) -> Any:
    """A k-d tree whose ``query(query, k=k)`` returns distances and indices."""
    try:
        from pykdtree.kdtree import KDTree
    except ImportError:  # no wheel for this platform
        from scipy.spatial import cKDTree

        return cKDTree(points)
    return KDTree(points)


class Neighbours:
    """A cloud that is searched many times: its tree is built once. Searches give what `knn` gives.

    Args:
        pos: (N, D) points to search.

    Raises:
        CloudError: no points, NaN or infinite values.
    """

    def __init__(self, pos: Tensor):
        self.pos = check_points(pos, "Neighbours: pos")
        on_tree = self.pos.device.type == "cpu" and self.pos.shape[1] <= TREE_DIM
        self._tree = _built(self.pos.numpy()) if on_tree else None

    def __reduce__(self) -> tuple[Any, ...]:
        return Neighbours, (self.pos,)  # trees can be neither copied nor stored

    def find(self, query: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Index (Q, k) and distance (Q, k) of the ``k`` points nearest to each of (Q, D) queries, as `knn`."""
        if self._tree is None or not 1 <= k <= self.pos.shape[0] or query.shape[0] >= _SORT_FROM:
            return knn(self.pos, query, k)
        query = check_points(query, "Neighbours: query", dim=self.pos.shape[1], minimum=0).to(self.pos.dtype)
        if query.shape[0] == 0:
            return knn(self.pos, query, k)
        distance, found = self._tree.query(query.numpy(), k=k)
        shape = (query.shape[0], k)
        return (torch.from_numpy(found.astype(np.int64).reshape(shape)),
                torch.from_numpy(distance.astype(np.float32).reshape(shape)))  # fmt: skip


def _tiled(pos: Tensor, query: Tensor, k: int) -> tuple[Tensor, Tensor]:
    indices, distances = [], []
    for part in query.split(max(1, _TILE // pos.shape[0])):
        tile = torch.cdist(part, pos, compute_mode="donot_use_mm_for_euclid_dist")
        distance, index = tile.topk(k, dim=1, largest=False, sorted=True)
        indices.append(index)
        distances.append(distance.float())
    return torch.cat(indices), torch.cat(distances)
