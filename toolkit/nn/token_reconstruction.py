"""Base of MC3D-AD and C3D-AD: a transformer rebuilds frozen Point-MAE tokens, looking at all, answering from positions.

`toolkit.nn.token_residual` has tokens and scores, `toolkit.nn.reconstruction` the network. By default positions are
random Fourier features, in which neighbouring groups differ, and a training step sees some of a cloud's tokens.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

import toolkit.ops
from toolkit.cloud import AnomalyMap, CloudBatch, PointCloud
from toolkit.nn.reconstruction import FourierPosition, Reconstruction
from toolkit.nn.token_residual import TokenNet, TokenOutput, TokenResidual
from toolkit.strategy import at_least, one_of


class ReconstructionNet(TokenNet):
    """The reconstruction between standardised tokens."""

    def __init__(self, reconstruction: Reconstruction, channels: int):
        super().__init__(channels)
        self.reconstruction = reconstruction

    def forward(self, batch: CloudBatch) -> TokenOutput:
        clouds = (batch.num_graphs, -1)
        tokens = self.standardised(batch.tokens).unflatten(0, clouds)
        rebuilt = self.reconstruction(tokens, batch.pos.unflatten(0, clouds), self.hidden(batch))
        return TokenOutput(rebuilt.flatten(0, 1), tokens.flatten(0, 1))

    def hidden(self, batch: CloudBatch) -> Tensor | None:
        """(B, G) bool, tokens that are not to be looked at; None: all are."""
        return None


class TokenReconstruction(TokenResidual):
    """Training of the reconstruction. A method gives ``build``.

    Args:
        sample: tokens per cloud in a training step, drawn anew each epoch; 0 = all.
        dim: width of the reconstruction network.
        feedforward: hidden width of its MLPs.
        depth: encoder layers, and decoder layers.
        position: embedding of the centres: random fourier features, or an mlp as published.
        jitter: noise on training tokens, in 1 / channels of their length.
        dropout: in training.
        as_released: score as the published code does: plain residuals, smoothed over 511 points in file order, their
            maximum as object score. Overrides whiten, calibrate, smooth and top_share.
        options: further arguments of `TokenResidual`.
    """

    per_token: ClassVar[tuple[str, ...]] = ("pos", "tokens", "at")
    """Tensors of a prepared cloud that have a row for each token."""

    def __init__(self, *, sample: int = 256, dim: int = 128, feedforward: int = 256, depth: int = 2,
                 position: Literal["fourier", "mlp"] = "fourier", jitter: float = 14.0, dropout: float = 0.0,
                 as_released: bool = False, **options: Any):  # fmt: skip
        self.sample, self.dim, self.feedforward, self.depth = sample, dim, feedforward, depth
        self.position, self.jitter, self.dropout, self.as_released = position, jitter, dropout, as_released
        at_least(self, sample=0, dim=4, feedforward=1, depth=1, jitter=0, dropout=0)
        one_of(self, position=("fourier", "mlp"))
        super().__init__(**options)

    def reconstruction(self, **attention: Any) -> Reconstruction:
        """The reconstruction network, with these further arguments."""
        net: Any = Reconstruction(self._encoder.dim, self.dim, self.feedforward, self.depth, dropout=self.dropout,
                                  jitter=self.jitter, **attention)  # fmt: skip
        if self.position == "fourier":
            net.pos_embed = FourierPosition(64, self.dim)
        return net

    def augment(self, cloud: PointCloud) -> PointCloud:
        """Some of the tokens: a step costs less, and means over tokens stay right on average."""
        if not 0 < self.sample < self.groups:
            return cloud
        rows = torch.randperm(self.groups, generator=self.generator)[: self.sample]
        some = cloud.clone_shallow()
        for name in self.per_token:
            some[name] = cloud[name][rows]
        return some

    def score(self, cloud: PointCloud) -> AnomalyMap:
        """Residual per token, less what is usual at the same place, spread to the points."""
        if not self.as_released:
            return super().score(cloud)
        prepared = self.prepared(cloud)
        residual = self.residual(prepared).detach().cpu()
        point = toolkit.ops.interpolate(residual.norm(dim=1), prepared.at, cloud.pos, k=1)
        point = toolkit.ops.smooth_by_order(point, 511, file_order=cloud.get("file_order"))
        return AnomalyMap(point.float(), float(point.max()))
