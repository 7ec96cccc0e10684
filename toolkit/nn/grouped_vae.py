"""A variational autoencoder of deviations from a template, in three groups of codes: shape, pose and defect.

The decoder is a field: asked at a point of the template with its normal, it says how the point moves and whether it is
there at all. So a decoded cloud is as detailed as the template, whereas a decoder that writes coordinates from a global
code blurs all that is finer than its codes, and defects are finer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

GROUPS = ("shape", "pose", "defect")
PLACE = 0.3
"""Of the template's radius: how far a defect lies off for one unit of its first three codes."""
RINGS = (0.3, 0.6, 1.2)
"""Of a defect's reach: widths of the bells around its place that its displacements are made of."""
LEAST = 0.005
"""Mean squared displacement, in `UNIT` s, below which errors are not blown up any more."""
MOMENTS = 23
"""Numbers that `explained` and `moments` give."""
UNIT = 0.05
"""Displacements are counted in this share of the template's radius: a typical defect's height."""


@dataclass
class Posterior:
    """(B, D) means and logarithms of variances of one group of codes."""

    mean: Tensor
    logvar: Tensor

    def __post_init__(self) -> None:
        self.logvar = self.logvar.clamp(-8, 2)

    def sample(self, noise: bool) -> Tensor:
        """(B, D) codes; the means without noise."""
        return self.mean + torch.randn_like(self.mean) * (self.logvar / 2).exp() if noise else self.mean


def evidence(pos: Tensor, normal: Tensor, away: Tensor, here: bool) -> Tensor:
    """(..., 8) what the encoder sees of a point: where, which way the template faces, how far off, and of which cloud.

    Args:
        pos: (..., 3).
        normal: (..., 3) of the template there.
        away: (...,) observed points: signed height above the template; points of the template: distance to the cloud.
        here: True for observed points, False for points of the template.
    """
    away = (away / UNIT).clamp(-4, 4)[..., None]
    return torch.cat([pos, normal, away, torch.full_like(away, 1.0 if here else -1.0)], -1)


class GroupedVAE(nn.Module):
    """Encoder of evidence, decoder of displacements.

    Args:
        codes: sizes of the groups shape, pose, defect.
        kinds: defect types that the defect codes must tell apart, "none" among them.
        width: of the decoder; the encoder's layers are half, once and twice as wide.
    """

    def __init__(self, codes: tuple[int, int, int], kinds: int, width: int):
        super().__init__()
        self.codes = codes
        self.points = nn.Sequential(nn.Linear(9, width // 2), nn.ReLU(), nn.Linear(width // 2, width), nn.ReLU(),
                                    nn.Linear(width, 2 * width))  # fmt: skip
        self.attention = nn.Linear(2 * width, 1)
        self.heads = nn.ModuleList([_head(4 * width + MOMENTS + 3, width, size) for size in codes])
        shape, pose, defect = codes
        self.shape = nn.Sequential(nn.Linear(3 + shape, width // 2), nn.GELU(), nn.Linear(width // 2, 3, bias=False))
        self.stretch = nn.Linear(shape, 3, bias=False)
        self.pose = nn.Linear(pose, 3, bias=False)
        self.where = nn.Linear(defect, 3)
        with torch.no_grad():  # the first three codes of a defect start as its place
            self.where.weight.copy_(PLACE * torch.eye(3, defect))
            self.where.bias.zero_()
        self.reach = nn.Linear(defect, 1)
        self.defect = nn.Sequential(nn.Linear(8 + len(RINGS) + defect, width), nn.GELU(), nn.Linear(width, width),
                                    nn.GELU(), nn.Linear(width, 5 * (1 + len(RINGS))))  # fmt: skip
        self.kind = nn.Linear(defect, kinds)
        self.severity = nn.Linear(defect, 1)
        self.adversary = nn.Sequential(nn.Linear(shape + pose, width // 2), nn.ReLU(), nn.Linear(width // 2, kinds))

    def encode(self, seen: Tensor) -> tuple[Posterior, ...]:
        """(B, P, 8) `evidence` -> posteriors of shape, pose and defect."""
        found, left = explained(seen)
        feature = self.points(torch.cat([seen, left[..., None]], 2))
        where = (self.attention(feature).softmax(1) * seen[..., :3]).sum(1)  # of the points that tell most
        feature = torch.cat([feature.amax(1), feature.mean(1), found, moments(seen, left), where], 1)
        return tuple(Posterior(*head(feature).chunk(2, 1)) for head in self.heads)

    def deform(self, at: Tensor, shape: Tensor) -> Tensor:
        """(B, Q, 3) displacement by (B, S) shape codes; codes of zero are the template.

        A stretch along the axes, as a product of place and code is slow to learn, and whatever else.
        """
        code = shape[:, None].expand(-1, at.shape[1], -1)
        still = self.shape(torch.cat([at, torch.zeros_like(code)], 2))
        return UNIT * (at * self.stretch(shape)[:, None] + self.shape(torch.cat([at, code], 2)) - still)

    def damage(self, at: Tensor, normal: Tensor, defect: Tensor) -> tuple[Tensor, Tensor]:
        """(B, Q, 3) displacement and (B, Q) logit of being there, by (B, D) defect codes.

        The codes say where the defect is and how far it reaches; the network sees points relative to that place, and
        what it says is weighed by bells around it, as a product of nearness and height is slow to learn.
        """
        offset = at - self.where(defect)[:, None]
        reach = PLACE * self.reach(defect).clamp(-2, 2).exp()[:, None]
        away = offset.norm(dim=2, keepdim=True)
        near = torch.cat([(-(away / (reach * r)).square()).exp() for r in RINGS], 2)
        code = defect[:, None].expand(-1, at.shape[1], -1)
        out = self.defect(torch.cat([offset, away, near, normal, _facing(offset, normal), code], 2))
        weight = torch.cat([torch.ones_like(away), near], 2)
        out = (out.unflatten(2, (5, -1)) * weight[:, :, None]).sum(3)
        moved = UNIT * (out[..., :1] * normal + out[..., 1:4])
        return moved, out[..., 4] + 3  # there, unless something speaks against it

    def turn(self, pose: Tensor) -> Tensor:
        """(B, 3, 3) small rotations of (B, P) pose codes."""
        return rotation(self.pose(pose) * UNIT)

    def decode(self, at: Tensor, normal: Tensor, codes: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """(B, Q, 3) where points of the template with normals come to lie by the codes of all groups, and `damage`'s
        logit (B, Q) of being there."""
        shape, pose, defect = codes
        moved, there = self.damage(at, normal, defect)
        return _turned(at + self.deform(at, shape) + moved, self.turn(pose)), there


def _exactly(function: Callable[..., Any]) -> Callable[..., Any]:
    """In single precision also where training is not: coordinates, and least squares, need the digits."""

    @wraps(function)
    def inner(*tensors: Tensor) -> Any:
        with torch.autocast(tensors[0].device.type, enabled=False):
            return function(*(tensor.float() for tensor in tensors))

    return inner


@_exactly
def _turned(pos: Tensor, turn: Tensor) -> Tensor:
    return pos @ turn.mT


@_exactly
def explained(seen: Tensor) -> tuple[Tensor, Tensor]:
    """What a turn, a stretch and a shift explain of the heights of a cloud, and what they leave.

    A small turn r raises a surface by ``r . (pos x normal)``, a stretch s by ``sum_i s_i pos_i normal_i``, a shift t by
    ``t . normal``: least squares over the observed points of `evidence` (B, P, 8), slightly damped, as a body of
    revolution does not show all of them.

    Returns:
        (B, 9) turn, stretch and shift in `UNIT` s, and (B, P) heights without them, 0 for points of the template.
    """
    pos, normal, height, here = seen[..., :3], seen[..., 3:6], seen[..., 6:7], seen[..., 7:] > 0
    design = torch.cat([torch.linalg.cross(pos, normal), pos * normal, normal], -1) * here
    raised, count = height * here, here.sum(1, keepdim=True).clamp_min(1)
    square = design.mT @ design / count + 1e-3 * torch.eye(9, device=seen.device)
    found = torch.linalg.solve(square, design.mT @ raised / count)
    return found[..., 0], (raised - design @ found)[..., 0] * here[..., 0]


def moments(seen: Tensor, left: Tensor) -> Tensor:
    """(B, 14) where deviations lie, how far they spread, how large they are, and which way heights go.

    A pooling network takes long to find that.

    Args:
        seen: (B, P, 8) `evidence`.
        left: (B, P) heights that `explained` leaves.
    """
    pos, normal, away, here = seen[..., :3], seen[..., 3:6], seen[..., 6:7], seen[..., 7:] > 0
    # Half of the points were chosen for being far, so the usual distance is the median of the others.
    usual = away.detach().masked_fill(here, torch.nan).nanquantile(0.25, 1, keepdim=True).nan_to_num()
    parts, shares = [], []
    for deviation in (left[..., None], torch.where(here, 0, away - 2 * usual).clamp_min(0)):
        weight = deviation.pow(4)  # the largest deviations say where, the many small ones are noise
        total = weight.sum(1)
        share = weight / total[:, None].clamp_min(1e-6)
        centre = (share * pos).sum(1)
        spread = (share * (pos - centre[:, None]).square().sum(2, keepdim=True)).sum(1)
        parts += [centre, (spread + 1e-4).sqrt(), (total + 1e-3).log() / 4]
        shares.append(share)
    parts.insert(3, (shares[0] * torch.cat([normal, left[..., None].sign()], -1)).sum(1))
    return torch.cat(parts, 1)


def _head(inputs: int, width: int, size: int) -> nn.Sequential:
    """To means, which start wide, and logarithms of variances, which start small.

    Codes drowned in noise teach the decoder nothing; with PyTorch's usual start they stay drowned for hundreds of
    steps.
    """
    last = nn.Linear(width, 2 * size)
    with torch.no_grad():
        last.weight[:size] *= 4
        last.bias[size:] = -4
    return nn.Sequential(nn.Linear(inputs, width), nn.ReLU(), last)


def _facing(offset: Tensor, normal: Tensor) -> Tensor:
    return (offset * normal).sum(-1, keepdim=True)


@_exactly
def rotation(vector: Tensor) -> Tensor:
    """(B, 3) rotation vectors in radians -> (B, 3, 3) matrices R; points are turned by ``pos @ R.mT``."""
    x, y, z = vector.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.matrix_exp(torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).view(-1, 3, 3))


def reconstruction_errors(net: GroupedVAE, codes: tuple[Tensor, ...], batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """How far the decoded factors are from those that made the variations, so that all weigh alike whatever their size.

    Args:
        net: the network.
        codes: sampled codes of the groups.
        batch: `Variations` by name.
    """
    shape, pose, defect = codes
    moved, there = net.damage(batch["at"], batch["normal"], defect)
    present = batch["present"].float()
    return {
        "defect": _unexplained((moved - batch["moved"]) * present[..., None], batch["moved"] * present[..., None]),
        "present": F.binary_cross_entropy_with_logits(there, present),
        "shape": _unexplained(net.deform(batch["at"], shape) - batch["stretched"], batch["stretched"]),
        "pose": _unexplained(net.pose(pose) * UNIT - batch["turned"], batch["turned"]),
    }


def _unexplained(error: Tensor, target: Tensor) -> Tensor:
    """Share of the squared targets (B, ...) that is left, mean over variations: 1 for knowing nothing.

    Each variation has its own measure: bending moves everything so far that nobody would notice a bulge beside it.
    """
    left, whole = (x.square().flatten(1).mean(1) / UNIT**2 for x in (error, target))
    return (left / whole.clamp_min(LEAST)).mean()


def reencoded(net: GroupedVAE, codes: tuple[Tensor, ...], template: Tensor) -> tuple[Posterior, ...]:
    """Posteriors of what codes decode to, without sampling a cloud: the decoder moves points whose origin is known.

    Args:
        net: the network.
        codes: (B, D) of each group.
        template: (B, T, 8) evidence of template points, whose places and normals are used.
    """
    at, normal = template[..., :3], template[..., 3:6]
    pos, there = net.decode(at, normal, codes)
    here = evidence(pos, normal, ((pos - at) * normal).sum(2), True)
    gone = (there < 0)[..., None]
    spare = here.gather(1, there.argmax(1)[:, None, None].expand(-1, 1, 8))  # takes the place of points that are gone
    lacking = evidence(at, normal, torch.where(gone[..., 0], 4 * UNIT, (pos - at).norm(dim=2)), False)
    return net.encode(torch.cat([torch.where(gone, spare, here), lacking], 1))
