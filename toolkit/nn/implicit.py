"""Distance fields: grids of learned features, or features of a cloud, read at any place and decoded to a distance.

``GridField``: features of a place are read from dense grids of several resolutions, trilinearly, as in NGLOD (Takikawa
et al., CVPR 2021), whose levels are octrees and are summed; here they are dense and put side by side. Each class has
grids of its own, the decoder is shared.

``CloudField``: the grids are computed from a cloud (means over cells, then two convolutions), as in convolutional
occupancy networks (Peng et al., ECCV 2020), plus one global feature. All weights are shared by all classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import grid_sample, relu
from torch_geometric.utils import scatter

EDGE = 1.15
"""The grids fill a cube of this half-side, in units of the template's radius: the surface stays clear of its walls."""


class GridField(nn.Module):
    """Dense feature grids per class and a decoder shared by all.

    Args:
        resolutions: cells per side of each level.
        channels: features per node.
        width: of the decoder's two hidden layers.
    """

    def __init__(self, resolutions: Sequence[int], channels: int, width: int):
        super().__init__()
        self.resolutions, self.channels = tuple(resolutions), channels
        self.names: list[str] = []
        self.grids = nn.ParameterList()
        self.decoder = _decoder(3 + channels * len(self.resolutions), width)

    def add(self, name: str, generator: torch.Generator | None = None) -> None:
        """Make the grids of a new class, with small random features; a known class keeps its own."""
        if name in self.names:
            return
        self.names.append(name)
        device = next(self.decoder.parameters()).device
        for cells in self.resolutions:
            nodes = torch.randn(1, self.channels, *[cells + 1] * 3, generator=generator) * 0.01
            self.grids.append(nn.Parameter(nodes.to(device)))

    def forward(self, query: Tensor, name: str) -> Tensor:
        """(Q,) distances at (Q, 3) places in the field of a class; of one never added, by the decoder alone."""
        levels = len(self.resolutions)
        if name in self.names:
            first = self.names.index(name) * levels
            read = [trilinear(self.grids[first + level], query[None])[0] for level in range(levels)]
        else:
            read = [query.new_zeros(query.shape[0], self.channels * levels)]
        return self.decoder(torch.cat([query, *read], 1))[:, 0]


class CloudField(nn.Module):
    """A field computed from the points of a cloud.

    Args:
        resolutions: cells per side of each level.
        channels: features per cell.
        width: of the decoder's two hidden layers.
    """

    def __init__(self, resolutions: Sequence[int], channels: int, width: int):
        super().__init__()
        self.resolutions = tuple(resolutions)
        self.point = nn.Sequential(nn.Linear(3, 2 * channels), nn.ReLU(), nn.Linear(2 * channels, channels))
        self.place = nn.ModuleList(nn.Linear(channels + 4, channels) for _ in self.resolutions)
        self.mix = nn.ModuleList(
            nn.Sequential(
                nn.Conv3d(channels, channels, 3, padding=1), nn.ReLU(), nn.Conv3d(channels, channels, 3, padding=1)
            )
            for _ in self.resolutions
        )
        self.whole = nn.Sequential(nn.Linear(channels, 2 * channels), nn.ReLU(), nn.Linear(2 * channels, 2 * channels))
        self.decoder = _decoder(3 + channels * (len(self.resolutions) + 2), width)

    def forward(self, query: Tensor, cloud: Tensor) -> Tensor:
        """(Q,) distances at (Q, 3) places in the field of a cloud (N, 3)."""
        feature = self.point(cloud)
        read = [self.whole(feature).amax(0).expand(query.shape[0], -1)]
        for cells, place, mix in zip(self.resolutions, self.place, self.mix):
            inside = (cloud.clamp(-EDGE, EDGE) / EDGE + 1) / 2 * cells
            corner = inside.long().clamp(max=cells - 1)
            offset = torch.cat([inside - corner - 0.5, torch.ones_like(inside[:, :1])], 1)
            index = (corner[:, 2] * cells + corner[:, 1]) * cells + corner[:, 0]
            mean = scatter(relu(place(torch.cat([feature, offset], 1))), index, 0, cells**3, reduce="mean")
            volume = mix(mean.t().reshape(1, -1, cells, cells, cells))
            read.append(trilinear(volume, query[None], nodes=False)[0])
        return self.decoder(torch.cat([query, *read], 1))[:, 0]


def trilinear(grid: Tensor, query: Tensor, *, nodes: bool = True) -> Tensor:
    """Read grids that fill the cube of half-side `EDGE`; beyond its walls, the value at the wall.

    Args:
        grid: (B, C, D, H, W), axes z, y, x.
        query: (B, Q, 3) places x, y, z.
        nodes: the values belong to corners of cells; False: to their centres.

    Returns:
        (B, Q, C).
    """
    where = (query / EDGE)[:, :, None, None]
    read = grid_sample(grid, where, align_corners=nodes, padding_mode="border")
    return read[..., 0, 0].transpose(1, 2)


def _decoder(inputs: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1))
