"""DRA: four heads learn to see different kinds of abnormality in frozen tokens.

Paper: Ding et al., "Catching Both Gray and Black Swans: Open-set Supervised Anomaly Detection", CVPR 2022, on 3D tokens
as in the code of Open3D-AD. The same (verified there): a holistic head on the mean token whose target is "normal"; a
head for seen and one for pseudo anomalies, token by token, mean of the highest 10 %, each blind to the other's clouds;
a composite head on the difference to the mean of reference tokens of normal clouds; the sum of four deviation losses.

Different: see `toolkit.nn.token_base`; and

* heads are not scaled by their range over the test set: the deviation loss has put all of them on one scale already,
  that of N(0, 1) draws, so their deviations are added;
* the reference of the composite head is the mean token of the class's normal clouds, kept from training, where the code
  draws five normal clouds anew for each batch; its convolution along the order of tokens, which has no meaning in a
  cloud, is an MLP on each token;
* the holistic head's absolute value is kept, its score counts negatively, as published;
* point scores are the sum of the token-wise heads, not the length of gradients.

Without known defects in the stream the head for seen anomalies learns from normal clouds alone and says nothing; it is
left out of the sum then.

Measured, the defaults, pseudo anomalies only, one model per class of eight real scans (8,192 points), seed 0, objects /
points: banana0 .885/.971, bolt0 .673/.835, bowl0 .817/.830, clamp0 .683/.836, hammer0 .721/.878, mug0 .865/.870,
pitcher0 .827/.924, screwdriver0 .769/.910; mean .780/.882. Objects of bolt0 and clamp0 stay below .72.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch_geometric.nn import global_mean_pool

from toolkit.cloud import CloudBatch
from toolkit.nn.token_base import (
    KNOWN,
    NORMAL,
    PSEUDO,
    TokenStrategy,
    deviation_loss,
    is_defective,
    token_deviation_loss,
    top_mean,
    top_means,
)
from toolkit.strategy import Output, at_least
from toolkit.tuning.space import Categorical, Float, Space

__all__ = ["DRA"]


class HeadsOutput(Output):
    """Token scores of the seen, pseudo and composite head (sum G, 3), the tokens' shares of defective points (sum G,),
    where clouds start (B + 1,), holistic scores (B,), and what each cloud is (B,)."""

    def __init__(self, features: Tensor, share: Tensor, ptr: Tensor, holistic: Tensor, kind: Tensor):
        super().__init__(features)
        self.share, self.ptr, self.holistic, self.kind = share, ptr, holistic, kind


class _Heads(nn.Module):
    def __init__(self, channels: int, hidden: int):
        super().__init__()
        self.holistic = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, 1))
        self.seen, self.pseudo = _token_head(channels, hidden), _token_head(channels, hidden)
        self.composite = _token_head(channels, hidden)

    def forward(self, batch: CloudBatch) -> HeadsOutput:
        apart = batch.tokens - batch.reference[batch.batch]
        heads = ((self.seen, batch.tokens), (self.pseudo, batch.tokens), (self.composite, apart))
        each = torch.cat([head(x).abs() for head, x in heads], 1)
        holistic = self.holistic(global_mean_pool(batch.tokens, batch.batch))[:, 0].abs()
        return HeadsOutput(each, batch.share, batch.ptr, holistic, batch.kind)


class DRA(TokenStrategy):
    """Disentangled abnormality heads on frozen tokens (Ding et al., CVPR 2022).

    Args:
        hidden: width of the heads' hidden layers; 0 = linear token heads, as published.
        top_share: share of the tokens whose mean is a head's object score.
        margin: deviation wanted of anomalous clouds, in standard deviations.
        token_weight: weight of the same losses on single tokens, whose labels are known; 0 = clouds only, as published.
        options: further arguments of `TokenStrategy` and its bases.
    """

    paper = "Ding et al.: Catching Both Gray and Black Swans. CVPR 2022"
    survives_restart = (*TokenStrategy.survives_restart, "means_")
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": dict(hidden=0, token_weight=0.0, residual=False, backbone="paper", layers=(3, 7, 11), groups=1024,
                      group_size=128, pseudo=1, pseudo_rate=0.33, lr=1e-4, weight_decay=1e-5, batch_size=48,
                      epochs=30, grad_clip=1.0),
        "tiny": dict(groups=64, group_size=16, layers=(0,), hidden=8, pseudo=1, epochs=3),
    }  # fmt: skip
    search_space: ClassVar[dict[str, Space]] = {
        "lr": Float(1e-4, 1e-2, log=True, source="code: 1e-4"),
        "hidden": Categorical((0, 32, 128), source="paper: 0 for token heads, 256 for the holistic"),
        "top_share": Categorical((0.02, 0.05, 0.1, 0.2), source="paper: 0.1"),
        "pseudo_rate": Float(0.1, 0.7, source="code: 1/3"),
    }

    def __init__(self, *, hidden: int = 64, top_share: float = 0.1, margin: float = 5.0, token_weight: float = 1.0,
                 epochs: int = 150, lr: float = 1e-3, grad_clip: float = 1.0, **options: Any):  # fmt: skip
        self.hidden, self.top_share, self.margin, self.token_weight = hidden, top_share, margin, token_weight
        at_least(self, hidden=0, top_share=1e-6, margin=0, token_weight=0)
        super().__init__(epochs=epochs, lr=lr, grad_clip=grad_clip, **options)
        self.means_: dict[str, Tensor] = {}
        self.known_seen_ = False

    def build(self) -> nn.Module:
        """The four heads."""
        return _Heads(self.channels, self.hidden)

    def meet(self, clouds: Any) -> None:
        """Keep the mean token of each class's normal clouds; note whether there are known defects."""
        super().meet(clouds)
        self.known_seen_ = getattr(self, "known_seen_", False) or any(is_defective(c) for c in clouds)
        for category in sorted({c.category for c in clouds}):
            normal = [c for c in clouds if c.category == category and not is_defective(c)]
            if normal:
                parts = [self.prepared(c).tokens for c in normal]
                seen = torch.cat([self._seen(part, category, part) for part in parts])
                self.means_[category] = ((seen - self.token_mean_) / self.token_std_).mean(0)

    def _example(self, cloud: Any, kind: int, share: Tensor, named: Any = None) -> Any:
        made = super()._example(cloud, kind, share, named)
        known = self.means_.get(made.category)
        made.reference = (made.tokens.mean(0) if known is None else known)[None]
        return made

    def loss_of(self, output: HeadsOutput) -> Tensor:
        """Sum of four deviation losses; the seen head is blind to pseudo anomalies, the pseudo head to known ones."""
        kind = output.kind
        heads = top_means(output.features, output.ptr, self.top_share)
        loss = deviation_loss(output.holistic, kind == NORMAL, margin=self.margin)
        for head, (blind, anomalous) in enumerate(((PSEUDO, KNOWN), (KNOWN, PSEUDO), (-1, None))):
            kept = kind != blind
            if bool(kept.any()):
                wrong = kind != NORMAL if anomalous is None else kind == anomalous
                loss = loss + deviation_loss(heads[kept, head], wrong[kept], margin=self.margin)
                if self.token_weight:
                    mine = kept.repeat_interleave(output.ptr.diff())
                    value = output.features[mine, head]
                    loss = loss + self.token_weight * token_deviation_loss(value, output.share[mine],
                                                                           margin=self.margin)  # fmt: skip
        return loss

    def token_scores(self, batch: CloudBatch, category: str) -> tuple[Tensor, float | None]:
        """Sum of the token-wise heads; the object's score takes in the holistic head."""
        output = self.model(batch)
        heads = output.features if getattr(self, "known_seen_", False) else output.features[:, 1:]
        return heads.sum(1), float(top_mean(heads, self.top_share).sum() - output.holistic[0])


def _token_head(channels: int, hidden: int) -> nn.Module:
    if not hidden:
        return nn.Linear(channels, 1)
    return nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, 1))
