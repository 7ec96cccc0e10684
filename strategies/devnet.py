"""DevNet: one linear head scores every token, and the mean of the highest must deviate on anomalous clouds.

Paper: Pang et al., "Explainable Deep Few-shot Anomaly Detection with Deviation Networks", 2021 (deviation loss: KDD
2019), on 3D tokens as in the code of Open3D-AD (verified there: 1x1 convolution on frozen Point-MAE tokens, absolute
value, mean of the highest 10 % of tokens, deviation loss with margin 5, AdamW 1e-4, 50 epochs of batches of 48).

Different: see `toolkit.nn.token_base`; point scores are the tokens' |score| (the code takes the length of the gradient
by the token, which for a linear head is the same for every token that counts and 0 for all others). The head has a
hidden layer by default (``hidden=0`` is the published linear one): a single direction cannot tell pushes outward from
pushes inward.

Without known defects in the stream the pseudo anomalies alone stand for what is anomalous.

Measured on eight real scans (Anomaly-ShapeNet layout, 8,192 points, one model per class, normals and pseudo anomalies
only; object / point AUROC): .828 / .862. By class: banana .990/.965, bolt .625/.838, bowl .904/.859, clamp .644/.738,
hammer .750/.851, mug .808/.870, pitcher .981/.914, screwdriver .923/.858. Objects of bolt and clamp stay below the .72
that a plain memory bank is expected to reach (BTF there .635 and .808).
"""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn

from toolkit.cloud import CloudBatch
from toolkit.nn.token_base import NORMAL, TokenStrategy, deviation_loss, token_deviation_loss, top_mean, top_means
from toolkit.strategy import Output, at_least
from toolkit.tuning.space import Categorical, Float, Space

__all__ = ["DevNet"]


class ScoreOutput(Output):
    """Token scores (sum G, 1) before the absolute value with their shares of defective points (sum G,), where clouds
    start (B + 1,), and what each is (B,)."""

    def __init__(self, features: Tensor, share: Tensor, ptr: Tensor, kind: Tensor):
        super().__init__(features)
        self.share, self.ptr, self.kind = share, ptr, kind


class _Head(nn.Module):
    def __init__(self, channels: int, hidden: int):
        super().__init__()
        layers: list[nn.Module] = [nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, 1)]
        self.score = nn.Sequential(*layers) if hidden else nn.Linear(channels, 1)

    def forward(self, batch: CloudBatch) -> ScoreOutput:
        return ScoreOutput(self.score(batch.tokens), batch.share, batch.ptr, batch.kind)


class DevNet(TokenStrategy):
    """Deviation network on frozen tokens, for few known defects and pseudo anomalies (Pang et al. 2021).

    Args:
        hidden: width of the head's hidden layer; 0 = linear, as published.
        top_share: share of the tokens whose mean is the object score.
        margin: deviation wanted of anomalous clouds, in standard deviations.
        token_weight: weight of the same loss on single tokens, whose labels are known; 0 = clouds only, as published.
        options: further arguments of `TokenStrategy` and its bases.
    """

    paper = "Pang et al.: Explainable Deep Few-shot Anomaly Detection with Deviation Networks. 2021"
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": dict(hidden=0, token_weight=0.0, residual=False, backbone="paper", layers=(3, 7, 11), groups=1024,
                      group_size=128, pseudo=1, pseudo_rate=0.33, lr=1e-4, weight_decay=1e-5, batch_size=48,
                      epochs=50, grad_clip=1.0),
        "tiny": dict(groups=64, group_size=16, layers=(0,), hidden=8, pseudo=1, epochs=3),
    }  # fmt: skip
    search_space: ClassVar[dict[str, Space]] = {
        "lr": Float(1e-4, 1e-2, log=True, source="code: 1e-4"),
        "hidden": Categorical((0, 32, 128), source="paper: 0"),
        "top_share": Categorical((0.02, 0.05, 0.1, 0.2), source="paper: 0.1"),
        "pseudo_rate": Float(0.1, 0.7, source="code: 1/3"),
    }

    def __init__(self, *, hidden: int = 64, top_share: float = 0.1, margin: float = 5.0, token_weight: float = 1.0,
                 epochs: int = 150, lr: float = 1e-3, grad_clip: float = 1.0, **options: Any):  # fmt: skip
        self.hidden, self.top_share, self.margin, self.token_weight = hidden, top_share, margin, token_weight
        at_least(self, hidden=0, top_share=1e-6, margin=0, token_weight=0)
        super().__init__(epochs=epochs, lr=lr, grad_clip=grad_clip, **options)

    def build(self) -> nn.Module:
        """The head."""
        return _Head(self.channels, self.hidden)

    def loss_of(self, output: ScoreOutput) -> Tensor:
        """Deviation loss of the clouds' scores."""
        whole = top_means(output.features.abs(), output.ptr, self.top_share)[:, 0]
        loss = deviation_loss(whole, output.kind != NORMAL, margin=self.margin)
        if self.token_weight:
            value = output.features.abs()[:, 0]
            loss = loss + self.token_weight * token_deviation_loss(value, output.share, margin=self.margin)
        return loss

    def token_scores(self, batch: CloudBatch, category: str) -> tuple[Tensor, float | None]:
        """|score| per token; the object's is the mean of the highest."""
        value = self.model(batch).features.abs()
        return value[:, 0], float(top_mean(value, self.top_share))
