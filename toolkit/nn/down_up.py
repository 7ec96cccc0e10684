"""Down-Net and Up-Net: noisy patches -> centres without the noise -> a dense cloud; and their losses.

Paper: Liang et al., "Taming Anomalies with Down-Up Sampling Networks", ACM MM 2025 (DUS-Net); layer widths of the
up-sampling branches as in its pipeline figure. `strategies.dusnet` says what is known and what is not.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from toolkit.nn.reconstruction import Reconstruction
from toolkit.ops import interpolate, knn

NEAR = 16
"""Centres that an aggregation step looks at."""


@dataclass(frozen=True)
class DownUpSize:
    """Sizes of both nets.

    Attributes:
        width: of the tokens and the transformer.
        feedforward: of its MLPs.
        depth: layers of its encoder, and of its decoder.
        heads: of its attention.
        scale: factor on the widths of the Up-Net; 1 = those of the figure.
    """

    width: int
    feedforward: int
    depth: int
    heads: int
    scale: float


class DownNet(nn.Module):
    """PointNet of each patch, transformer over the patches, MLP to the way from each patch's middle to its centre.

    Args:
        size: of the net.
        skip: the last MLP sees the token of the patch itself, too, not only what the transformer's decoder makes of
            all, which starts from positions.
    """

    def __init__(self, size: DownUpSize, skip: bool):
        super().__init__()
        w = size.width
        self.point = nn.Sequential(nn.Linear(3, w // 2), nn.ReLU(), nn.Linear(w // 2, w))
        self.patch = nn.Sequential(nn.Linear(2 * w, w), nn.ReLU(), nn.Linear(w, w))
        self.transformer = Reconstruction(w, w, size.feedforward, size.depth, position=w // 2, dropout=0.0, jitter=0.0,
                                          attention="softmax", heads=size.heads)  # fmt: skip
        self.centre = nn.Sequential(nn.Linear(w + w * skip, w), nn.ReLU(), nn.Linear(w, 3))
        self.skip = skip

    def forward(self, patch: Tensor, middle: Tensor) -> Tensor:
        """(B, G, 3) from patches (B, G, K, 3) relative to their middles (B, G, 3)."""
        point = self.point(patch)
        whole = point.amax(2, keepdim=True).expand_as(point)
        token = self.patch(torch.cat([point, whole], -1)).amax(2)
        seen = self.transformer(token, middle)
        return self.centre(torch.cat([seen, token], -1) if self.skip else seen)


class UpNet(nn.Module):
    """Three scales of features of the centres, carried back to all centres, fused, and expanded to r points each.

    Args:
        inputs: channels of a centre.
        expand: r.
        scale: factor on the widths.
    """

    def __init__(self, inputs: int, expand: int, scale: float):
        super().__init__()
        a, b, c = (max(4, round(scale * w)) for w in (64, 128, 256))
        self.gather = nn.ModuleList([_mlp(3 + inputs, b, b), _mlp(3 + b, c, c)])
        self.branch = nn.ModuleList([_mlp(inputs, a, a, 3), _mlp(b, 2 * b, 2 * b, b), _mlp(c, 2 * c, 2 * c, c)])
        self.fuse = nn.ModuleList([_mlp(c + b, b), _mlp(b + 3, b)])
        self.predict = _mlp(2 * b, c, b, 3 * expand)
        self.expand = expand

    def forward(self, centre: Tensor, value: Tensor) -> Tensor:
        """(G, r, 3) from the centres (G, 3) of one cloud, in the order of farthest point sampling, with values (G, C).

        That order is nested: its first half and first quarter are samples, too.
        """
        scales = [self.branch[0](value)]
        points = centre
        for level, gather in enumerate(self.gather):
            fewer = points[: (points.shape[0] + 1) // 2]
            near = knn(points, fewer, min(NEAR, points.shape[0]))[0]
            about = torch.cat([points[near] - fewer[:, None], value[near]], -1)
            points, value = fewer, gather(about).amax(1)
            scales.append(self.branch[level + 1](interpolate(value, points, centre, k=3)))
        fine, middle, coarse = scales
        fused = [self.fuse[0](torch.cat([coarse, middle], 1)), self.fuse[1](torch.cat([middle, fine], 1))]
        return self.predict(torch.cat(fused, 1)).view(-1, self.expand, 3)


def _mlp(*widths: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for one, two in itertools.pairwise(widths):
        layers += [nn.Linear(one, two), nn.ReLU()]
    return nn.Sequential(*(layers if len(widths) == 2 else layers[:-1]))


class DownUpNet(nn.Module):
    """Both, with predictions as ways from where points are expected, in a unit in which they are about 1.

    Without ``growing`` only the Down-Net works, and points stay where they are expected around its centres.

    Args:
        size: of both.
        expand: points per centre.
        unit: length that an output of 1 stands for.
        anchored: the Up-Net is told how far the Down-Net has moved a centre, too, as its `start` does not say it.
        joint: the loss of the Up-Net trains the Down-Net as well.
        skip: see `DownNet`.
    """

    def __init__(self, size: DownUpSize, expand: int, unit: float, *, anchored: bool = True, joint: bool = False,
                 skip: bool = True):  # fmt: skip
        super().__init__()
        self.unit, self.anchored, self.joint = unit, anchored, joint
        self.down, self.up = DownNet(size, skip), UpNet(6 if anchored else 3, expand, size.scale)
        self.growing = True
        # Begin with what is known: centres and points are where they are expected.
        for last in (self.down.centre[-1], self.up.predict[-1]):
            assert isinstance(last, nn.Linear)
            nn.init.normal_(last.weight, std=1e-3)
            nn.init.zeros_(last.bias)

    def forward(self, patch: Tensor, middle: Tensor, start: Tensor, frame: Tensor) -> tuple[Tensor, Tensor]:
        """Centres (B, G, 3) and dense points (B, G r, 3).

        Args:
            patch: (B, G, K, 3) points relative to the middle of their patch.
            middle: (B, G, 3) where patches are.
            start: (B, G, r, 3) where the points of each centre are expected, relative to the middle of its patch.
            frame: (B, G, 3, 3) axes of each patch as columns, in which both nets see and answer.
        """
        local = self.down(patch @ frame / self.unit, middle)
        way = (local[..., None, :] @ frame.transpose(2, 3))[..., 0, :] * self.unit
        centre = middle + way
        seen = way if self.joint else way.detach()
        if not self.growing:
            return centre, ((middle + seen)[:, :, None] + start).flatten(1, 2)
        told = local if self.joint else local.detach()
        dense = []
        for place, begin, axes, answer in zip(middle + seen, start, frame, told):
            value = torch.cat([place, answer], 1) if self.anchored else place
            grown = self.up(place.detach(), value) @ axes.transpose(1, 2) * self.unit
            dense.append((place[:, None] + begin + grown).flatten(0, 1))
        return centre, torch.stack(dense)


def cosine_gap(predicted: Tensor, target: Tensor, least: float = 0.05) -> Tensor:
    """Mean of 1 - cosine between positions (M, 3), but for those nearer to 0 than `least`, which have no direction."""
    far = target.norm(dim=1) >= least
    if not bool(far.any()):
        return predicted.sum() * 0
    return (1 - nn.functional.cosine_similarity(predicted[far], target[far], dim=1)).mean()


def repulsion(points: Tensor, spacing: float, k: int = 4) -> Tensor:
    """How crowded points (M, 3) are: mean of ``(1.2 - d) exp(-d^2 / 0.5^2)`` over each one's k nearest, d in spacings.

    PU-Net's repulsion loss (Yu et al., CVPR 2018) as its PyTorch port has it, with lengths in spacings of the target
    instead of its constants for patches in a unit sphere.
    """
    near = knn(points, points, min(k + 1, points.shape[0]))[0][:, 1:]
    gap = (points[:, None] - points[near]).square().sum(2) / spacing**2
    distance = gap.clamp_min(1e-12).sqrt()
    return ((1.2 - distance).clamp_min(0) * (-gap / 0.25).exp()).mean()
