"""Variations of a normal cloud whose factors are known: damaged, stretched, turned, and seen anew through few points.

They are what the grouped VAE learns from. A handful of normal scans show neither defects nor how shape varies, and
without known factors no disentanglement is identifiable (Locatello et al., ICML 2019).
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from toolkit.defects import make_defect
from toolkit.errors import CloudError
from toolkit.nn.grouped_vae import evidence, rotation
from toolkit.ops import knn, smooth

NONE = "none"
TRIES = 8


@dataclass(frozen=True)
class Damage:
    """A defect put into P points.

    Attributes:
        kind: index into the kinds, 0 for none.
        severity: in [0, 1].
        moved: (P, 3) displacement.
        present: (P,) bool, False on removed points.
        affected: (P,) bool, moved, removed or at the rim.
    """

    kind: int
    severity: float
    moved: Tensor
    present: Tensor
    affected: Tensor


@dataclass(frozen=True)
class Amounts:
    """How much variations differ.

    Attributes:
        stretch: largest stretch along each axis.
        turn: largest turn about each axis, in radians: what registration leaves.
        noise: standard deviation of coordinates.
        seen: observed points, and points of the template, that the encoder sees.
        asked: points at which the decoder is asked.
    """

    stretch: float
    turn: float
    noise: float
    seen: int
    asked: int


def damage(at: Tensor, normal: Tensor, kinds: Sequence[str], kind: int, generator: torch.Generator) -> Damage:
    """Put one defect into (P, 3) points; no defect for kind 0, or where none of the draws touches enough points."""
    if kind:
        maker = make_defect(kinds[kind])
        for _ in range(TRIES):
            with contextlib.suppress(CloudError):  # it touched hardly a point; the next draw falls elsewhere
                made = maker(at, normal if maker.needs_normals else None, generator)
                moved, present = torch.zeros_like(at), torch.zeros(len(at), dtype=torch.bool)
                moved[made.source], present[made.source] = made.displacement, True
                affected = ~present
                affected[made.source] |= made.point_y
                return Damage(kind, made.severity, moved, present, affected)
    whole = torch.ones(len(at), dtype=torch.bool)
    return Damage(0, 0.0, torch.zeros_like(at), whole, ~whole)


def variation(at: Tensor, normal: Tensor, made: Damage, template: Tensor, template_normal: Tensor, amounts: Amounts,
              generator: torch.Generator) -> dict[str, Tensor]:  # fmt: skip
    """A damaged cloud stretched, turned, scanned and described, with the answers.

    Args:
        at: (P, 3) points in the template's pose, on its unit sphere.
        normal: (P, 3).
        made: what is wrong with them.
        template: (M, 3) points of the class template.
        template_normal: (M, 3).
        amounts: of variation.
        generator: of everything random here.

    Returns:
        ``seen`` (2 * seen, 8) evidence; ``at``, ``normal``, ``moved``, ``stretched`` (asked, 3) and ``present``
        (asked,) at the asked points, half of them affected where so many are; ``turned`` (1, 3) rotation vector;
        ``stretch`` (1, 3); ``kind`` (1,), ``severity`` (1,) and ``centre`` (1, 3) of the affected points.
    """
    stretch = amounts.stretch * _signed(generator)
    turned = amounts.turn * _signed(generator)
    pos = (at * (1 + stretch) + made.moved)[made.present] @ rotation(turned[None])[0].T
    pos = pos + amounts.noise * torch.randn(pos.shape, generator=generator)
    rows = _draw(len(at), amounts.asked, generator)
    hit = made.affected.nonzero()[:, 0]
    if len(hit):
        count = min(len(hit), amounts.asked // 2)
        rows[:count] = hit[_draw(len(hit), count, generator)]
    return {
        "seen": seen(pos, template, template_normal, amounts.seen, generator),
        "at": at[rows],
        "normal": normal[rows],
        "moved": made.moved[rows],
        "stretched": at[rows] * stretch,
        "present": made.present[rows],
        "turned": turned[None],
        "stretch": stretch[None],
        "kind": torch.tensor([made.kind]),
        "severity": torch.tensor([made.severity]),
        "centre": at[made.affected].mean(0, keepdim=True) if len(hit) else torch.zeros(1, 3),
    }


def factors(facts: dict[str, Tensor]) -> dict[str, float]:
    """What made a `variation`, by name: turns in radians, stretches, kind and severity of the defect."""
    made = {f"{name}_{a}": v for name, key in (("turn", "turned"), ("stretch", "stretch"))
            for a, v in zip("xyz", facts[key][0].tolist(), strict=True)}  # fmt: skip
    return {**made, "kind": int(facts["kind"]), "severity": float(facts["severity"])}


def seen(pos: Tensor, template: Tensor, template_normal: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """(2 * count, 8) `evidence` of some points of a cloud, then of some points of its template.

    Half of either are those that deviate most: a bulge has one point in a hundred, of which random ones would show two
    or three. Heights are means over neighbours, as single ones are off by the spacing at edges.

    Args:
        pos: (N, 3) placed points.
        template: (M, 3).
        template_normal: (M, 3).
        count: of each.
        generator: chooses the others.
    """
    near = knn(template, pos, min(3, len(template)))[0]
    height = ((pos[:, None] - template[near]) * template_normal[near]).sum(2).mean(1)
    height = smooth(height, pos, k=8)
    here = _half_of_most(height.abs(), count, generator)
    away = smooth(knn(pos, template, 1)[1][:, 0], template, k=8)
    lacking = _half_of_most(away, count, generator)
    return torch.cat([evidence(pos[here], template_normal[near[here, 0]], height[here], True),
                      evidence(template[lacking], template_normal[lacking], away[lacking], False)])  # fmt: skip


def _half_of_most(deviation: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """(count,) rows: as many as half with the largest deviations, the rest drawn from all."""
    most = deviation.topk(min(count // 2, len(deviation))).indices
    return torch.cat([most, _draw(len(deviation), count - len(most), generator)])


def _signed(generator: torch.Generator) -> Tensor:
    return 2 * torch.rand(3, generator=generator) - 1


def _draw(size: int, count: int, generator: torch.Generator) -> Tensor:
    """(count,) rows, all different where there are enough."""
    order = torch.randperm(size, generator=generator)
    return order.repeat(-(-count // size))[:count]
