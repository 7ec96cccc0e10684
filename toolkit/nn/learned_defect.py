"""Defects that a grouped VAE has learned, as a generator with the interface of `toolkit.defects`.

Controllable generation: a stored defect code of the wanted kind is disturbed, moved so that the decoder puts the defect
at a random place of the given surface, and moved so that its predicted severity is the wanted one. What the decoder
then says of every point is the defect. Open-set methods can train on the result as on any other pseudo anomaly.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor

from toolkit.defects.base import Change, Defect, Range, draw_row, integer
from toolkit.nn.grouped_vae import GroupedVAE
from toolkit.ops import knn


@dataclass(frozen=True, kw_only=True, eq=False)
class LearnedDefect(Defect):
    """A learned defect of one kind. Severity is what the VAE's severity head is made to say.

    Args:
        kind: name of the kind, e.g. "bulge".
        net: the trained VAE.
        codes: (K, D) defect codes of that kind to start from.
        spread: disturbance of a code, in the deviation of the stored codes.
    """

    name: ClassVar[str] = "learned"
    unit: ClassVar[Literal["diagonal", "radius"]] = "radius"
    label_fraction: ClassVar[float] = 0.15  # a network's displacement fades out instead of ending
    limits: ClassVar[dict[str, Range]] = {"spread": (0.0, 2.0)}

    kind: str
    net: GroupedVAE = field(repr=False)
    codes: Tensor = field(repr=False)
    spread: float = 0.3

    @torch.no_grad()
    def change(self, x: Tensor, normal: Tensor, severity: float, generator: torch.Generator) -> Change:
        row = draw_row(torch.arange(len(x)), generator)
        start = self.codes[integer(len(self.codes), generator)]
        noise = torch.randn(start.shape, generator=generator) * self.codes.std(0, correction=0)
        code = self.placed(start + self.spread * noise, x[row], severity)
        moved, there = self.net.damage(x[None], normal[None], code[None])
        delta, keep = moved[0], there[0] > 0
        centre = x[row]
        if 0 < int((~keep).sum()) < len(x):
            gone = x[~keep]
            reach = float((gone - gone.mean(0)).norm(dim=1).max())
            edge = 3 * float(knn(x, x[:: max(1, len(x) // 500)], min(2, len(x)))[1][:, -1].median())
            rim = keep & (knn(gone, x, 1)[1][:, 0] < edge)
            return Change(center=gone.mean(0), size=reach, keep=keep, rim=rim, kind=self.kind)
        length = delta.norm(dim=1)
        weight = length / length.sum().clamp_min(1e-12)
        size = float((weight * (x - centre).norm(dim=1)).sum())
        return Change(center=(weight[:, None] * x).sum(0), size=size, delta=delta, kind=self.kind)

    def placed(self, code: Tensor, place: Tensor, severity: float) -> Tensor:
        """(D,) code moved as little as possible until it decodes to that place (3,) and severity.

        Both are linear in the code: one least-squares step of smallest length does it.
        """
        weight = torch.cat([self.net.where.weight, self.net.severity.weight])
        bias = torch.cat([self.net.where.bias, self.net.severity.bias])
        wanted = torch.cat([place.to(code), code.new_tensor([severity])])
        return (
            code + torch.linalg.lstsq(weight, (wanted - bias - weight @ code)[:, None], driver="gelsd").solution[:, 0]
        )
