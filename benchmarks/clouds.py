"""Synthetic clouds of the benchmarks, version 1: a bumpy ellipsoid in random point order, the worst for caches."""

from __future__ import annotations

import torch
from torch import Tensor


def bumpy(count: int, seed: int = 0, noise: float = 0.01) -> Tensor:
    """(count, 3) float32 points on a bumpy ellipsoid of about 30 x 20 x 16, with Gaussian noise, in random order."""
    generator = torch.Generator().manual_seed(seed)
    direction = torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=1)
    x, y, z = direction.t()
    stretch = 1 + 0.12 * torch.sin(5 * x) * torch.cos(3 * y) + 0.08 * torch.sin(4 * z + 1)
    axes = torch.tensor([15.0, 10.0, 8.0])
    return direction * axes * stretch[:, None] + noise * torch.randn(count, 3, generator=generator)


def dented(count: int, seed: int, depth: float = 0.6, reach: float = 2.5) -> tuple[Tensor, Tensor]:
    """A `bumpy` cloud with a dent, and (count,) bool: which points lie in it."""
    pos = bumpy(count, seed)
    centre = pos[int(torch.randint(count, (1,), generator=torch.Generator().manual_seed(seed)))]
    away = (pos - centre).norm(dim=1)
    inside = away < reach
    push = depth * torch.cos(away / reach * torch.pi / 2).square() * inside
    return pos * (1 - push / pos.norm(dim=1))[:, None], inside


def features(count: int, dim: int, seed: int = 0) -> Tensor:
    """(count, dim) float32 that look like features: a smooth 6-dimensional sheet in `dim` dimensions, and noise."""
    generator = torch.Generator().manual_seed(seed)
    fixed = torch.Generator().manual_seed(12345)  # the sheet is the same for every seed
    place = torch.randn(count, 6, generator=generator)
    sheet = torch.sin(place @ torch.randn(6, dim, generator=fixed) + torch.rand(dim, generator=fixed))
    return sheet + 0.05 * torch.randn(count, dim, generator=generator)
