"""What is kept of prepared clouds between epochs, and by what a cloud is known again."""

from __future__ import annotations

import hashlib
from collections import OrderedDict

import numpy as np

from toolkit.cloud import PointCloud


class Memory:
    """Prepared clouds by key; the one not used for longest goes first.

    Args:
        limit: bytes; the newest cloud is kept even if it is larger.
    """

    def __init__(self, limit: int = 512 << 20):
        self.limit = limit
        self.bytes = 0
        self._clouds: OrderedDict[str, PointCloud] = OrderedDict()

    def get(self, key: str) -> PointCloud | None:
        """The cloud of that key, if it is there."""
        found = self._clouds.get(key)
        if found is not None:
            self._clouds.move_to_end(key)
        return found

    def put(self, key: str, cloud: PointCloud) -> None:
        """Keep a cloud, and forget others as far as it needs their room."""
        self._clouds[key] = cloud
        self.bytes += cloud.nbytes()
        while self.bytes > self.limit and len(self._clouds) > 1:
            self.bytes -= self._clouds.popitem(last=False)[1].nbytes()

    def clear(self) -> None:
        """Forget all."""
        self._clouds.clear()
        self.bytes = 0


def facts_of(cloud: PointCloud) -> PointCloud:
    """A cloud without its tensors but for labels; of these, a normal cloud's take no memory."""
    facts = cloud.clone_shallow()
    for key in cloud.tensors():
        if key != "point_y":
            del facts[key]
        elif not bool(cloud.point_y.any()):
            facts.point_y = cloud.point_y.new_zeros(1).expand(cloud.point_y.shape)
    return facts


def content_hash(cloud: PointCloud) -> str:
    """Hash of the coordinates, colours and normals of a cloud."""
    digest = hashlib.sha1()
    for name in ("pos", "rgb", "normal"):
        if name in cloud:
            digest.update(np.ascontiguousarray(cloud[name].numpy()).data)
    return digest.hexdigest()
