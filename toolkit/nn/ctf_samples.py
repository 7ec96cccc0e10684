"""What CTF-Net is pre-trained on: groups of points of procedural parts, alone to be named and in pairs to be compared.

S3DA = Z(J(S(P))) is named by RIF (arXiv 2511.13115) without ranges: S scales each axis by U(2/3, 3/2) and J adds
N(0, 0.01) clipped at 0.02, the values of DGCNN's code, from which RIF's scripts derive (inferred); Z sets a share
U(0, 0.1) of the points to 0 (our choice). The pairs are ours, see `toolkit.nn.ctf_pretrain`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from toolkit.data.parts import PARTS, sample
from toolkit.nn.pcm import Frame, pcm
from toolkit.ops import fps, knn, voxel_downsample

POINTS = 2048
"""Points of a cloud before it is cut, to be named; a unit sphere's worth, as ModelNet40's 1,024."""
DENSE = 16_000
"""Points of an object; a scan of it has half of them, thinned by a grid of `VOXEL` on the unit sphere, as in use."""
VOXEL = 0.03


class Pairs(NamedTuple):
    """Groups (B, K, 3) of the same places, nearest first.

    Attributes:
        first: in one scan.
        second: in another scan, whose frame is slightly off.
        defect: in that other scan, the surface there pushed in or out.
        target: (B,) categories.
    """

    first: Tensor
    second: Tensor
    defect: Tensor
    target: Tensor


def s3da(pos: Tensor, generator: torch.Generator, *, scale: float = 1.5, jitter: float = 0.01, zeroed: float = 0.1,
         factor: Tensor | None = None) -> Tensor:  # fmt: skip
    """Random scaling per axis, jitter and zeroing of a (N, 3) cloud in the unit sphere.

    Args:
        pos: (N, 3) points.
        generator: source of randomness.
        scale: each axis by U(1 / scale, scale).
        jitter: standard deviation of the jitter, which is clipped at twice that.
        zeroed: at most this share of the points is moved to the origin.
        factor: (3,) scale of the axes instead of a random one.
    """
    if factor is None:
        factor = random_scale(generator, scale)
    noise = (jitter * torch.randn(pos.shape, generator=generator)).clamp(-2 * jitter, 2 * jitter)
    share = zeroed * torch.rand((), generator=generator)
    kept = torch.rand(len(pos), 1, generator=generator) >= share
    return (pos * factor + noise) * kept


def random_scale(generator: torch.Generator, scale: float = 1.5) -> Tensor:
    """(3,) factors in U(1 / scale, scale)."""
    return 1 / scale + (scale - 1 / scale) * torch.rand(3, generator=generator)


class Parts:
    """Random samples of the categories: clouds are made once, the rest is drawn anew.

    Args:
        held_out: the last variant of each category instead of the others.
        generator: source of randomness.
        clouds: scans kept per variant.
    """

    def __init__(self, held_out: bool, generator: torch.Generator, clouds: int = 3):
        self.generator, self.clouds = generator, clouds
        self.variants = [p.subcategories[-1:] if held_out else p.subcategories[:-1] for p in PARTS.values()]
        self.stock: dict[tuple[int, str, int], Tensor] = {}

    def draw(self, batch: int, size: int, patches: Tensor) -> tuple[Tensor, Tensor]:
        """(B, K, 3) augmented groups in the frames of their clouds, nearest first, and (B,) categories.

        Args:
            batch: B.
            size: K.
            patches: (B,) bool, a neighbourhood instead of the whole cloud.
        """
        target = torch.randint(len(self.variants), (batch,), generator=self.generator)
        groups = [self._group(int(c), size, bool(patch)) for c, patch in zip(target, patches)]
        return torch.stack(groups), target

    def _group(self, category: int, size: int, patch: bool) -> Tensor:
        pos = s3da(self._cloud(category), self.generator)
        frame = pcm(pos)
        pos = frame.map(pos)
        pos = pos / pos.norm(dim=1).max()
        if patch:
            away = (pos - pos[self._integer(len(pos))]).norm(dim=1)
            return pos[away.topk(size, largest=False, sorted=True).indices]
        pos = pos[torch.randperm(len(pos), generator=self.generator)[:size]]
        return pos[pos.norm(dim=1).argsort()]

    def pairs(self, shapes: int, places: int, size: int) -> Pairs:
        """Groups of the same places of so many random objects in two scans each, and with a defect."""
        target = torch.randint(len(self.variants), (shapes,), generator=self.generator)
        found = [self._pair(int(category), places, size) for category in target]
        first, second, defect = (torch.cat(groups) for groups in zip(*found))
        return Pairs(first, second, defect, target.repeat_interleave(places))

    def _pair(self, category: int, places: int, size: int) -> tuple[Tensor, Tensor, Tensor]:
        pos = self._object(category)
        pos = pos[torch.randperm(len(pos), generator=self.generator)]
        factor = random_scale(self.generator)
        scans = [s3da(half, self.generator, factor=factor, zeroed=0.0) for half in pos.chunk(2)]
        frame = pcm(scans[0])
        radius = frame.map(scans[0]).norm(dim=1).max()
        off = Frame(frame.centre + 0.01 * radius * self._normal(3), frame.axes @ _small_turn(0.02 * self._normal(3)))
        one, two = (voxel_downsample(f.map(scan) / radius, VOXEL) for f, scan in zip((frame, off), scans))
        start = self._integer(len(one))
        centre = one[fps(one, min(4 * places, len(one)), start=start, exact=False)]
        centre = centre[torch.randperm(len(centre), generator=self.generator)[:places]]
        there = two[knn(two, centre, 1)[0][:, 0]]  # in use, too, the nearest centre of a bank lies a little beside
        first, second = (cloud[knn(cloud, c, min(size, len(cloud)))[0]] for cloud, c in ((one, centre), (two, there)))
        return first, second, self._pushed(second)

    def _pushed(self, group: Tensor) -> Tensor:
        """(B, K, 3) groups whose surface is pushed in or out by 0.02 to 0.1 around one of their points."""
        spread = group - group.mean(1, keepdim=True)
        normal = torch.linalg.eigh((spread.transpose(1, 2) @ spread).double())[1][:, :, 0].to(group)
        radius = (group[:, -1] - group[:, 0]).norm(dim=1)
        where = torch.randint(group.shape[1], (len(group),), generator=self.generator)
        away = (group - group[torch.arange(len(group)), where][:, None]).norm(dim=2)
        width = radius * (0.5 + 1.5 * torch.rand(len(group), generator=self.generator))
        depth = 0.02 + 0.08 * torch.rand(len(group), generator=self.generator)
        depth = depth * torch.randint(2, (len(group),), generator=self.generator).mul(2).sub(1)
        moved = group + (depth[:, None] * (-(away / width[:, None]).square()).exp())[..., None] * normal[:, None]
        order = (moved - moved[:, :1]).norm(dim=2).argsort(dim=1)
        return moved.gather(1, order[..., None].expand_as(moved))

    def _cloud(self, category: int) -> Tensor:
        """`POINTS` points of a random object of the category in the unit sphere, about its mean."""
        pos = self._object(category)
        return pos[torch.randperm(len(pos), generator=self.generator)[:POINTS]]

    def _object(self, category: int) -> Tensor:
        """(DENSE, 3) points of a random object of the category in the unit sphere, about its mean."""
        names = self.variants[category]
        key = (category, names[self._integer(len(names))], self._integer(self.clouds))
        if key not in self.stock:  # some parts take half a second to build
            mesh = list(PARTS.values())[category].mesh(key[1], torch.Generator().manual_seed(key[2]))
            pos = sample(mesh, DENSE, torch.Generator().manual_seed(key[2]))[0]
            pos = pos - pos.mean(0)
            self.stock[key] = pos / pos.norm(dim=1).max()
        return self.stock[key]

    def _normal(self, count: int) -> Tensor:
        return torch.randn(count, generator=self.generator, dtype=torch.float64)

    def _integer(self, below: int) -> int:
        return int(torch.randint(below, (), generator=self.generator))


def _small_turn(vector: Tensor) -> Tensor:
    """(3, 3) rotation by the length (radians) of a (3,) vector about it."""
    x, y, z = vector.tolist()
    return torch.linalg.matrix_exp(torch.tensor([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]], dtype=vector.dtype))
