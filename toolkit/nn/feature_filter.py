"""Leave out the channels of a feature that say nothing, or nothing new, about normal parts.

ISMP (AAAI 2025) names a feature filter against noisy and redundant features. Its algorithm is published nowhere: the
released code is without it, and the author says that it adds little. What follows is ours: on normal features, channels
of nearly no variance are dropped, then every channel that runs parallel to an earlier one; and the blocks that a
feature is put together from are brought to equal weight, as their units have nothing to do with each other.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from toolkit.errors import CloudError


class FeatureFilter:
    """Which channels are kept, and what each is multiplied by.

    Attributes:
        kept: (K,) int64 channels, in ascending order.
        scale: (K,) factors.
    """

    def __init__(self, kept: Tensor, scale: Tensor):
        self.kept, self.scale = kept, scale

    def __call__(self, feature: Tensor) -> Tensor:
        """(M, D) -> (M, K)."""
        return feature[:, self.kept] * self.scale


def fit_filter(feature: Tensor, blocks: Sequence[int], *, least: float = 1e-6, parallel: float = 0.95,
               equal: bool = True) -> FeatureFilter:  # fmt: skip
    """A filter from features of normal parts.

    Args:
        feature: (M, D).
        blocks: widths of the parts a feature consists of; they sum to D.
        least: channels are dropped whose variance is at most this share of their block's mean; 0 keeps all.
        parallel: a channel is dropped if its correlation with an earlier kept one is above this, up to the sign; 1
            keeps all.
        equal: divide each block by the root of its channels' summed variance; False leaves the units alone.

    Raises:
        CloudError: blocks that do not sum to D, or no features.
    """
    if sum(blocks) != feature.shape[1] or not feature.shape[0]:
        raise CloudError(f"feature filter: blocks of {tuple(blocks)} channels do not fit {tuple(feature.shape)}.")
    centred = feature.double() - feature.double().mean(0)
    variance = centred.square().mean(0)
    typical = torch.cat([part.mean().expand(len(part)) for part in variance.split(list(blocks))])
    keep = variance > least * typical if least else torch.ones_like(variance, dtype=torch.bool)
    if parallel < 1:
        keep &= _first_of_its_kind(centred / variance.clamp_min(1e-300).sqrt(), parallel, keep)
    if not bool(keep.any()):  # all features are the same: there is nothing to choose by
        keep = torch.ones_like(keep)
    total = torch.cat([part.sum().expand(len(part)) for part in (variance * keep).split(list(blocks))])
    scale = torch.where(total > 0, total.clamp_min(1e-300).rsqrt(), 1.0) if equal else torch.ones_like(total)
    kept = keep.nonzero()[:, 0]
    return FeatureFilter(kept, scale[kept].float())


def _first_of_its_kind(standard: Tensor, parallel: float, keep: Tensor) -> Tensor:
    """(D,) bool: no earlier kept channel runs parallel to it.

    Args:
        standard: (M, D) channels of mean 0 and variance 1.
        parallel: correlation above which two channels count as one.
        keep: (D,) channels that are still in.
    """
    alike = (standard.t() @ standard / standard.shape[0]).abs() > parallel
    kept = keep.clone()
    for channel in range(1, len(kept)):
        if bool((alike[channel, :channel] & kept[:channel]).any()):
            kept[channel] = False
    return kept
