"""Sparse U-Net over voxels: the trunk of PO3AD and, with gated skips, of MC4AD.

Source: MinkUNet34C of MinkowskiEngine (Choy et al., "4D Spatio-Temporal ConvNets", CVPR 2019) as PO3AD's and MC4AD's
code builds it; gate: "GMRSkip" of MC4AD (Liang et al., arXiv 2505.05901; its 3x3x3 kernel is known from an early upload
only). Structure and sizes verified in the authors' code, parameter counts in our tests. Nothing is left out; here level
0 is the finest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from toolkit.errors import HyperparameterError
from toolkit.nn.sparse_conv import KernelMap, SparseConv, down_map, same_map


@dataclass(frozen=True, eq=False)
class Pyramid:
    """Rulebooks of a batch of clouds for one U-Net.

    Attributes:
        stem: of the first convolution.
        same: of 3x3x3 convolutions, per level; on level 0 that of the stem if it has the same kernel.
        down: from each level to the next.
    """

    stem: KernelMap
    same: list[KernelMap]
    down: list[KernelMap]

    @classmethod
    def of(cls, cell: Tensor, depth: int, stem: int) -> Pyramid:
        """All maps for (V, 4) voxels, `depth` halvings and a first kernel of edge `stem`."""
        same, down = [same_map(cell, 3)], []
        first = same[0] if stem == 3 else same_map(cell, stem)
        for _ in range(depth):
            cell, halved = down_map(cell)
            down.append(halved)
            same.append(same_map(cell, 3))
        return cls(first, same, down)


class BasicBlock(nn.Module):
    """ResNet's basic block with sparse convolutions."""

    def __init__(self, channels: int, out: int):
        super().__init__()
        self.conv1, self.norm1 = SparseConv(channels, out, 3), nn.BatchNorm1d(out)
        self.conv2, self.norm2 = SparseConv(out, out, 3), nn.BatchNorm1d(out)
        self.shortcut: nn.Module = nn.Identity()
        if channels != out:
            self.shortcut = nn.Sequential(nn.Linear(channels, out, bias=False), nn.BatchNorm1d(out))

    def forward(self, value: Tensor, same: KernelMap) -> Tensor:
        """(V, C) to (V, C')."""
        inner = self.norm1(self.conv1(value, same)).relu()
        return (self.norm2(self.conv2(inner, same)) + self.shortcut(value)).relu()


class GatedSkip(nn.Module):
    """GMRSkip: the decoder's rows, renewed, and the encoder's complement each other, in shares decided voxel by voxel.

    ``e = W enc``, ``g = conv3(dec)``, ``a = sigmoid(w g)``, result ``a e + (1 - a) g``. No norm, no activation.
    """

    def __init__(self, encoder: int, decoder: int):
        super().__init__()
        self.embed = nn.Linear(encoder, decoder, bias=False)
        self.renew = SparseConv(decoder, decoder, 3)
        self.gate = nn.Linear(decoder, 1, bias=False)

    def forward(self, encoder: Tensor, decoder: Tensor, same: KernelMap) -> Tensor:
        """(V, E) and (V, D) to (V, D)."""
        renewed = self.renew(decoder, same)
        share = self.gate(renewed).sigmoid()
        return share * self.embed(encoder) + (1 - share) * renewed


@dataclass(frozen=True)
class UNetSize:
    """Sizes of a `SparseUNet`.

    Attributes:
        stem: channels of the first convolution.
        stem_kernel: its edge.
        down: channels of each level going down.
        down_blocks: basic blocks of each.
        up: channels of each level going up, the coarsest first.
        up_blocks: basic blocks of each.
        out: channels of the result.
    """

    stem: int
    stem_kernel: int
    down: Sequence[int]
    down_blocks: Sequence[int]
    up: Sequence[int]
    up_blocks: Sequence[int]
    out: int

    def __post_init__(self) -> None:
        if not len(self.down) == len(self.down_blocks) == len(self.up) == len(self.up_blocks) > 0:
            raise HyperparameterError(f"UNetSize: expected as many levels down as up, got {self}.")


class SparseUNet(nn.Module):
    """U-Net on voxels.

    Args:
        channels: of the input.
        size: of the network.
        gated: put a `GatedSkip` at each level going up.
    """

    def __init__(self, channels: int, size: UNetSize, *, gated: bool = False):
        super().__init__()
        self.size = size
        self.stem, self.stem_norm = SparseConv(channels, size.stem, size.stem_kernel), nn.BatchNorm1d(size.stem)
        self.down, self.down_norm, self.encoder = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        width, skips = size.stem, [size.stem]
        for planes, blocks in zip(size.down, size.down_blocks):
            self.down.append(SparseConv(width, width, 2))
            self.down_norm.append(nn.BatchNorm1d(width))
            self.encoder.append(_blocks(width, planes, blocks))
            width = planes
            skips.append(planes)
        self.up, self.up_norm, self.decoder = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        self.gates = nn.ModuleList()
        for planes, blocks, skip in zip(size.up, size.up_blocks, skips[-2::-1]):
            self.up.append(SparseConv(width, planes, 2))
            self.up_norm.append(nn.BatchNorm1d(planes))
            if gated:
                self.gates.append(GatedSkip(skip, planes))
            self.decoder.append(_blocks(planes + skip, planes, blocks))
            width = planes
        self.final = nn.Linear(width, size.out)

    def pyramid(self, cell: Tensor) -> Pyramid:
        """The rulebooks this network needs for (V, 4) voxels."""
        return Pyramid.of(cell, len(self.down), self.size.stem_kernel)

    def forward(self, value: Tensor, maps: Pyramid) -> Tensor:
        """(V, C) input rows to (V, out) rows of the same voxels."""
        value = self.stem_norm(self.stem(value, maps.stem)).relu()
        skips = [value]
        for level, (down, norm, blocks) in enumerate(zip(self.down, self.down_norm, self.encoder)):
            value = norm(down(value, maps.down[level])).relu()
            for block in blocks:  # type: ignore[attr-defined]
                value = block(value, maps.same[level + 1])
            skips.append(value)
        skips.pop()
        for step, (up, norm, blocks) in enumerate(zip(self.up, self.up_norm, self.decoder)):
            level = len(self.up) - 1 - step
            skip, same = skips.pop(), maps.same[level]
            value = norm(up(value, maps.down[level].transposed)).relu()
            if len(self.gates):
                value = self.gates[step](skip, value, same)
            value = torch.cat([value, skip], 1)
            for block in blocks:  # type: ignore[attr-defined]
                value = block(value, same)
        return self.final(value)


def _blocks(channels: int, out: int, count: int) -> nn.ModuleList:
    return nn.ModuleList(BasicBlock(channels if i == 0 else out, out) for i in range(count))
