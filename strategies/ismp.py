"""ISMP: what a part looks like inside, what its surface is like, and where its points lie, each against normal parts.

Paper: "Look Inside for More: Internal Spatial Modality Perception for 3D Anomaly Detection" (ISMP), AAAI 2025. Verified
are the abstract, two figures and the released code, which its README calls a rebuild by third parties; the body of the
paper could not be read, and what is said of it here is inferred.

The same (variant "code2" of the code as it is meant): every cloud is registered to the first of its class; a Spatial
Insight Engine draws four slices through it and a frozen image network makes one global vector of them; key points
chosen by farthest point sampling carry FPFH beside Point-MAE tokens; a bank of these gives point scores, the same with
the global vector object scores, and a second bank holds registered coordinates; the two banks count half each.

Different by default; in brackets what gives the published way back, as far as there is one:

* Scales of the fused scores come from normal training clouds scored by banks of the others, not from the extremes over
  the test set.
* The distance of [global | local] vectors is the root of the sum of two squares, the global one constant over a cloud.
  So global vectors are kept once per training cloud and not beside each row; each part is relative to what normal
  clouds show, as raw units of networks cannot be compared (``inside_weight`` is the weight of the global one).
* The image network is EfficientNet-B0 in the paper (``slice_weights="efficientnet_b0_*.pth"``), whose weights are not
  ours to ship; the default is a small one that `toolkit.nn.slice_pretrain` trained to tell procedural parts apart by
  their slices (93 % of held-out variants), see `toolkit.nn.slice_trunk`.
* Feature filter: published nowhere, ours is `toolkit.nn.feature_filter`, fitted to the first task and then left alone,
  so that rows of all tasks can be compared (``feature_filter="none", scale_blocks=False``: FPFH, whose counts sum to
  hundreds, then outweighs the tokens).
* Compact Point-MAE weights, groups in their own frames, 1,024 key points (``preset="paper"``; ``backbone="paper",
  weights="pretrain.pth", layers=(3, 7, 11)`` with the official checkpoint).
* Registration by candidate poses and refinement, lengths relative to the class, points described on a voxel grid, and
  scores relative to local density, smoothed and interpolated, for the reasons given in BTF (``lof=0, smooth=1,
  spread=1``). Coordinates are compared at the grid's points, not at all points.

Measured on the 8 household scans (object / point AUROC, one model per class, seed 0): 0.936 / 0.977; from 0.885
(clamp0) to 0.981 (screwdriver0) and from 0.954 (bolt0) to 0.993 (banana0). The global vector adds nothing to that:
object AUROC on clamp0, bowl0, mug0 without it (``inside_weight=0``) 0.846, 0.952, 0.933; with the shipped network
0.885, 0.933, 0.904, with ``slice_weights="grid"`` 0.865, 0.923, 0.894, with "random" 0.904, 0.952, 0.923. One of 21
clouds moves these figures by 0.05; we ship what is nearest to the paper, not the best of the four. Alone, the distance
of global vectors reaches 0.663, 0.615, 0.500 (shipped) and 0.692, 0.846, 0.673 ("grid"). Without the coordinate bank
(``place_weight=0``) 0.827 / 0.964, 0.962 / 0.970 and 0.837 / 0.865. Dropping the feature filter changed nothing on
clamp0. EfficientNet ran from a file of random weights only (clamp0 0.856 / 0.971, 1.2 s per cloud), as ImageNet's were
not at hand. Published: 0.767 / 0.836 averaged on Real3D-AD (from memory, not verified).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from toolkit.cloud import AnomalyMap, PointCloud
from toolkit.errors import HyperparameterError
from toolkit.nn.bank import Bank, BankStrategy, look_up, rows_of, select
from toolkit.nn.feature_filter import FeatureFilter, fit_filter
from toolkit.nn.fpfh_grid import describe
from toolkit.nn.grouping import group
from toolkit.nn.held_out import centre_and_scale, held_out_scores
from toolkit.nn.point_mae import load_point_mae
from toolkit.nn.registered import RegisteredStrategy
from toolkit.nn.slice_trunk import load_slice_trunk
from toolkit.nn.slices import slices
from toolkit.nn.two_banks import update_together
from toolkit.ops import bank_nearest, interpolate, knn, smooth
from toolkit.ops.rigid import fit_rigid, transformed
from toolkit.store import key_of
from toolkit.strategy import at_least, one_of
from toolkit.stream import CloudList
from toolkit.tuning.space import Categorical, Float, Int, Space

__all__ = ["ISMP"]

PLACES = 0.1
"""Share of a budget in bytes that goes to the coordinate bank, whose rows are some 100 times smaller."""


class Model(NamedTuple):
    """What is known of normal parts of a category (or of all).

    Attributes:
        feature: (M, K) filtered features of key points.
        expected: (M,) distance to be expected at each.
        place: (R, 3) registered points.
        inside: (J, S) global vectors.
    """

    feature: Tensor
    expected: Tensor
    place: Tensor
    inside: Tensor


class Scales(NamedTuple):
    """Held-out statistics of normal parts: mean and deviation of local and coordinate scores, and how far apart their
    global vectors lie."""

    local_mean: float
    local_scale: float
    place_mean: float
    place_scale: float
    inside_scale: float


class ISMP(RegisteredStrategy, BankStrategy):
    """Slices through the part, enhanced key points and registered coordinates, each with a bank (ISMP, AAAI 2025).

    Args:
        groups: key points per cloud, at most one per described point.
        group_size: described points per key point.
        backbone: size of Point-MAE, see `load_point_mae`.
        weights: its weights: "shipped", "random" or the file of an official checkpoint.
        layers: its blocks whose tokens are put side by side; -1 is the token before any attention.
        frame: "local" turns every group into its own frame; "cloud" keeps that of the registered cloud.
        hellinger: compare square roots of FPFH.
        feature_filter: "ours" drops channels without variance and parallel ones, see `toolkit.nn.feature_filter`.
        scale_blocks: give FPFH and Point-MAE equal weight; False puts them side by side as they are.
        slice_weights: trunk of the global features, see `load_slice_trunk`.
        slice_pixels: edge of the slices; 0 is what the trunk is made for.
        slice_axis: direction of view, in the template's coordinates.
        normalize_slices: for EfficientNet, see `EfficientNetTrunk`.
        inside_weight: weight of the global distance in the object score.
        place_weight: weight of the coordinate bank in both scores, 0 to 1; that of the features is the rest.
        place_rows: rows of the coordinate bank per category and task.
        options: further arguments of `RegisteredStrategy`, `BankStrategy` and `AnomalyStrategy`.
    """

    paper = "Look Inside for More: Internal Spatial Modality Perception for 3D Anomaly Detection (ISMP). AAAI 2025"
    survives_restart = (*BankStrategy.survives_restart,)
    prepare_arguments = ("registration", "voxel", "units", "groups", "group_size", "layers", "frame", "hellinger",
                         "slice_pixels", "slice_axis", "normalize_slices")  # fmt: skip
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {"groups": 16_384, "group_size": 128, "frame": "cloud", "hellinger": False, "feature_filter": "none",
                  "scale_blocks": False, "lof": 0, "smooth": 1, "spread": 1},
        "tiny": {"groups": 100, "group_size": 16, "layers": (-1,), "place_rows": 500, "bank_size": 300},
    }  # fmt: skip
    search_space: ClassVar[dict[str, Space]] = {
        "groups": Int(512, 4096, log=True, source="paper: 16,384 of clouds 20 to 100 times as dense"),
        "group_size": Categorical((32, 64, 128), source="paper: 128"),
        "place_weight": Float(0.0, 1.0, source="paper: 0.5"),
        "inside_weight": Float(0.0, 2.0, source="ours; the concatenation is 1"),
        "feature_filter": Categorical(("ours", "none"), source="the released code is without a filter"),
    }

    def __init__(self, *, groups: int = 1024, group_size: int = 64, backbone: Literal["compact", "paper"] = "compact",
                 weights: str = "shipped", layers: tuple[int, ...] = (-1, 1, 3),
                 frame: Literal["local", "cloud"] = "local", hellinger: bool = True,
                 feature_filter: Literal["ours", "none"] = "ours", scale_blocks: bool = True,
                 slice_weights: str = "shipped", slice_pixels: int = 0, slice_axis: int = 2,
                 normalize_slices: bool = False, inside_weight: float = 1.0, place_weight: float = 0.5,
                 place_rows: int = 10_000, **options: Any):  # fmt: skip
        self.groups, self.group_size, self.backbone, self.weights = groups, group_size, backbone, weights
        self.layers, self.frame, self.hellinger = tuple(layers), frame, hellinger
        self.feature_filter, self.scale_blocks = feature_filter, scale_blocks
        self.slice_weights, self.slice_pixels, self.slice_axis = slice_weights, slice_pixels, slice_axis
        self.normalize_slices, self.inside_weight = normalize_slices, inside_weight
        self.place_weight, self.place_rows = place_weight, place_rows
        one_of(self, backbone=("compact", "paper"), frame=("local", "cloud"), feature_filter=("ours", "none"),
               slice_axis=(0, 1, 2))  # fmt: skip
        at_least(self, groups=1, group_size=3, slice_pixels=0, inside_weight=0.0, place_weight=0.0, place_rows=1)
        if place_weight > 1:
            raise HyperparameterError(f"ISMP: place_weight must be at most 1, got {place_weight}.")
        super().__init__(**options)
        self._encoder = load_point_mae(weights, backbone, seed=self.seed).to(self.device)
        self._trunk = load_slice_trunk(slice_weights, seed=self.seed, normalize=normalize_slices).to(self.device)
        self._networks_key = key_of(self._encoder.state_dict(), self._trunk.state_dict())

    # ---- features ---------------------------------------------------------------------------------------------------

    def prepare_key(self, cloud: PointCloud) -> str:
        """The template, the size of the class, and the networks."""
        return f"{super().prepare_key(cloud)} {self._networks_key}"

    def prepare(self, cloud: PointCloud) -> PointCloud:
        """Described points of a cloud and all that is known of them.

        ``pos`` (M, 3) in the cloud's own coordinates, ``place`` (M, 3) registered, ``row`` (G,) which of them are key
        points, ``feature`` (G, D) of these, ``inside`` (S,) of the whole.
        """
        placed = self.place(cloud.check(minimum=3))
        pos, histogram = describe(cloud.pos, self.voxel_of(cloud), hellinger=self.hellinger)
        place = _carried(pos, cloud.pos, placed)
        found = group(place, min(self.groups, pos.shape[0]), min(self.group_size, pos.shape[0]), scale="none",
                      frame=self.frame)  # fmt: skip
        tokens = self._encoder(found.centre[None].to(self.device), found.neighbours[None].to(self.device), self.layers)
        feature = torch.cat([histogram[found.rows], torch.cat(tokens, 2)[0].float().cpu()], 1)
        views = slices(placed, self.slice_pixels or self._trunk.pixels, axis=self.slice_axis)
        inside = self._trunk(views[None].to(self.device))[0].cpu()
        return PointCloud(pos, place=place, row=found.rows, feature=feature, inside=inside)

    # ---- banks ------------------------------------------------------------------------------------------------------

    def fit(self, clouds: CloudList) -> None:
        """Put the normal clouds of a task into the banks, and learn the scales of their scores from each other."""
        found: dict[str, list[PointCloud]] = {}
        for sample in clouds.samples:
            cloud = clouds.load(sample)
            found.setdefault(cloud.category, []).append(cloud)
        if not hasattr(self, "kept_"):  # the first task decides, so that rows of all tasks can be compared
            every = torch.cat([cloud.feature for parts in found.values() for cloud in parts])
            ours = dict(least=1e-6, parallel=0.95) if self.feature_filter == "ours" else dict(least=0.0, parallel=1.0)
            fitted = fit_filter(every, (33, every.shape[1] - 33), equal=self.scale_blocks, **ours)
            self.kept_, self.scale_ = fitted.kept, fitted.scale
        new: dict[str, Bank] = {"places": {}, "features": {}}
        replace = self.policy == "overwrite"
        self.insides_: dict[str, Tensor] = {} if replace else dict(vars(self).get("insides_", {}))
        self.calibration_: dict[str, list[float]] = {} if replace else dict(vars(self).get("calibration_", {}))
        for category, parts in found.items():
            new["features"][category], new["places"][category] = self._feature_rows(parts), self._place_rows(parts)
            inside = torch.stack([part.inside for part in parts])
            self.insides_[category] = torch.cat([self.insides_.get(category, inside[:0]), inside])
            self.calibration_[category] = list(self._calibrate(parts))
        old = {"places": vars(self).get("places_", {}), "features": self._bank()}
        shares = {"places": PLACES, "features": 1 - PLACES}
        banks = update_together(old, new, shares, policy=self.policy, budget=self.budget, seed=self.seed)
        self.bank_, self.places_ = banks["features"], banks["places"]

    def _feature_rows(self, parts: Sequence[PointCloud]) -> Tensor:
        keep = FeatureFilter(self.kept_, self.scale_)
        rows = rows_of([keep(p.feature) for p in parts], [p.pos[p.row] for p in parts], lof=self.lof,
                       k_smooth=self.smooth)  # fmt: skip
        return select(rows, self.bank_size or rows.shape[0], self.selection, self.seed)

    def _place_rows(self, parts: Sequence[PointCloud]) -> Tensor:
        place = torch.cat([part.place for part in parts])
        rows = torch.cat([place, torch.ones(len(place), 1)], 1)
        return select(rows, self.place_rows, "stride", self.seed)

    def _calibrate(self, parts: Sequence[PointCloud]) -> Scales:
        """Statistics of each cloud's scores by banks of the others."""

        def fit(others: Sequence[PointCloud]) -> Model:
            rows = self._feature_rows(others)
            inside = torch.stack([part.inside for part in others])
            return Model(rows[:, :-1], rows[:, -1], self._place_rows(others)[:, :3], inside)

        local = held_out_scores(parts, fit, lambda model, part: self._local(model, part)[0])
        place = held_out_scores(parts, fit, self._place)
        inside = held_out_scores(parts, fit, self._inside)
        mean = float(torch.stack(inside).mean())
        return Scales(*centre_and_scale(local), *centre_and_scale(place), mean if mean > 0 else 1.0)

    # ---- scores -----------------------------------------------------------------------------------------------------

    def score(self, cloud: PointCloud) -> AnomalyMap:
        """Calibrated distances to the banks, carried to all points; zeros while they are empty."""
        cloud.check()
        if not self._bank():
            return AnomalyMap(torch.zeros(cloud.pos.shape[0]), 0.0)
        model, scales = self._known(cloud.category if self.per_category else None)
        part = self.prepared(cloud)
        relative, local = self._local(model, part)
        place = (self._place(model, part) - scales.place_mean) / scales.place_scale
        point = (1 - self.place_weight) * (local - scales.local_mean) / scales.local_scale + self.place_weight * place
        inside = self.inside_weight * float(self._inside(model, part)) / scales.inside_scale
        whole = (float(relative.max()) ** 2 + inside**2) ** 0.5
        whole = (whole - scales.local_mean) / scales.local_scale
        best = (1 - self.place_weight) * whole + self.place_weight * float(place.max())
        return AnomalyMap(interpolate(point, part.pos, cloud.pos.cpu(), k=self.spread), best)

    def _known(self, category: str | None) -> tuple[Model, Scales]:
        """Banks and scales of a category; of all together if it is None or was never trained on."""
        feature, expected = look_up(self._bank(), category)
        place, _ = look_up(self.places_, category)
        known = category is not None and category in self.insides_
        inside = self.insides_[category] if known and category else torch.cat(list(self.insides_.values()))
        rows = [self.calibration_[category]] if known and category else list(self.calibration_.values())
        return Model(feature, expected, place, inside), Scales(*torch.tensor(rows).mean(0).tolist())

    def _local(self, model: Model, part: PointCloud) -> tuple[Tensor, Tensor]:
        """Distances of the key points' features (G,), relative to what is expected, and the same at all points (M,)."""
        feature = FeatureFilter(self.kept_, self.scale_)(part.feature).to(self.device)
        distance, found = bank_nearest(model.feature.to(self.device), feature)
        relative = distance[:, 0].cpu() / model.expected[found[:, 0].cpu()]
        centre = part.pos[part.row]
        relative = smooth(relative, centre, k=self.smooth)
        return relative, interpolate(relative, centre, part.pos, k=self.spread)

    def _place(self, model: Model, part: PointCloud) -> Tensor:
        """(M,) distances of registered points to the coordinate bank."""
        return smooth(knn(model.place, part.place, 1)[1][:, 0], part.pos, k=self.smooth)

    def _inside(self, model: Model, part: PointCloud) -> Tensor:
        """Distance of the global vector to the nearest normal one."""
        return (model.inside - part.inside).norm(dim=1).min()


def _carried(pos: Tensor, raw: Tensor, placed: Tensor) -> Tensor:
    """Points (M, 3) in the coordinates of ``raw`` (N, 3) under the similarity that took it to ``placed`` (N, 3)."""
    scale = _size(placed) / max(_size(raw), 1e-12)
    step = max(1, raw.shape[0] // 4096)
    return transformed(pos * scale, fit_rigid(raw[::step] * scale, placed[::step]))


def _size(pos: Tensor) -> float:
    """Twice the root mean square distance from the mean: a size that turning does not change."""
    return 2 * float((pos.double() - pos.double().mean(0)).square().sum(1).mean().sqrt())
