"""Conditional normalising flow of affine couplings.

Sources: RealNVP (Dinh et al., ICLR 2017); Glow-style soft clamping and conditioning as in the FrEIA couplings that
BGAD and CFLOW-AD use: log-scales pass through ``clamp * (2 / pi) * atan(s / clamp)``, so that no coupling can blow up.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class CouplingFlow(nn.Module):
    """Turns features into standard normal ones, given a condition.

    Args:
        channels: D of the features.
        condition: width of the condition.
        couplings: how many; between them channels are shuffled by a fixed permutation.
        hidden: width of the couplings' MLPs.
        clamp: bound of the log-scales, as above.
        seed: of the permutations.
    """

    permutations: Tensor

    def __init__(self, channels: int, condition: int, couplings: int, hidden: int, *, clamp: float = 1.9,
                 seed: int = 0):  # fmt: skip
        super().__init__()
        self.kept, self.clamp = channels // 2, clamp
        rest = channels - self.kept
        generator = torch.Generator().manual_seed(seed)
        orders = [torch.randperm(channels, generator=generator) for _ in range(couplings)]
        self.register_buffer("permutations", torch.stack(orders))
        self.nets = nn.ModuleList(
            nn.Sequential(nn.Linear(self.kept + condition, hidden), nn.ReLU(), nn.Linear(hidden, 2 * rest))
            for _ in range(couplings)
        )
        last: list[nn.Linear] = [net[2] for net in self.nets]  # type: ignore[index]
        for layer in last:  # starts as a permutation: the first steps then see a plain Gaussian
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, feature: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """(N, D) latent features and (N,) logarithms of the Jacobian's determinant, of (N, D) and (N, condition)."""
        total = feature.new_zeros(feature.shape[0])
        for order, net in zip(self.permutations, self.nets):
            feature = feature[:, order]
            kept, changed = feature[:, : self.kept], feature[:, self.kept :]
            scale, shift = self._affine(net, kept, condition)
            feature = torch.cat([kept, changed * scale.exp() + shift], 1)
            total = total + scale.sum(1)
        return feature, total

    def inverse(self, latent: Tensor, condition: Tensor) -> Tensor:
        """(N, D) features of (N, D) latent ones."""
        for order, net in zip(self.permutations.flip(0), reversed(self.nets)):
            kept, changed = latent[:, : self.kept], latent[:, self.kept :]
            scale, shift = self._affine(net, kept, condition)
            latent = torch.cat([kept, (changed - shift) * (-scale).exp()], 1)[:, order.argsort()]
        return latent

    def log_likelihood(self, feature: Tensor, condition: Tensor) -> Tensor:
        """(N,) log-likelihood per channel."""
        latent, total = self(feature, condition)
        channels = feature.shape[1]
        return (total - 0.5 * latent.square().sum(1)) / channels - 0.5 * math.log(2 * math.pi)

    def _affine(self, net: nn.Module, kept: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        scale, shift = net(torch.cat([kept, condition], 1)).chunk(2, 1)
        return self.clamp * 2 / math.pi * torch.atan(scale / self.clamp), shift


def sinusoidal(place: Tensor, frequencies: int) -> Tensor:
    """(N, 6 * frequencies) sines and cosines of (N, 3) places on the unit sphere; the lowest makes half a wave."""
    waves = math.pi / 2 * 2.0 ** torch.arange(frequencies, device=place.device)
    angle = (place[:, :, None] * waves).flatten(1)
    return torch.cat([angle.sin(), angle.cos()], 1)
