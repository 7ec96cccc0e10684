"""The grouped VAE with the terms of its loss, as the strategy DisentangledVAE trains it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from toolkit.cloud import CloudBatch
from toolkit.nn import disentangle
from toolkit.nn.grouped_vae import UNIT, GroupedVAE, Posterior, reconstruction_errors, reencoded
from toolkit.ops import chamfer
from toolkit.strategy import Output

FAR = 0.2
"""Of the template's radius: an error of a defect's place that counts 1."""


class VAEOutput(Output):
    """Means of all codes (B, 24) and the loss terms by name, unweighted."""

    def __init__(self, features: Tensor, terms: dict[str, Tensor]):
        super().__init__(features)
        self.terms = terms


class DisentangledNet(nn.Module):
    """Encodes, decodes and compares a batch of variations.

    Args:
        vae: encoder and decoder.
        seen: observed points per variation, and as many of the template.
        asked: points at which the decoder is asked.
    """

    def __init__(self, vae: GroupedVAE, seen: int, asked: int):
        super().__init__()
        self.vae, self.seen, self.asked = vae, seen, asked

    def forward(self, batch: CloudBatch) -> VAEOutput:
        facts = {n: batch[n].unflatten(0, (-1, self.asked)) for n in ("pos", "normal", "moved", "stretched", "present")}
        facts["at"] = facts.pop("pos")
        facts |= {"turned": batch.turned}
        seen = batch.seen.unflatten(0, (-1, 2 * self.seen))
        posteriors = self.vae.encode(seen)
        codes = tuple(p.sample(self.training) for p in posteriors)
        means = torch.cat([p.mean for p in posteriors], 1)
        terms = reconstruction_errors(self.vae, codes, facts)
        terms["chamfer"] = self._chamfer(codes, facts, seen[:, : self.seen, :3])
        terms["kl"] = torch.stack([disentangle.kl_to_normal(p.mean, p.logvar).mean() for p in posteriors]).sum()
        logvar = torch.cat([p.logvar for p in posteriors], 1)
        if len(seen) > 2:
            terms["tc"] = disentangle.total_correlation(torch.cat(codes, 1), means, logvar)
            terms["hsic"], terms["correlation"] = disentangle.between_groups(codes)
        terms["class"] = self._classified(codes, batch)
        normal, defect = batch.kind == 0, posteriors[2]
        if bool(normal.any()):
            terms["null"] = disentangle.kl_to_normal(defect.mean[normal], defect.logvar[normal], 0.1).mean()
        terms["swap"] = self._swapped(posteriors, seen[:, self.seen :])
        return VAEOutput(means, terms)

    def _chamfer(self, codes: tuple[Tensor, ...], facts: dict[str, Tensor], cloud: Tensor) -> Tensor:
        """Of the asked points that are there, as decoded, and the observed ones."""
        some = slice(0, None, -(-len(cloud) // 4))  # trees of points are dear: four of the batch must do
        at, normal, cloud, there = facts["at"][some], facts["normal"][some], cloud[some], facts["present"][some]
        pos, _ = self.vae.decode(at, normal, tuple(code[some] for code in codes))
        ends = [torch.cat([n.new_zeros(1), n.cumsum(0)]) for n in
                (there.sum(1), torch.full((len(cloud),), cloud.shape[1], device=cloud.device))]  # fmt: skip
        return chamfer(pos[there], cloud.flatten(0, 1), ptr_a=ends[0], ptr_b=ends[1]).mean() / UNIT**2

    def _classified(self, codes: tuple[Tensor, ...], batch: CloudBatch) -> Tensor:
        shape, pose, defect = codes
        others = disentangle.reversed_gradient(torch.cat([shape, pose], 1))
        known = F.cross_entropy(self.vae.kind(defect), batch.kind)
        severity = F.mse_loss(self.vae.severity(defect)[:, 0], batch.severity.float())
        damaged = batch.kind > 0
        if bool(damaged.any()):  # the decoder sees points relative to that place, so it must be found first
            apart = self.vae.where(defect[damaged]) - batch.centre[damaged]
            severity = severity + (apart / FAR).square().sum(1).mean()
        return known + severity + 0.1 * F.cross_entropy(self.vae.adversary(others), batch.kind)

    def _swapped(self, posteriors: tuple[Posterior, ...], template: Tensor) -> Tensor:
        """Shape and pose of each cloud of one half with the defect of one of the other, encoded again."""
        half = max(1, len(template) // 2)
        shape, pose = (p.mean[:half] for p in posteriors[:2])
        defect = posteriors[2].mean[-half:]
        again = reencoded(self.vae, (shape, pose, defect), template[:half])
        wanted = (shape, pose, defect)
        return torch.stack([F.mse_loss(p.mean, w.detach()) for p, w in zip(again, wanted, strict=True)]).sum()
