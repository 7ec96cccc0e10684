"""Losses that keep groups of latent codes apart, each on a mini-batch of B clouds.

Sources: beta-TC-VAE (Chen et al., NeurIPS 2018) for the total correlation; Gretton et al., "Measuring statistical
dependence with Hilbert-Schmidt norms", 2005, for HSIC.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import torch
from torch import Tensor


def kl_to_normal(mean: Tensor, logvar: Tensor, std: float = 1.0) -> Tensor:
    """(B,) KL divergence of N(mean, exp(logvar)) from N(0, std^2), summed over the (B, D) codes, in nats."""
    ratio = (logvar.exp() + mean.square()) / std**2
    return 0.5 * (ratio - 1 - logvar + 2 * math.log(std)).sum(1)


def total_correlation(code: Tensor, mean: Tensor, logvar: Tensor) -> Tensor:
    """KL of q(z) from the product of its marginals, by mini-batch estimates of the densities.

    ``mean_a [log q(z_a) - sum_j log q(z_aj)]`` with ``q(z) = 1/B sum_b N(z; mean_b, var_b)``. A batch's own posteriors
    stand for those of all data, so it is biased upwards: by at most log B, when no two posteriors overlap.

    Args:
        code: (B, D) samples.
        mean, logvar: (B, D) of the posteriors that they were drawn from.
    """
    log = -0.5 * ((code[:, None] - mean).square() / logvar.exp() + logvar + math.log(2 * math.pi))  # (B, B, D)
    joint = log.sum(2).logsumexp(1) - math.log(len(code))
    marginal = (log.logsumexp(1) - math.log(len(code))).sum(1)
    return (joint - marginal).mean()


def hsic(a: Tensor, b: Tensor) -> Tensor:
    """tr(K H L H) / (B - 1)^2 with Gaussian kernels of median width: 0 for independent groups in the limit.

    Args:
        a: (B, D) codes of one group.
        b: (B, E) codes of another.
    """
    kernel, other = _centred(_gaussian(a)), _gaussian(b)
    return (kernel * other).sum() / (len(a) - 1) ** 2


def correlation(a: Tensor, b: Tensor) -> Tensor:
    """Sum of squared correlations of the codes of two groups (B, D) and (B, E)."""
    a, b = (x - x.mean(0) for x in (a, b))
    a, b = (x / x.square().sum(0).sqrt().clamp_min(1e-6) for x in (a, b))
    return (a.T @ b).square().sum()


def between_groups(groups: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """`hsic` and `correlation`, each summed over all pairs of groups."""
    pairs = list(combinations(groups, 2))
    return torch.stack([hsic(a, b) for a, b in pairs]).sum(), torch.stack([correlation(a, b) for a, b in pairs]).sum()


class _Reversed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *gradient: Any) -> Any:
        return -gradient[0]


def reversed_gradient(value: Tensor) -> Tensor:
    """The value itself, whose gradient is turned round: what is trained behind it unlearns it before it."""
    return _Reversed.apply(value)


def _gaussian(x: Tensor) -> Tensor:
    square = (x[:, None] - x).square().sum(2)
    apart = square[~torch.eye(len(x), dtype=torch.bool, device=x.device)]
    width = apart.detach().median().clamp_min(1e-9)
    return (-square / width).exp()


def _centred(kernel: Tensor) -> Tensor:
    return kernel - kernel.mean(0) - kernel.mean(1, keepdim=True) + kernel.mean()
