"""C3D-AD: continual 3D anomaly detection by kernel attention with a learnable advisor.

Paper: Lu et al., "Toward Continual 3D Anomaly Detection via Kernel Attention with Learnable Advisor" (C3D-AD), 2025,
arXiv 2508.01311.

The same as the paper: frozen Point-MAE tokens with random-feature attention inside (KAL, eq. 4-7); a reconstruction
transformer whose attention keeps an advisor matrix from task to task (KAA, eq. 8-11, alpha = beta = 0.7); the
penalty for parameter perturbation (RPP, eq. 12-14), here with true ascent and with gradients; registration of every
cloud to one stored template of its class; fresh AdamW per task; last epoch.

Different by default, in brackets what gives the published way back (preset "paper" has all of it):

* sizes: 512 tokens of 64 points from the compact Point-MAE that this project pre-trains, two layers of 128 channels,
  160 steps per task of two classes with AdamW at 3e-3 falling to 0 by a cosine.
* every group is turned into its own frame before it is encoded (``frame="cloud"``), and Point-MAE attends as it was
  trained (``backbone_attention="kal"``). Reconstruction by place cannot be better than the tokens it is taught; see
  below. Positions are those of the centres in the template's frame, as published.
* a training step sees a random half of a cloud's tokens (``sample=0``); the perturbation penalty is taken on one cloud
  of the batch in every fourth step, with four times the weight (``rpp_every=1``): the same quantities on average.
* positions as Fourier features (``position="mlp"``), in which neighbouring groups differ.
* the stable form of the advisor (`toolkit.nn.kernel_attention` says why the printed one is practically switched off).
* ``advisor_inference="transient"``: the paper's inference (``"frozen"``, eq. 11) never looks at the cloud's features.
* tokens are standardised by the statistics of the first task's training tokens, which no later task changes.
* ``whiten=True``: residuals are measured relative to the covariance of those of the training clouds, added up over the
  tasks. Tokens vary a hundred times more in some directions than in others, and a plain length sees only those.
* ``calibrate="template"``: the length of the residual of the class's stored template, at the same place, is subtracted.
  What the network cannot reconstruct of a normal object is no anomaly. The template is kept for registration anyway.
  ``"vector"`` subtracts the residual itself: where the reconstruction has drifted, cloud and template drift alike and
  it cancels. That hides most forgetting, but then the template rather than the network does the work; hence optional.
* token scores are means over 8 neighbouring tokens; the object score is the mean of the highest 2 % of points. The code
  takes the mean over 511 points in file order and the maximum, see ``as_released``.

Where the paper is silent: h of eq. 12 is the reconstructed tokens, delta is one vector over all parameters with length
``rpp_eps`` relative to theirs, ascent takes ``rpp_steps`` normalised steps, and the loss's weight is ``rpp_weight``.

Measured on scans of Anomaly-ShapeNet's format (8,192 points; object / point AUROC, seed 0). On bowl0 and clamp0,
without a network: nearest neighbour among local-frame tokens 0.98 / 0.86; with KAL inside Point-MAE (m = 10) 0.83 /
0.69, m = 1000 in between (clamp0); with random weights and KAL 0.75 / 0.74. After 160 steps at 1e-3: plain residuals
0.76 / 0.77, whitened 0.92 / 0.79, less the template's 0.91 / 0.83. For comparison without a network, tokens
averaged by place, four classes: 0.84 / 0.84, whitened 0.88 / 0.85, means over 8 tokens 0.92 / 0.88.
Eight classes in four tasks (`even:4`), one seed. Each task right after it was learned: 0.78 to 0.92 / 0.78 to 0.95
(mean 0.86 / 0.88); with a random backbone 0.65 to 0.71 / 0.66 to 0.75. At the end, with forgetting of object AUROC:

* naive 0.692 / 0.580, forgetting 0.229; random backbone 0.576 / 0.573, 0.149 (it has less to forget);
* softmax attention and no penalty, else the same: 0.575 / 0.527, 0.391;
* EWC at its default weight 0.700 / 0.584, 0.250: no help; Replay 0.809 / 0.811, 0.082; joint training 0.821 / 0.859.

Weak spots in joint training: bolt0 0.45 / 0.79 (cause not found), mug0's points 0.64.
``calibrate="vector"`` on networks trained so, with the penalty in every step: naive 0.811 / 0.847, joint 0.827 / 0.862.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call

import toolkit.ops
from toolkit.cloud import AnomalyMap, CloudBatch, PointCloud
from toolkit.nn.grouping import group
from toolkit.nn.kernel_attention import frozen_advisors
from toolkit.nn.point_mae import load_point_mae
from toolkit.nn.reconstruction import FourierPosition, Reconstruction
from toolkit.nn.registered import KEEP, THIN, RegisteredStrategy
from toolkit.store import key_of
from toolkit.strategy import Output, at_least, one_of
from toolkit.tuning.space import Categorical, Float, Int, Space

__all__ = ["C3DAD"]

SHRINK = 0.05
"""Share of the mean variance added to the residuals' covariance: few clouds leave its smallest directions undecided."""


class ReconstructionOutput(Output):
    """Reconstructed tokens (B * G, C) and the real ones."""

    def __init__(self, features: Tensor, target: Tensor):
        super().__init__(features)
        self.target = target


class _Net(nn.Module):
    """The reconstruction between standardised tokens, with what is known of its residuals on normal clouds."""

    mean: Tensor
    std: Tensor
    scatter: Tensor
    counted: Tensor

    def __init__(self, reconstruction: Reconstruction, channels: int):
        super().__init__()
        self.reconstruction = reconstruction
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("std", torch.ones(channels))
        self.register_buffer("scatter", torch.zeros(channels, channels))
        self.register_buffer("counted", torch.tensor(0))

    def forward(self, batch: CloudBatch) -> ReconstructionOutput:
        clouds = (batch.num_graphs, -1)
        tokens = ((batch.tokens - self.mean) / self.std).unflatten(0, clouds)
        rebuilt = self.reconstruction(tokens, batch.pos.unflatten(0, clouds))
        return ReconstructionOutput(rebuilt.flatten(0, 1), tokens.flatten(0, 1))

    def whitening(self) -> Tensor:
        """(C, C) matrix that turns residuals of normal clouds white; the identity before any were seen."""
        eye = torch.eye(len(self.mean), device=self.mean.device)
        if not self.counted:
            return eye
        covariance = self.scatter / self.counted
        covariance = covariance + SHRINK * covariance.diagonal().mean().clamp_min(1e-12) * eye
        return torch.linalg.solve_triangular(torch.linalg.cholesky(covariance), eye, upper=False).t()


class C3DAD(RegisteredStrategy):
    """Continual reconstruction of Point-MAE tokens by kernel attention with a learnable advisor (C3D-AD, 2025).

    Args:
        weights: of the frozen Point-MAE: shipped, random, or a file.
        backbone: size of the frozen Point-MAE, the preset of `load_point_mae`: compact or paper.
        backbone_attention: kal = random-feature attention inside Point-MAE (eq. 4-7), softmax = as it was trained.
        backbone_features: random features of kal.
        layer: the block whose tokens are used.
        groups: tokens per cloud.
        group_size: points per token.
        frame: local turns every group into its own frame before it is encoded, cloud keeps the template's.
        sample: tokens per cloud in a training step, drawn anew each epoch; 0 = all.
        attention: kaa = kernel attention with advisor (eq. 8-11), softmax = the same network without it.
        dim: width of the reconstruction network.
        feedforward: hidden width of its MLPs.
        depth: encoder layers, and decoder layers.
        inner: width of keys and queries.
        features: random features per attention (m of eq. 5).
        alpha: agreement of values and advisor (eq. 8).
        beta: step of the advisor (eq. 10).
        form: of the advisor: stable, paper or as_released.
        advisor_inference: frozen = eq. 11; transient = a copy of the advisor is moved by the cloud at hand.
        position: embedding of the centres: random fourier features, or an mlp as published.
        jitter: noise on training tokens, in 1 / channels of their length.
        dropout: in training.
        rpp_weight: weight of the perturbation penalty (eq. 12); 0 leaves it out.
        rpp_eps: length of the perturbation relative to that of the parameters.
        rpp_steps: ascent steps towards the worst perturbation.
        rpp_clouds: the penalty is taken on so many clouds of a batch,
        rpp_every: and in every so-many-th step, with so many times the weight.
        schedule: of the learning rate within a task: cosine to 0, or step = a tenth of it in the last fifth.
        whiten: measure residuals relative to the covariance of those of normal training clouds (Mahalanobis).
        calibrate: template = subtract the length of the residual of the stored template at the same place; vector =
            subtract that residual itself, before lengths are taken; none.
        smooth: token scores are means over so many neighbouring tokens.
        top_share: the object score is the mean of this share of the highest point scores; 0 = the maximum.
        as_released: repeat what the published code does instead of the paper: its random features and key stabilisers,
            alpha = beta = 0.1, plain SGD with learning rate 1 from the second task on, a perturbation penalty without
            gradient (so: none), smoothing over 511 points in file order and the maximum as object score. Overrides
            alpha, beta, form, rpp_weight, smooth, top_share, whiten and calibrate.
        options: further arguments of `RegisteredStrategy` and `AnomalyStrategy`.
    """

    paper = "Lu et al.: C3D-AD: Toward Continual 3D Anomaly Detection via Kernel Attention with Learnable Advisor. 2025"
    prepare_arguments = ("backbone", "backbone_attention", "backbone_features", "layer", "groups", "group_size",
                         "frame", "registration", "as_released")  # fmt: skip
    prepare_version = 2
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        # Anomaly-ShapeNet; weights must be the path of modelnet_8k.pth, which is not ours to ship
        "paper": dict(backbone="paper", backbone_attention="kal", layer=3, groups=2048, group_size=128, frame="cloud",
                      sample=0, dim=256, feedforward=1024, depth=4, inner=2048, features=10, form="paper", jitter=20.0,
                      dropout=0.1, position="mlp", advisor_inference="frozen", whiten=False, calibrate="none",
                      epochs=1000, batch_size=1, lr=1e-4, grad_clip=0.1, rpp_steps=3, rpp_every=1,
                      schedule="step"),
        "tiny": dict(groups=64, group_size=32, sample=48, dim=32, feedforward=32, depth=1, inner=32, features=16,
                     epochs=3),
    }  # fmt: skip
    search_space: ClassVar[dict[str, Space]] = {
        "lr": Float(3e-4, 1e-2, log=True, source="paper: 1e-4 over 1000 epochs"),
        "features": Int(10, 256, log=True, source="paper: m = 10 to 5000, Table 5"),
        "alpha": Float(0.1, 0.9, source="paper, Fig. 3"),
        "beta": Float(0.1, 0.9, source="paper, Fig. 3"),
        "rpp_weight": Float(1e-3, 1.0, log=True, source="released code: 0.01"),
        "rpp_eps": Float(0.01, 1.0, log=True, source="paper: 0.01 to 10, Table 4"),
        "advisor_inference": Categorical(("frozen", "transient"), source="eq. 11, and ours"),
        "calibrate": Categorical(("template", "vector", "none"), source="our choice"),
    }

    def __init__(self, *, weights: str = "shipped", backbone: Literal["compact", "paper"] = "compact",
                 backbone_attention: Literal["kal", "softmax"] = "softmax", backbone_features: int = 10,
                 layer: int = 3, groups: int = 512, group_size: int = 64, frame: Literal["local", "cloud"] = "local",
                 sample: int = 256, attention: Literal["kaa", "softmax"] = "kaa", dim: int = 128,
                 feedforward: int = 256, depth: int = 2, inner: int = 128, features: int = 64, alpha: float = 0.7,
                 beta: float = 0.7, form: Literal["stable", "paper", "as_released"] = "stable",
                 advisor_inference: Literal["frozen", "transient"] = "transient",
                 position: Literal["fourier", "mlp"] = "fourier", jitter: float = 14.0, dropout: float = 0.0,
                 rpp_weight: float = 0.01, rpp_eps: float = 0.1, rpp_steps: int = 1, rpp_clouds: int = 1,
                 rpp_every: int = 4, schedule: Literal["cosine", "step"] = "cosine", whiten: bool = True,
                 calibrate: Literal["template", "vector", "none"] = "template", smooth: int = 8,
                 top_share: float = 0.02, as_released: bool = False, epochs: int = 80, batch_size: int = 4,
                 lr: float = 3e-3, grad_clip: float = 1.0, **options: Any):  # fmt: skip
        self.weights, self.backbone, self.backbone_attention = weights, backbone, backbone_attention
        self.backbone_features, self.layer, self.frame = backbone_features, layer, frame
        self.groups, self.group_size, self.sample, self.attention, self.dim = groups, group_size, sample, attention, dim
        self.feedforward, self.depth, self.inner, self.features = feedforward, depth, inner, features
        self.alpha, self.beta, self.form, self.advisor_inference = alpha, beta, form, advisor_inference
        self.position, self.jitter, self.dropout = position, jitter, dropout
        self.rpp_weight, self.rpp_eps, self.rpp_steps, self.rpp_clouds = rpp_weight, rpp_eps, rpp_steps, rpp_clouds
        self.rpp_every, self.schedule, self.whiten, self.calibrate = rpp_every, schedule, whiten, calibrate
        self.smooth, self.top_share, self.as_released = smooth, top_share, as_released
        at_least(self, backbone_features=1, groups=4, group_size=4, sample=0, dim=4, feedforward=1, depth=1, inner=1,
                 features=1, jitter=0, dropout=0, rpp_weight=0, rpp_eps=0, rpp_steps=1, rpp_clouds=1, rpp_every=1,
                 smooth=1, top_share=0)  # fmt: skip
        one_of(self, attention=("kaa", "softmax"), position=("fourier", "mlp"), schedule=("cosine", "step"),
               frame=("local", "cloud"), calibrate=("template", "vector", "none"))  # fmt: skip
        self._encoder = load_point_mae(weights, backbone, backbone_attention, seed=options.get("seed", 0),
                                       features=backbone_features, as_released=as_released)  # fmt: skip
        self._encoder_key = key_of(self._encoder.state_dict())
        super().__init__(epochs=epochs, batch_size=batch_size, lr=lr, grad_clip=grad_clip, **options)
        self._expected: dict[str, tuple[list[tuple[Tensor, int, bool]], Tensor, Tensor]] = {}

    def build(self) -> nn.Module:
        """The reconstruction network."""
        channels, released = self._encoder.dim, self.as_released
        advisor: dict[str, Any] = dict(inner=self.inner, features=self.features, alpha=0.1 if released else self.alpha,
                       beta=0.1 if released else self.beta, form="as_released" if released else self.form,
                       advisor_inference=self.advisor_inference)  # fmt: skip
        net: Any = Reconstruction(channels, self.dim, self.feedforward, self.depth, dropout=self.dropout,
                                  jitter=self.jitter, attention=self.attention, heads=4, advisor=advisor)  # fmt: skip
        if self.position == "fourier":
            net.pos_embed = FourierPosition(64, self.dim)
        return _Net(net, channels)

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
        return PointCloud(placed[found.rows], tokens=tokens, at=points[found.rows])

    def augment(self, cloud: PointCloud) -> PointCloud:
        """Some of the tokens: a step costs less, and the advisor's mean over tokens stays right on average."""
        if not 0 < self.sample < self.groups:
            return cloud
        rows = torch.randperm(self.groups, generator=self.generator)[: self.sample]
        some = cloud.clone_shallow()
        some.pos, some.tokens, some.at = cloud.pos[rows], cloud.tokens[rows], cloud.at[rows]
        return some

    def loss_of(self, output: ReconstructionOutput) -> Tensor:
        """Mean squared error of the tokens."""
        return (output.features - output.target).pow(2).mean()

    def penalty(self, batch: CloudBatch, output: Any) -> Tensor | float:
        """RPP, eq. 12: how far the reconstruction moves under the worst small change of the parameters."""
        if not self.rpp_weight or self.as_released or self.clock.train_iterations % self.rpp_every:
            return 0.0
        some = batch[: self.rpp_clouds] if self.rpp_clouds < batch.num_graphs else batch
        return self.rpp_weight * self.rpp_every * self.perturbed_change(some)[-1]

    def perturbed_change(self, batch: CloudBatch) -> list[Tensor]:
        """Mean squared change of the reconstruction after 0, 1, .., `rpp_steps` ascent steps; the last has gradients.

        Both branches see the same noise and dropout, and the advisors stay as they are.
        """
        net: Any = self.model
        parameters: dict[str, Tensor] = dict(net.named_parameters())
        start = {n: torch.randn(p.shape, device=p.device) for n, p in parameters.items()}
        delta = self._bounded(start, parameters, 0.1)
        changes = []
        with frozen_advisors(net):
            here = self._answer(parameters, batch)
            for _ in range(self.rpp_steps):
                free = {n: d.detach().requires_grad_() for n, d in delta.items()}
                moved = self._answer({n: p.detach() + free[n] for n, p in parameters.items()}, batch)
                change = (moved - here.detach()).pow(2).mean()
                changes.append(change.detach())
                slopes = torch.autograd.grad(change, list(free.values()), allow_unused=True)
                slope = {n: torch.zeros_like(d) if g is None else g for (n, d), g in zip(free.items(), slopes)}
                climbed = self._bounded(slope, parameters, 1.0)
                delta = self._bounded({n: free[n].detach() + climbed[n] for n in free}, parameters, 1.0)
            moved = self._answer({n: p + delta[n] for n, p in parameters.items()}, batch)
            changes.append((moved - here).pow(2).mean())
        return changes

    def _answer(self, parameters: dict[str, Tensor], batch: CloudBatch) -> Tensor:
        """(M, C) reconstruction under other parameters, from the random numbers that the next call will see, too."""
        devices = [torch.device(self.device)] if torch.device(self.device).type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            return functional_call(self.model, parameters, (batch,)).features

    def _bounded(self, delta: dict[str, Tensor], parameters: dict[str, Tensor], share: float) -> dict[str, Tensor]:
        """Scale a perturbation to `share` of the allowed length."""
        length = torch.stack([d.norm() for d in delta.values()]).norm().clamp_min(1e-12)
        allowed = share * self.rpp_eps * torch.stack([p.detach().norm() for p in parameters.values()]).norm()
        return {n: d * (allowed / length) for n, d in delta.items()}

    def make_optimizer(self, **kwargs: Any) -> None:
        """AdamW afresh; the released code goes on with plain SGD and learning rate 1 after the first task."""
        super().make_optimizer()
        if self.as_released and self.clock.train_exp_counter > 0:
            self.optimizer = torch.optim.SGD(self.model.parameters(), lr=1.0)
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
        with torch.no_grad():
            for cloud in self._raw:
                residual = self.residual(self.prepared(cloud))
                net.scatter += residual.t() @ residual
                net.counted += residual.shape[0]
        net.train()
        super()._after_training_exp(**kwargs)

    def residual(self, prepared: PointCloud) -> Tensor:
        """(G, C) what is left of each standardised token after reconstruction."""
        output = self.model(CloudBatch.collate([prepared]).to(self.device))
        return output.features - output.target

    def _measured(self, prepared: PointCloud) -> Tensor:
        """(G, C) residuals in the metric in which their length is taken, on the CPU."""
        net: Any = self.model
        residual = self.residual(prepared)
        return (residual @ net.whitening() if self.whiten and not self.as_released else residual).detach().cpu()

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
        """Residual per token, less the template's at the same place, spread to the points."""
        prepared = self.prepared(cloud)
        residual = self._measured(prepared)
        if self.as_released:
            point = toolkit.ops.interpolate(residual.norm(dim=1), prepared.at, cloud.pos, k=1)
            point = toolkit.ops.smooth_by_order(point, 511, file_order=cloud.get("file_order"))
            return AnomalyMap(point.float(), float(point.max()))
        template = self.templates_.get(cloud.category)
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
