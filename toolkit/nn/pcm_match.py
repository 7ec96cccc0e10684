"""Which of the frames that Point Coordinate Mapping may give a cloud agrees with that of another cloud of its class.

A frame hangs on three points. On a part with two ends that reach equally far, or one with a symmetry, noise decides
which of them it is; and the third point, the nearest to the mean that lies off a plane, leaves the sign of the third
axis to chance. (Measured against registration on 8 household parts: between scans of one part the first axis kept its
direction on 5 of them, while the sign of the third was right about half of the time.)

RIF lives with that. Here the frames that other scans of the cloud might have been given are tried on a template, with
all signs of the axes, and the one that lies on it best is refined. The result still does not depend on the pose in
which the cloud came: all of it happens inside the cloud's own frame.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from toolkit.nn.pcm import Basis, pcm
from toolkit.ops import icp, normals
from toolkit.ops.knn import Neighbours
from toolkit.ops.rigid import assemble, transformed

_TRIED, _REFINED = 300, 600  # points of a cloud that are laid on the template, in choosing and in refining
_BEST = 3  # frames refined
_FAR = 0.1  # distances beyond this, on the unit sphere, count as this: a missing piece must not decide


class Template:
    """The points (M, 3) of a cloud in its own frame, on the unit sphere, ready to lay others on."""

    def __init__(self, points: Tensor):
        self.search = Neighbours(points)
        self.normal = normals(points, k=min(16, len(points)), orient="none")

    def misfit(self, points: Tensor, pose: Tensor) -> float:
        """Mean squared distance of (N, 3) points under a (4, 4) pose."""
        away = self.search.find(transformed(points, pose), 1)[1]
        return float(away.clamp_max(_FAR).square().mean())


def frames(points: Tensor, count: int, *, noise: float, tol: float = 0.1, basis: Basis = "far-far-near",
           generator: torch.Generator) -> list[Tensor]:  # fmt: skip
    """Frames that other scans of the same object might be given.

    Args:
        points: (M, 3) in their own frame.
        count: how many; the first is their own.
        noise: standard deviation of the points of a scan, in the unit of the points. Each scan has half of them.
        tol, basis: see `toolkit.nn.pcm.pcm`.
        generator: source of the scans.

    Returns:
        (3, 3) float64 each, rows are axes in the coordinates of ``points``.
    """
    found = [torch.eye(3, dtype=torch.float64)]
    while len(found) < count:
        half = points[torch.rand(len(points), generator=generator) < 0.5]
        scan = half + noise * torch.randn(half.shape, generator=generator)
        found.append(pcm(scan if len(scan) > 2 else points, tol=tol, basis=basis).axes)
    return found


def match(points: Tensor, template: Template, axes: list[Tensor]) -> Tensor:
    """The pose in which a cloud lies best on a template.

    Args:
        points: (M, 3) in their own frame, on the unit sphere.
        template: of the class.
        axes: (3, 3) frames to try, see `frames`. All signs of their axes are tried too, mirrored ones included: two
            frames of one object may differ in handedness.

    Returns:
        (4, 4) float64, orthogonal up to the shift.
    """
    nowhere = torch.zeros(3, dtype=torch.float64)
    signs = [torch.tensor(s, dtype=torch.float64) for s in itertools.product((1.0, -1.0), repeat=3)]
    poses = [assemble(sign[:, None] * frame, nowhere) for frame in axes for sign in signs]
    few = points[:: -(-len(points) // _TRIED)]
    best = sorted(poses, key=lambda pose: template.misfit(few, pose))[:_BEST]
    more = points[:: -(-len(points) // _REFINED)]
    best += [icp(more, template.search, template.normal, pose, distance=_FAR, iterations=15, tolerance=1e-4)
             for pose in best]  # fmt: skip
    return min(best, key=lambda pose: template.misfit(more, pose))
