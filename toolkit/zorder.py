"""Large clouds are worked on in the order of a space-filling curve and answered in the order of their file.

Neighbours in space then lie near each other in memory, which makes searches among a million points about twice as fast
(see BENCHMARKS.md). Sorting happens once, when a cloud is read into the cache; ``file_order`` says where each point
stood in its file.
"""

from __future__ import annotations

from torch import Tensor

from toolkit.cloud import PointCloud

SORT_FROM = 2**15
"""Smaller clouds stay as they are: they fit into a processor's cache, and sorting gains nothing."""


def in_z_order(cloud: PointCloud) -> PointCloud:
    """A cloud of at least `SORT_FROM` points sorted along the curve; a smaller or sorted one as it is.

    Returns:
        A cloud whose tensors of one entry per point are all in the new order, with ``file_order`` (N,) int32, the place
        of each point in the file.
    """
    size = cloud.pos.shape[0]
    if size < SORT_FROM or "file_order" in cloud:
        return cloud
    from toolkit.ops import morton_order

    order = morton_order(cloud.pos)
    placed = cloud.clone_shallow()
    for name, value in cloud.tensors().items():
        if value.dim() and value.shape[0] == size:
            placed[name] = value[order]
    placed.file_order = order.int()
    return placed


def in_file_order(cloud: PointCloud, value: Tensor) -> Tensor:
    """(N,) values of the points of a cloud in the order in which its file lists them.

    Where points were left out since (half scans, thinned clouds), the others keep that order.
    """
    if "file_order" not in cloud:
        return value
    return value[cloud.file_order.argsort()]
