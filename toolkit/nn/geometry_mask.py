"""Geometry-aware masks of MC3D-AD: hide the tokens where the surface varies most, or least.

Source: Cheng et al., "MC3D-AD", IJCAI 2025. Verified in the released code: centres within 7 mean distances to the
nearest neighbour; normals by PCA of them, pointed away from the centroid; curvature = smallest eigenvalue over their
sum; score = mean angle to the neighbours' normals + 10 times the mean difference to their curvatures; the 40 % of
tokens with the largest or, by the toss of a coin, the smallest scores are hidden. A centre with fewer than three within
the radius (itself counted) has score 0 (ours). Neighbours beyond the nearest `MOST` are left out to bound memory.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from toolkit.ops import knn, radius

MOST = 256
"""Neighbours looked at: 7 spacings hold some 150 centres of an even surface."""


def geometry_variation(centre: Tensor, eta: float = 7.0, curvature_weight: float = 10.0) -> Tensor:
    """How much normals and curvature vary around each centre.

    Args:
        centre: (G, 3), at least two.
        eta: radius of a neighbourhood in mean distances to the nearest neighbour.
        curvature_weight: of the curvature's part.

    Returns:
        (G,), at least 0. It does not depend on pose or scale.
    """
    spacing = float(knn(centre, centre, 2)[1][:, 1].mean())
    if spacing == 0:
        return torch.zeros(centre.shape[0])
    index, distance = radius(centre, centre, eta * spacing, min(MOST, centre.shape[0]))
    inside = torch.isfinite(distance)
    count = inside.sum(1)
    near = centre[index.clamp_min(0)].double()
    weight = inside[..., None].double()
    middle = (near * weight).sum(1) / count[:, None]
    spread = (near - middle[:, None]) * weight
    value, vector = torch.linalg.eigh(spread.transpose(1, 2) @ spread)
    normal = vector[..., 0]
    normal = normal * torch.where(((centre - centre.mean(0)) * normal).sum(1) < 0, -1.0, 1.0)[:, None]
    curvature = value[:, 0] / (value.sum(1) + 1e-8)
    cosine = (normal[index.clamp_min(0)] * normal[:, None]).sum(-1).clamp(-1, 1)
    angle = (torch.acos(cosine) * inside).sum(1) / count
    bend = ((curvature[index.clamp_min(0)] - curvature[:, None]).abs() * inside).sum(1) / count
    return torch.where(count >= 3, angle + curvature_weight * bend, 0.0).float()


def hidden_tokens(variation: Tensor, share: float, largest: Tensor) -> Tensor:
    """(B, G) bool, the tokens to hide.

    Args:
        variation: (B, G).
        share: of the tokens.
        largest: (B,) bool, hide those with the largest variation, else those with the smallest.
    """
    count = math.floor(share * variation.shape[1])
    order = torch.where(largest[:, None], -variation, variation).argsort(dim=1, stable=True)
    return torch.zeros_like(variation, dtype=torch.bool).scatter_(1, order[:, :count], True)
