"""The apprentice encoder of GMANet: what a point group should look like, from its points, its place and its neighbours.

The paper's layers are unpublished, hence inferred: three EdgeConv blocks (Wang et al., "Dynamic Graph CNN", 2019) on a
neighbour graph. Here its nodes are the expert's groups: a mini-PointNet describes the points of a group, random Fourier
features its place, and the blocks bring in the surroundings. All outputs together give the answer.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch_geometric.nn import MLP, EdgeConv

from toolkit.nn.reconstruction import FourierPosition


class Apprentice(nn.Module):
    """Groups of points on a graph to tokens.

    Args:
        tokens: channels of the answer.
        widths: of the EdgeConv blocks; the first is also that of a group's description.
        frequencies: random waves of the positional embedding.
    """

    def __init__(self, tokens: int, widths: Sequence[int] = (64, 64, 128), frequencies: int = 64):
        super().__init__()
        first = widths[0]
        plain: dict[str, object] = dict(norm="layer_norm", norm_kwargs={"mode": "node"}, plain_last=True)
        self.points = MLP([3, first // 2, first], **plain)
        self.place = FourierPosition(frequencies, first)
        self.start = MLP([2 * first, first], norm=None, plain_last=True)
        blocks = [MLP([2 * a, b, b], **plain) for a, b in zip((first, *widths), widths)]
        self.blocks = nn.ModuleList([EdgeConv(block, aggr="max") for block in blocks])
        self.head = MLP([first + sum(widths), max(widths), tokens], **plain)

    def forward(self, patch: Tensor, pos: Tensor, edges: Tensor) -> Tensor:
        """Tokens.

        Args:
            patch: (M, K, 3) points of each group in its own frame and scale.
            pos: (M, 3) its centre.
            edges: (2, E) from neighbouring groups (first row) to groups (second row).

        Returns:
            (M, tokens).
        """
        described = self.points(patch.flatten(0, 1)).view(*patch.shape[:2], -1).amax(1)
        found = [self.start(torch.cat([described, self.place(pos)], 1))]
        for block in self.blocks:
            found.append(block(found[-1], edges).relu())
        return self.head(torch.cat(found, 1))
