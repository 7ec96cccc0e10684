"""PatchCore on point clouds: nearest neighbour in a greedy coreset of normal features.

Paper: Roth et al., "Towards Total Recall in Industrial Anomaly Detection", CVPR 2022; on point clouds as in the code of
Real3D-AD (Liu et al., NeurIPS 2023), whose variants FPFH, FPFH+raw and PointMAE are ``features`` here.

The same: coreset of 10,000 rows by greedy k-centre selection; nearest neighbour; object score = largest point score.
Distances are not squared, which changes no ranking. The published re-weighting of the object score, which Real3D-AD's
code leaves out, is ``lof=0, object_score="reweighted"``.

Different by default; in brackets what gives the published way back:

* Features are described on a voxel grid relative to the class, FPFH as square roots of its counts, and scores are
  relative to local density, smoothed and interpolated, all for the reasons given in BTF (preset "paper": ``lof=0,
  smooth=1, spread=1, hellinger=False, units="absolute", voxel=0.5``; FPFH of all points of the full cloud:
  ``BTF(stride=1, selection="coreset")``).
* Registration only for ``raw+fpfh``, whose coordinates need it; to the first training cloud of the class; by candidate
  poses and refinement (`toolkit.ops.register`) instead of RANSAC alone on normals without a sign rule.
* The coreset starts from one random row and, above 64 dimensions, measures in a random projection to 64; the code
  starts from ten and always projects to 128, 33 dimensions included.
* Point-MAE: evaluation mode (the code leaves batch statistics and stochastic depth on), groups turned into their own
  frame instead of registration, and our compact weights on fewer groups unless an official checkpoint is given
  (``backbone="paper", weights="pretrain.pth", layers=(3, 7, 11), groups=16384, group_size=128, frame="cloud",
  register=True``).

Measured on eight real scans (Anomaly-ShapeNet layout, 8,192 points, one model per class; object / point AUROC), FPFH:
.849 / .928. By class: banana 1.000/.980, bolt .635/.871, bowl .952/.942, clamp .788/.889, hammer .923/.978, mug
.760/.827, pitcher .885/.966, screwdriver .846/.971. Bolt stays below .72 for objects, as with BTF (.635): its thread
looks alike everywhere to a descriptor without place; Reg3DAD, which knows the place, gives .962.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from toolkit.cloud import PointCloud
from toolkit.nn.bank import BankStrategy
from toolkit.nn.fpfh_grid import describe
from toolkit.nn.grouping import group
from toolkit.nn.point_mae import PointMAE, load_point_mae
from toolkit.ops import diagonal, voxel_downsample
from toolkit.ops.register import Template, register
from toolkit.store import key_of
from toolkit.strategy import at_least, one_of
from toolkit.tuning.space import Categorical, Float, Int, Space

__all__ = ["PatchCore"]


class PatchCore(BankStrategy):
    """Nearest neighbour in a greedy coreset of FPFH, FPFH with coordinates, or Point-MAE tokens (Roth et al. 2022).

    Args:
        features: what describes a place.
        register: lay each cloud on the first training cloud of its class; None does so for raw+fpfh only. That cloud,
            thinned, is kept for good, besides the bank.
        hellinger: compare square roots of FPFH.
        raw_weight: weight of coordinates, counted in voxels, beside FPFH.
        backbone: size of Point-MAE, the preset of `load_point_mae`.
        weights: "shipped", "random" or the file of an official checkpoint.
        groups: tokens per cloud, at most one per described point.
        group_size: described points per token.
        layers: blocks whose tokens are put side by side; -1 is the token before any attention.
        frame: "local" turns every group into its own frame, so that pose does not matter; "cloud" keeps the cloud's.
        options: further arguments of `BankStrategy` and `AnomalyStrategy`.
    """

    paper = "Roth et al.: Towards Total Recall in Industrial Anomaly Detection. CVPR 2022"
    prepare_arguments = ("features", "voxel", "units", "register", "hellinger", "raw_weight", "groups", "group_size",
                         "layers", "frame")  # fmt: skip
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": dict(lof=0, smooth=1, spread=1, hellinger=False, units="absolute", voxel=0.5),
        "tiny": dict(bank_size=300, smooth=4),
    }
    search_space: ClassVar[dict[str, Space]] = {
        "voxel": Float(0.008, 0.03, log=True, source="ours; half to twice the default"),
        "bank_size": Int(1_000, 10_000, log=True, source="published: 10,000"),
        "lof": Int(0, 10, source="ours; published: 0"),
        "smooth": Int(1, 32, source="ours; published: 1"),
        "object_score": Categorical(("max", "top"), source="ours"),
    }

    def __init__(self, *, features: Literal["fpfh", "raw+fpfh", "point_mae"] = "fpfh", register: bool | None = None,
                 hellinger: bool = True, raw_weight: float = 0.3, backbone: Literal["compact", "paper"] = "compact",
                 weights: str = "shipped", groups: int = 1024, group_size: int = 64,
                 layers: tuple[int, ...] = (-1, 1, 3), frame: Literal["local", "cloud"] = "local",
                 **options: Any):  # fmt: skip
        self.features, self.register, self.hellinger, self.raw_weight = features, register, hellinger, raw_weight
        self.backbone, self.weights, self.groups, self.group_size = backbone, weights, groups, group_size
        self.layers, self.frame = tuple(layers), frame
        one_of(self, features=("fpfh", "raw+fpfh", "point_mae"), backbone=("compact", "paper"),
               frame=("local", "cloud"))  # fmt: skip
        at_least(self, raw_weight=1e-6, groups=1, group_size=3)
        super().__init__(**options)
        self._encoder: PointMAE | None = None
        self._templates: dict[str, tuple[Tensor, Template]] = {}
        self.templates_: dict[str, Tensor] = {}
        if features == "point_mae":
            self._encoder = load_point_mae(weights, backbone, seed=self.seed).to(self.device)
            self._encoder_key = key_of(self._encoder.state_dict())

    @property
    def registers(self) -> bool:
        """Whether clouds are registered."""
        return self.features == "raw+fpfh" if self.register is None else self.register

    def meet(self, clouds: Sequence[PointCloud]) -> None:
        """Measure a class when it first appears, and keep its first cloud to register others to."""
        super().meet(clouds)
        for cloud in clouds if self.registers else ():
            if cloud.category not in self.templates_:
                self.templates_[cloud.category] = voxel_downsample(cloud.pos, self.voxel_of(cloud) / 2)

    def prepare_key(self, cloud: PointCloud) -> str:
        """The size of the class, its template, and the network."""
        parts = [super().prepare_key(cloud)]
        if cloud.category in self.templates_:
            parts.append(key_of(self.templates_[cloud.category]))
        if self._encoder is not None:
            parts.append(self._encoder_key)
        return " ".join(parts)

    def prepare(self, cloud: PointCloud) -> PointCloud:
        """The described points, where they are in the cloud, with their features."""
        voxel = self.voxel_of(cloud.check(minimum=3))
        if self.features == "point_mae":
            points = voxel_downsample(cloud.pos, voxel)
            rows, feature = self._tokens(cloud, self._placed(cloud, points))
            return PointCloud(points[rows], feature=feature)
        points, feature = describe(cloud.pos, voxel, hellinger=self.hellinger)
        if self.features == "raw+fpfh":
            feature = torch.cat([feature, self._placed(cloud, points) / voxel * self.raw_weight], 1)
        return PointCloud(points, feature=feature)

    def _placed(self, cloud: PointCloud, points: Tensor) -> Tensor:
        """Points of a cloud relative to the centre of the template they are laid on, or to their own without one."""
        target = self.templates_.get(cloud.category)
        if target is None:
            return points - cloud.pos.mean(0)
        kept = self._templates.get(cloud.category)
        if kept is None or kept[0] is not target:
            kept = self._templates[cloud.category] = (target, Template(target))
        return register(cloud.pos, kept[1], seed=self.seed).apply(points) - target.mean(0)

    def _tokens(self, cloud: PointCloud, points: Tensor) -> tuple[Tensor, Tensor]:
        """Rows of the group centres (G,) and their tokens (G, dim * layers), of points scaled to a unit sphere."""
        assert self._encoder is not None
        size = self.scales_.get(cloud.category) or diagonal(cloud.pos)
        found = group(points * (2 / size), min(self.groups, points.shape[0]), self.group_size, scale="none",
                      frame=self.frame)  # fmt: skip
        tokens = self._encoder(found.centre[None].to(self.device), found.neighbours[None].to(self.device), self.layers)
        return found.rows, torch.cat(tokens, 2)[0].float().cpu()
