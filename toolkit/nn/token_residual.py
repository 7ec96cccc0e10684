"""Base of methods that compare frozen Point-MAE tokens with what a network expects in their place.

A method lays a cloud on the template of its class, encodes groups of points by a frozen Point-MAE, lets a network say
what the tokens should be, and scores a token by what lies between. MC3D-AD, C3D-AD and GMANet do so, and share choices
that make this work on few clouds and CPU cores. Measured with C3D-AD and MC3D-AD, whose files have figures:

* every group is turned into its own frame before it is encoded; positions stay those in the template's frame.
* tokens are standardised by the statistics of the first task's training tokens, which no later task changes.
* ``whiten``: residuals are measured relative to the covariance of those of the training clouds, added up over the
  tasks. Tokens vary a hundred times more in some directions than in others, and a plain length sees only those.
* ``calibrate``: what the network does not get right on a normal object is no anomaly. The length of the residual of
  the class's stored template at the same place is subtracted ("template"), or the residual itself ("vector"): where
  the network has drifted, cloud and template drift alike and it cancels. That hides most forgetting, but then the
  template rather than the network does the work. The template is kept for registration anyway. "mean" subtracts the
  mean residual of the training clouds at the same place, kept from the end of their task: a later drift of the network
  is not cancelled. It costs memory per class, 0.4 MB for each of up to `SCANS` clouds.
* token scores are means over neighbouring tokens, the object score the mean of the highest points.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

import toolkit.ops
from toolkit.cloud import AnomalyMap, CloudBatch, PointCloud
from toolkit.nn.grouping import Groups, group
from toolkit.nn.point_mae import PointMAE, load_point_mae
from toolkit.nn.registered import KEEP, THIN, RegisteredStrategy
from toolkit.store import key_of
from toolkit.strategy import Output, at_least, one_of

SHRINK = 0.05
"""Share of the mean variance added to the residuals' covariance: few clouds leave its smallest directions undecided."""
SCANS = 4
"""Training clouds per class whose residuals are kept for calibrate="mean"."""
AROUND = 12
"""Their tokens whose residuals make up the mean at a place."""


class TokenOutput(Output):
    """Expected tokens (B * G, C) and the real ones, in the space in which they are compared."""

    def __init__(self, features: Tensor, target: Tensor):
        super().__init__(features)
        self.target = target


class TokenNet(nn.Module):
    """Base of the networks: statistics of tokens, and what is known of residuals on normal clouds."""

    mean: Tensor
    std: Tensor
    scatter: Tensor
    counted: Tensor

    def __init__(self, channels: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("std", torch.ones(channels))
        self.register_buffer("scatter", torch.zeros(channels, channels))
        self.register_buffer("counted", torch.tensor(0))

    def standardised(self, tokens: Tensor) -> Tensor:
        """(M, C)"""
        return (tokens - self.mean) / self.std

    def whitening(self) -> Tensor:
        """(C, C) matrix that turns residuals of normal clouds white; the identity before any were seen."""
        eye = torch.eye(len(self.mean), device=self.mean.device)
        if not self.counted:
            return eye
        covariance = self.scatter / self.counted
        covariance = covariance + SHRINK * covariance.diagonal().mean().clamp_min(1e-12) * eye
        return torch.linalg.solve_triangular(torch.linalg.cholesky(covariance), eye, upper=False).t()


class TokenResidual(RegisteredStrategy):
    """Tokens, residuals, scores. A method gives ``build``, a `TokenNet` whose forward pass returns a `TokenOutput`.

    Args:
        weights: of the frozen Point-MAE: shipped, random, or a file.
        backbone: size of the frozen Point-MAE, the preset of `load_point_mae`: compact or paper.
        layer: the block whose tokens are used.
        groups: tokens per cloud.
        group_size: points per token.
        frame: local turns every group into its own frame before it is encoded, cloud keeps the template's.
        schedule: of the learning rate within a task: cosine to 0, or step = a tenth of it in the last fifth.
        whiten: measure residuals relative to the covariance of those of normal training clouds (Mahalanobis).
        calibrate: template = subtract the length of the residual of the stored template at the same place; vector =
            subtract that residual itself, before lengths are taken; mean = subtract the mean residual of the class's
            training clouds there, as it was when their task ended; none.
        smooth: token scores are means over so many neighbouring tokens.
        top_share: the object score is the mean of this share of the highest point scores; 0 = the maximum.
        options: further arguments of `RegisteredStrategy` and `AnomalyStrategy`.
    """

    prepare_arguments: ClassVar[tuple[str, ...]] = ("backbone", "layer", "groups", "group_size", "frame",
                                                    "registration")  # fmt: skip

    def __init__(self, *, weights: str = "shipped", backbone: Literal["compact", "paper"] = "compact", layer: int = 3,
                 groups: int = 512, group_size: int = 64, frame: Literal["local", "cloud"] = "local",
                 schedule: Literal["cosine", "step"] = "cosine", whiten: bool = True,
                 calibrate: Literal["template", "vector", "mean", "none"] = "template", smooth: int = 8,
                 top_share: float = 0.02, epochs: int = 80, batch_size: int = 4, lr: float = 3e-3,
                 grad_clip: float = 1.0, **options: Any):  # fmt: skip
        self.weights, self.backbone, self.layer, self.frame = weights, backbone, layer, frame
        self.groups, self.group_size, self.schedule = groups, group_size, schedule
        self.whiten, self.calibrate, self.smooth, self.top_share = whiten, calibrate, smooth, top_share
        at_least(self, groups=4, group_size=4, smooth=1, top_share=0)
        one_of(self, schedule=("cosine", "step"), frame=("local", "cloud"),
               calibrate=("template", "vector", "mean", "none"))  # fmt: skip
        self._encoder = self.load_encoder(options.get("seed", 0))
        self._encoder_key = key_of(self._encoder.state_dict())
        super().__init__(epochs=epochs, batch_size=batch_size, lr=lr, grad_clip=grad_clip, **options)
        self._expected: dict[str, tuple[list[tuple[Tensor, int, bool]], Tensor, Tensor]] = {}

    def load_encoder(self, seed: int) -> PointMAE:
        """The frozen Point-MAE."""
        return load_point_mae(self.weights, self.backbone, seed=seed)

    def meet(self, clouds: Sequence[PointCloud]) -> None:
        """Keep the first cloud of each new class as its template; standardise tokens by the first task's."""
        super().meet(clouds)
        if not hasattr(self, "standardised_"):
            tokens = torch.cat([self.prepared(cloud).tokens for cloud in clouds])
            net: Any = self.model
            net.mean.copy_(tokens.mean(0))
            net.std.copy_(tokens.std(0).clamp_min(1e-6))
            self.standardised_ = True

    def prepare_key(self, cloud: PointCloud) -> str:
        """The template, which decides pose and scale, and the backbone's weights."""
        return super().prepare_key(cloud) + self._encoder_key

    def prepare(self, cloud: PointCloud) -> PointCloud:
        """Register, group, encode.

        Returns:
            ``tokens`` (G, C) of groups of points, ``pos`` (G, 3) their centres in the template's frame, ``at`` (G, 3)
            in the cloud's own. Dense clouds are thinned as templates are, so that a group is as wide in both.
        """
        points = cloud.check(minimum=max(self.groups, self.group_size)).pos
        if points.shape[0] > KEEP:
            points = toolkit.ops.voxel_downsample(points, THIN * toolkit.ops.diagonal(points))
        placed = self.place(cloud, points)
        found = group(placed, self.groups, self.group_size, scale="none", frame=self.frame)
        self._encoder.to(self.device)
        parts = found.centre[None].to(self.device), found.neighbours[None].to(self.device)
        tokens = self._encoder(*parts, [self.layer])[0][0].float().cpu()
        made = PointCloud(placed[found.rows], tokens=tokens, at=points[found.rows])
        return self.described(made, placed, found)

    def described(self, made: PointCloud, placed: Tensor, found: Groups) -> PointCloud:
        """Add what else a method needs of a prepared cloud, from its points (N, 3) in the template's frame."""
        return made

    def loss_of(self, output: TokenOutput) -> Tensor:
        """Mean squared error of the tokens."""
        return (output.features - output.target).pow(2).mean()

    def make_optimizer(self, **kwargs: Any) -> None:
        """AdamW afresh."""
        super().make_optimizer()
        self._first_rates = [g["lr"] for g in self.optimizer.param_groups]

    def _after_training_epoch(self, **kwargs: Any) -> None:
        """Lower the learning rate for the next epoch."""
        super()._after_training_epoch(**kwargs)
        done = (self.clock.train_exp_epochs) / self.epochs
        factor = (1 + math.cos(math.pi * min(done, 1.0))) / 2 if self.schedule == "cosine" else 0.1 ** (done >= 0.8)
        for part, rate in zip(self.optimizer.param_groups, self._first_rates):
            part["lr"] = rate * factor

    def _after_training_exp(self, **kwargs: Any) -> None:
        """Add the residuals of the task's normal clouds to what is known of them."""
        net: Any = self.model
        net.eval()
        found: dict[str, list[Tensor]] = {}
        with torch.no_grad():
            for cloud in self._raw:
                prepared = self.prepared(cloud)
                residual = self.residual(prepared)
                net.scatter += residual.t() @ residual
                net.counted += residual.shape[0]
                if self.calibrate == "mean" and len(found.setdefault(cloud.category, [])) < SCANS:
                    found[cloud.category].append(torch.cat([prepared.pos, residual.cpu()], 1))
        net.train()
        if self.calibrate == "mean":
            self.usual_ = {**vars(self).get("usual_", {}), **{name: torch.cat(rows) for name, rows in found.items()}}
        super()._after_training_exp(**kwargs)

    def residual(self, prepared: PointCloud) -> Tensor:
        """(G, C) what lies between each token and what the network expects."""
        output = self.model(CloudBatch.collate([prepared]).to(self.device))
        return output.features - output.target

    def _measured(self, prepared: PointCloud) -> Tensor:
        """(G, C) residuals in the metric in which their length is taken, on the CPU."""
        net: Any = self.model
        residual = self.residual(prepared)
        usual = vars(self).get("usual_", {}).get(prepared.category)
        if self.calibrate == "mean" and usual is not None:
            mean = toolkit.ops.interpolate(usual[:, 3:], usual[:, :3].contiguous(), prepared.pos, k=AROUND)
            residual = residual - mean.to(residual)
        return (residual @ net.whitening() if self.whiten else residual).detach().cpu()

    def _smoothed(self, residual: Tensor, pos: Tensor) -> Tensor:
        """(G,) lengths, each a mean over neighbouring tokens."""
        return toolkit.ops.smooth(residual.norm(dim=1), pos, k=min(self.smooth, self.groups))

    @torch.no_grad()
    def _template_residual(self, category: str, template: Tensor) -> tuple[Tensor, Tensor]:
        """Centres (G, 3) and residuals (G, C) of the template's tokens; computed anew when the network has changed."""
        parts = (template, *self.model.parameters(), *self.model.buffers())
        # held as tensors, so that no other tensor can come to lie under the same id
        mark = [(part, part._version, self.model.training) for part in parts]
        kept = self._expected.get(category)
        if kept is None or any(a is not x or (b, c) != (y, z) for (a, b, c), (x, y, z) in zip(kept[0], mark)):
            own = self.prepared(PointCloud(template, category=category, sample_id="template"))
            kept = self._expected[category] = (mark, own.pos, self._measured(own))
        return kept[1], kept[2]

    def score(self, cloud: PointCloud) -> AnomalyMap:
        """Residual per token, less what is usual at the same place, spread to the points."""
        prepared = self.prepared(cloud)
        residual = self._measured(prepared)
        template = self.templates_.get(cloud.category) if self.calibrate in ("template", "vector") else None
        expected = None if template is None else self._template_residual(cloud.category, template)
        if self.calibrate == "vector" and expected is not None:
            residual = residual - toolkit.ops.interpolate(expected[1], expected[0], prepared.pos, k=3)
        score = self._smoothed(residual, prepared.pos)
        if self.calibrate == "template" and expected is not None:
            usual = self._smoothed(expected[1], expected[0])
            score = score - toolkit.ops.interpolate(usual, expected[0], prepared.pos, k=3)
        point = toolkit.ops.interpolate(score, prepared.at, cloud.pos, k=3)
        count = max(1, round(self.top_share * point.shape[0]))
        return AnomalyMap(point.float(), float(point.topk(count).values.mean()))
