"""Base of methods that lay every cloud on a template of its class before anything else.

Reg3D-AD (Liu et al., NeurIPS 2023) and its kin register each cloud to one training cloud of its class. The same here,
by `toolkit.ops.register`; the first cloud of a class that training meets is its template and is kept for good (thinned
where it is dense), also by methods that otherwise keep no old data.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from toolkit.cloud import PointCloud
from toolkit.ops import diagonal, voxel_downsample
from toolkit.ops.register import Template, register
from toolkit.store import key_of
from toolkit.strategy import AnomalyStrategy

THIN = 0.004
"""Grid, relative to the diagonal, on which templates of more than `KEEP` points are thinned: below all that is asked of
them, and 20,000 to 60,000 points on most parts."""
KEEP = 20_000


class RegisteredStrategy(AnomalyStrategy):
    """Keeps a template per class; `place` gives a cloud's points in its frame, on the unit sphere of the template.

    ``prepare`` of a subclass calls `place`; names of arguments that it depends on, ``registration`` among them, go into
    ``prepare_arguments``.

    Args:
        registration: lay every cloud on the stored template of its class; False only centres and scales it.
    """

    def __init__(self, *, registration: bool = True, **base: Any):
        self.registration = registration
        super().__init__(**base)
        self.templates_: dict[str, Tensor] = {}
        self._ready: dict[str, tuple[Tensor, Template]] = {}
        self._hashed: dict[str, tuple[Tensor, str]] = {}  # a training step asks for it once per cloud

    def meet(self, clouds: Sequence[PointCloud]) -> None:
        """Keep the first cloud of each new class as its template."""
        super().meet(clouds)
        for cloud in clouds:
            if cloud.category not in self.templates_:
                dense = cloud.pos.shape[0] > KEEP
                self.templates_[cloud.category] = (
                    voxel_downsample(cloud.pos, THIN * diagonal(cloud.pos)) if dense else cloud.pos.clone()
                )

    def prepare_key(self, cloud: PointCloud) -> str:
        """The template, which decides pose and scale."""
        template = self.templates_.get(cloud.category)
        if template is None:
            return super().prepare_key(cloud)
        hashed = self._hashed.get(cloud.category)
        if hashed is None or hashed[0] is not template:
            hashed = self._hashed[cloud.category] = (template, key_of(template))
        return super().prepare_key(cloud) + hashed[1]

    def place(self, cloud: PointCloud, points: Tensor | None = None) -> Tensor:
        """(N, 3) points of a raw cloud in the template's pose, centred on its mean and divided by its radius.

        A cloud of a class without template is centred on its own mean and divided by its own radius.

        Args:
            cloud: what is laid on the template.
            points: (M, 3) points in the cloud's frame to carry along; the cloud's own if None.
        """
        points = cloud.pos if points is None else points
        target = self.templates_.get(cloud.category)
        if target is None:
            return unit_sphere(cloud.pos, points)
        centre = target.mean(0)
        radius = (target - centre).norm(dim=1).max().clamp_min(1e-12)
        if not self.registration:
            return (points - cloud.pos.mean(0)) / radius
        if cloud.pos.shape == target.shape and torch.equal(cloud.pos, target):
            return (points - centre) / radius
        kept = self._ready.get(cloud.category)
        if kept is None or kept[0] is not target:
            kept = self._ready[cloud.category] = (target, Template(target))
        return (register(cloud.pos, kept[1], seed=self.seed).apply(points) - centre) / radius


def unit_sphere(pos: Tensor, points: Tensor | None = None) -> Tensor:
    """(N, 3) points, `pos` itself if None, less the mean of `pos`, divided by its largest distance from it."""
    mean = pos.mean(0)
    radius = (pos - mean).norm(dim=1).max().clamp_min(1e-12)
    return ((pos if points is None else points) - mean) / radius
