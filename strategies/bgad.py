"""BGAD: a flow learns how likely normal tokens are, and known defects push only those that crossed its boundary.

Paper: Yao et al., "Explicit Boundary Guided Semi-Push-Pull Contrastive Learning for Supervised Anomaly Detection", CVPR
2023. The same (verified in its code): conditional normalising flow of 8 couplings, clamp 1.9, conditioned on the
place; boundary b_n = 5 % quantile of the normal log-likelihoods, b_a = b_n - 0.1; log-likelihoods per channel, divided
by 10; loss = -log sigmoid(log p) on normals, and, after a first stage on normals alone, the mean of b_n - log p over
normals below b_n, and of log p - b_a over abnormal ones above b_a.

Different: an image method brought to 3D tokens, see `toolkit.nn.token_base`; the place is the token's position in the
pose of the class template, in sines and cosines; the boundary is that of the step's normal tokens; a token is abnormal
if more than ``theta`` of its points are; the asymmetric focal weights of the code are left out; the object score is
the mean of the highest share of -log p (the code: the maximum over a map scaled by its range over the test set).

Without known defects in the stream the pseudo anomalies push.

Measured, the defaults, pseudo anomalies only, one model per class of eight real scans (8,192 points), seed 0, objects /
points: banana0 .942/.983, bolt0 .788/.848, bowl0 1.000/.965, clamp0 .788/.917, hammer0 .846/.952, mug0 .856/.887,
pitcher0 .942/.966, screwdriver0 .923/.936; mean .886/.932.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from toolkit.cloud import CloudBatch
from toolkit.nn.coupling_flow import CouplingFlow, sinusoidal
from toolkit.nn.token_base import TokenStrategy, top_mean
from toolkit.strategy import Output, at_least
from toolkit.tuning.space import Float, Int, Space

__all__ = ["BGAD"]

NORMALIZER = 10.0
"""Log-likelihoods are divided by it (code): keeps -log sigmoid in its steep part."""


class LikelihoodOutput(Output):
    """Log-likelihoods (sum G, 1), and the share of defective points of each token (sum G,)."""

    def __init__(self, features: Tensor, share: Tensor):
        super().__init__(features)
        self.share = share


class _Net(nn.Module):
    def __init__(self, channels: int, frequencies: int, couplings: int, hidden: int, seed: int):
        super().__init__()
        self.frequencies = frequencies
        self.flow = CouplingFlow(channels, 6 * frequencies, couplings, hidden, seed=seed)

    def forward(self, batch: CloudBatch) -> LikelihoodOutput:
        value = self.flow.log_likelihood(batch.tokens, sinusoidal(batch.pos, self.frequencies))
        return LikelihoodOutput(value[:, None] / NORMALIZER, batch.share)


class BGAD(TokenStrategy):
    """Boundary-guided semi-push-pull flow on frozen tokens (Yao et al., CVPR 2023).

    Args:
        couplings: of the flow.
        hidden: width of the couplings' MLPs.
        frequencies: of the places' sines and cosines.
        quantile: of the normal log-likelihoods, where the boundary lies.
        margin: between the boundaries of normal and abnormal tokens.
        push: weight of the push-pull terms.
        warm_up: share of the epochs that learn from normal tokens alone.
        theta: tokens with a larger share of defective points are abnormal; those with none are normal.
        top_share: share of the tokens whose mean is the object score.
        options: further arguments of `TokenStrategy` and its bases.
    """

    paper = "Yao et al.: Explicit Boundary Guided Semi-Push-Pull Contrastive Learning. CVPR 2023"
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": dict(backbone="paper", layers=(3, 7, 11), groups=1024, group_size=128, hidden=1152, frequencies=21,
                      lr=2e-4, epochs=200, batch_size=32),
        "tiny": dict(groups=64, group_size=16, layers=(0,), couplings=2, hidden=16, frequencies=2, pseudo=1, epochs=4),
    }  # fmt: skip
    search_space: ClassVar[dict[str, Space]] = {
        "lr": Float(1e-4, 5e-3, log=True, source="code: 2e-4"),
        "couplings": Int(4, 12, source="code: 8"),
        "hidden": Int(64, 512, log=True, source="ours"),
        "quantile": Float(0.01, 0.1, source="code: 0.05"),
        "margin": Float(0.02, 0.5, log=True, source="code: 0.1"),
        "push": Float(0.1, 10.0, log=True, source="code: 1"),
    }

    def __init__(self, *, couplings: int = 8, hidden: int = 128, frequencies: int = 4, quantile: float = 0.05,
                 margin: float = 0.1, push: float = 1.0, warm_up: float = 0.3, theta: float = 0.3,
                 top_share: float = 0.05, layers: tuple[int, ...] = (3,), epochs: int = 120, lr: float = 2e-3,
                 grad_clip: float = 1.0, registration: bool = True, **options: Any):  # fmt: skip
        self.couplings, self.hidden, self.frequencies = couplings, hidden, frequencies
        self.quantile, self.margin, self.push, self.warm_up = quantile, margin, push, warm_up
        self.theta, self.top_share = theta, top_share
        at_least(self, couplings=1, hidden=1, frequencies=1, quantile=0, margin=0, push=0, warm_up=0, theta=0,
                 top_share=1e-6)  # fmt: skip
        super().__init__(layers=layers, epochs=epochs, lr=lr, grad_clip=grad_clip, registration=registration, **options)

    def build(self) -> nn.Module:
        """The flow."""
        return _Net(self.channels, self.frequencies, self.couplings, self.hidden, self.seed)

    def loss_of(self, output: LikelihoodOutput) -> Tensor:
        """Likelihood of normal tokens; after the first epochs also the boundary's push and pull."""
        value = output.features[:, 0]
        normal, abnormal = value[output.share == 0], value[output.share > self.theta]
        loss = -logsigmoid(normal).mean() if normal.numel() else value.sum() * 0
        if not normal.numel() or self.clock.train_exp_epochs < self.warm_up * self.epochs:
            return loss
        boundary = torch.quantile(normal.detach(), self.quantile)
        below = boundary - normal[normal <= boundary]
        above = abnormal[abnormal >= boundary - self.margin] - (boundary - self.margin)
        return loss + self.push * sum(term.mean() for term in (below, above) if term.numel())

    def token_scores(self, batch: CloudBatch, category: str) -> tuple[Tensor, float | None]:
        """-log p of each token; the object's score is the mean of the highest."""
        value = -self.model(batch).features
        return value[:, 0], float(top_mean(value, self.top_share))
