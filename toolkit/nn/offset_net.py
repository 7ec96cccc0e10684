"""Base of PO3AD and MC4AD: a sparse U-Net learns, on pseudo anomalies, how far each point was pushed off its place.

Both methods train on one cloud per step and class with pseudo anomalies made anew, and score a point by the length of
the offset predicted for it. What they share, their choices for training on a few CPU cores included, is here:

* Published input: the coordinates of a voxel's point. On scans of registered objects 300 steps of it do not get far
  (areas under the ROC curve on the training clouds' own pseudo anomalies: 0.70). So by default (``inputs="reference"``)
  the network also sees how far each point lies off the surface of its class, which is kept from the first training
  clouds that registration has laid on each other, and predicts what share of that is meant as well as a free vector.
* Published loss: moved points are 1 in 64, so that a network that predicts 0 everywhere is nearly right; and outputs
  start at 1 where targets are 0.05, which alone costs the first 100 steps. ``balanced=True`` lets moved and other
  points weigh the same and counts outputs in voxels.
* What the network says of normal clouds is its error. Much of it is the same on every cloud of a class, and in place:
  ``calibrate=True`` keeps the mean vector of the training clouds at each place of a class after the task that brought
  it, and subtracts it from the vectors of test clouds. On clamp0, the same network: objects 0.76 without, 0.96 with.
* Grids lie at a random phase in training and at several at test time, whose predictions are averaged.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

import toolkit.ops
from toolkit.cloud import AnomalyMap, CloudBatch, PointCloud
from toolkit.defects.base import Defect
from toolkit.errors import HyperparameterError
from toolkit.nn.placed import less_means, place_means, plane_gap, thinned
from toolkit.nn.registered import RegisteredStrategy
from toolkit.nn.sparse_conv import voxelise
from toolkit.nn.sparse_unet import SparseUNet, UNetSize
from toolkit.strategy import Output, at_least, one_of
from toolkit.tuning.space import Float, Int, Space

SCANS = 4
"""Training clouds whose points make up the reference surface of a class."""
LEAST = 16
"""Points of the smallest cloud that is scored."""
NEAR = 6
"""Points of it that are averaged."""

Inputs = Literal["xyz", "local", "reference"]

PUBLISHED: dict[str, Any] = dict(
    network="paper", voxel=0.03, inputs="xyz", registration=False, balanced=False, defects=1, amplitude_low=0.06,
    amplitude_high=0.12, rotation=180.0, shift=0.0, jitter=0.0, keep=1.0, versions=8, warmup=0.01, passes=1,
    calibrate=False, smooth=1, object_score="mean", epochs=12_012, batch_size=4, lr=1e-3, weight_decay=0.0,
)  # fmt: skip
"""Published sizes and schedule of PO3AD. Its batches of 32 are templates of a class, each repeated; here 4 clouds in 8
versions. 1,001 epochs of 12 such batches are 12,012 passes over the 4 templates."""
TINY: dict[str, Any] = dict(network="tiny", registration=False, voxel=0.1, defects=2, parts=32, passes=1, smooth=4,
                            epochs=2)  # fmt: skip
"""The smallest that runs through every line; but for registration, which has tests of its own and takes longest."""
SPACE: dict[str, Space] = {
    "lr": Float(1e-3, 2e-2, log=True, source="paper: 1e-3 over 12,000 steps; ours: 1e-2 over 60"),
    "voxel": Float(0.03, 0.07, log=True, source="paper: 0.03"),
    "amplitude_low": Float(0.005, 0.06, log=True, source="paper: 0.06; ours: 0.02, as real defects are flatter"),
    "amplitude_high": Float(0.06, 0.2, log=True, source="paper: 0.12"),
    "parts": Int(16, 128, log=True, source="paper: 64"),
    "defects": Int(1, 8, source="paper: 1"),
    "rotation": Float(0.0, 5.0, source="ours: 0.5, about what registration leaves"),
    "jitter": Float(0.0, 0.005, source="ours"),
    "smooth": Int(1, 64, source="paper: none"),
    "top_share": Float(0.002, 0.2, log=True, source="paper: all points"),
}


class OffsetOutput(Output):
    """Predictions for the points of a batch.

    Attributes:
        features: (M, 3) predicted offset of each point.
        forces: (M, 3 H) what the head says; its H vectors have `features` for their mean.
        target: (M, 3) true offset, or None at test time.
    """

    def __init__(self, forces: Tensor, target: Tensor | None):
        super().__init__(forces.unflatten(1, (-1, 3)).mean(1))
        self.forces, self.target = forces, target


class OffsetNet(nn.Module):
    """Voxels -> sparse U-Net -> small MLP -> vectors, copied to the points of each voxel.

    Args:
        size: of the U-Net.
        voxel: edge of a voxel.
        inputs: see `OffsetStrategy`.
        vectors: predicted per point.
        gated: see `SparseUNet`.
        unit: length that an output of 1 stands for.
    """

    def __init__(self, size: UNetSize, voxel: float, inputs: Inputs, *, vectors: int = 1, gated: bool = False,
                 unit: float = 1.0):  # fmt: skip
        super().__init__()
        self.voxel, self.inputs, self.unit = voxel, inputs, unit
        self.unet = SparseUNet({"xyz": 3, "local": 6, "reference": 9}[inputs], size, gated=gated)
        width = size.out
        self.head = nn.Sequential(
            nn.Linear(width, width, bias=False), nn.BatchNorm1d(width), nn.PReLU(),
            nn.Linear(width, width // 2, bias=False), nn.BatchNorm1d(width // 2), nn.PReLU(),
            nn.Linear(width // 2, (3 + (inputs == "reference")) * vectors),
        )  # fmt: skip

    def forward(self, batch: CloudBatch) -> OffsetOutput:
        """Predictions for every point. ``batch.version`` (M,) separates the versions of one cloud."""
        cloud = batch.batch * (int(batch.version.max()) + 1) + batch.version
        residual = batch.residual if "residual" in batch else None
        return OffsetOutput(self.predict(batch.pos, cloud, batch.phase, residual), batch.offset)

    def predict(self, pos: Tensor, cloud: Tensor, phase: Tensor | float, residual: Tensor | None) -> Tensor:
        """(M, 3 H) for (M, 3) points of clouds numbered by (M,), on grids moved by `phase`."""
        cell, row = voxelise(pos + phase, cloud, self.voxel)
        count = torch.bincount(row, minlength=cell.shape[0])[:, None]
        value = [pos]
        if self.inputs != "xyz":
            value.append((pos + phase) / self.voxel - cell[row, 1:] - 0.5)
        if self.inputs == "reference":
            assert residual is not None, "inputs='reference' without a residual"
            value.append(residual / self.voxel)
        points = torch.cat(value, 1)
        mean = points.new_zeros(cell.shape[0], points.shape[1]).index_add_(0, row, points) / count
        features = self.unet(mean, self.unet.pyramid(cell))
        with torch.autocast(pos.device.type, enabled=False):  # offsets need more digits than --precision bf16 leaves
            said = self.head(features.float())[row]
        if residual is None:
            return said * self.unit
        vectors, share = said.split([said.shape[1] // 4 * 3, said.shape[1] // 4], 1)
        # How far a point lies off the surface is known already; what there is to learn is how much of it is meant.
        return vectors * self.unit + (share.sigmoid()[..., None] * residual[:, None]).flatten(1)


def offset_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """PO3AD's loss: mean L1 distance of (M, 3) offsets, less the mean cosine of predicted and true ones.

    Points that were not moved have no direction and count as 0 in the second term, which is divided by all M.
    """
    unit = target / (target.norm(dim=1, keepdim=True) + 1e-8)
    guess = predicted / (predicted.norm(dim=1, keepdim=True) + 1e-8)
    return (predicted - target).abs().sum(1).mean() - (unit * guess).sum(1).mean()


def balanced_loss(predicted: Tensor, target: Tensor, unit: float) -> Tensor:
    """The same two terms with moved and other points weighing the same, however few were moved.

    Mean L1 distance of the moved, in units of `unit`, plus that of the others, less the mean cosine of the moved.
    """
    moved = target.abs().sum(1) > 0
    far = (predicted - target).abs().sum(1) / unit
    if not bool(moved.any()):
        return far.mean()
    cosine = nn.functional.cosine_similarity(predicted[moved], target[moved], eps=1e-8).mean()
    return far[moved].mean() - cosine + (far[~moved].mean() if not bool(moved.all()) else 0.0)


class OffsetStrategy(RegisteredStrategy):
    """What PO3AD and MC4AD share; a subclass gives `defect`, `build` and `loss_of`.

    Args:
        network: sizes of the U-Net.
        voxel: edge of a voxel, in radii of the object.
        inputs: of the U-Net. xyz = coordinates of the voxel's mean point, as published; local = and where in the voxel
            it lies; reference = and how far it lies off the surface of the class.
        points: denser clouds are thinned to the means of a grid of ``voxel / 4`` before anything else.
        defects: at most so many pseudo anomalies per cloud, at least one.
        amplitude_low: smallest push of a pseudo anomaly, in radii.
        amplitude_high: largest push.
        parts: the cloud is cut into so many parts, of which a pseudo anomaly moves one.
        signed_normals: push along normals; False: along their component-wise absolute value, as in the released code.
        balanced: moved and other points weigh the same in the loss, see `balanced_loss`; False: as published.
        rotation: training clouds are turned by up to so many degrees, about any axis; 180 = any orientation.
        shift: and shifted by up to so much along each axis, in radii.
        jitter: and each coordinate gets noise of that standard deviation, in radii.
        keep: and a random share between this and 1 of the points is kept.
        versions: pseudo anomalous versions of each cloud per step.
        warmup: share of a task's epochs before the learning rate falls, along half a cosine, to a thousandth.
        passes: test clouds are scored on so many shifted grids, whose offsets are averaged.
        calibrate: subtract, from the vectors of a test cloud, the mean of those of normal training clouds at the same
            place, which are the network's error there.
        smooth: mean of the scores of that many neighbouring points; 1 turns it off.
        object_score: mean over all points, or over the top share.
        top_share: share of the points for object_score top.
    """

    survives_restart = (*RegisteredStrategy.survives_restart, "surfaces_")
    prepare_arguments = ("registration", "voxel", "points")
    sizes: ClassVar[dict[str, UNetSize]] = {}

    def __init__(self, *, network: str = "small", voxel: float = 0.05, inputs: Inputs = "reference",
                 points: int = 20_000, defects: int = 4, amplitude_low: float = 0.02, amplitude_high: float = 0.12,
                 parts: int = 64, signed_normals: bool = True, balanced: bool = True, rotation: float = 0.5,
                 shift: float = 0.003, jitter: float = 0.001, keep: float = 0.7, versions: int = 1,
                 warmup: float = 0.3, passes: int = 4, calibrate: bool = True, smooth: int = 32,
                 object_score: Literal["mean", "top"] = "top", top_share: float = 0.01,
                 epochs: int = 60, lr: float = 1e-2, **base: Any):  # fmt: skip
        if not 0 < keep <= 1 or not 0 < top_share <= 1:
            raise HyperparameterError(f"{type(self).__name__}: keep and top_share must lie in (0, 1], got {keep} and "
                                      f"{top_share}.")  # fmt: skip
        self.network, self.voxel, self.inputs, self.points = network, voxel, inputs, points
        self.defects, self.amplitude_low, self.amplitude_high = defects, amplitude_low, amplitude_high
        self.parts, self.rotation, self.shift, self.jitter, self.keep = parts, rotation, shift, jitter, keep
        self.signed_normals, self.balanced = signed_normals, balanced
        self.versions, self.warmup, self.passes = versions, warmup, passes
        self.calibrate, self.smooth = calibrate, smooth
        self.object_score, self.top_share = object_score, top_share
        one_of(self, network=tuple(self.sizes), object_score=("mean", "top"), inputs=("xyz", "local", "reference"))
        at_least(self, voxel=1e-4, points=64, defects=1, rotation=0, shift=0, jitter=0, versions=1, warmup=0, passes=1,
                 smooth=1)  # fmt: skip
        super().__init__(epochs=epochs, lr=lr, **base)
        self.surfaces_: dict[str, Tensor] = {}

    def defect(self) -> Defect:
        """The generator of pseudo anomalies."""
        raise NotImplementedError

    def defect_arguments(self) -> dict[str, Any]:
        """What the generators of both methods are told."""
        return dict(amplitude=(self.amplitude_low, self.amplitude_high), parts=self.parts,
                    signed_normals=self.signed_normals)  # fmt: skip

    @property
    def unit(self) -> float:
        """Length that an output of 1 stands for: a voxel, and 1 as published with the published loss."""
        return self.voxel if self.balanced else 1.0

    def overall_loss(self, output: OffsetOutput) -> Tensor:
        """PO3AD's loss, as published or balanced."""
        assert output.target is not None
        if self.balanced:
            return balanced_loss(output.features, output.target, self.voxel)
        return offset_loss(output.features, output.target)

    def prepare(self, cloud: PointCloud) -> PointCloud:
        """The cloud on its class's template, thinned if it is dense: ``pos`` (M, 3) and ``normal`` (M, 3) there, and
        ``raw`` (M, 3), the same points where the cloud has them."""
        pos, raw = thinned(self.place(cloud.check(minimum=LEAST)), cloud.pos, self.points, self.voxel / 4)
        return PointCloud(pos, normal=toolkit.ops.normals(pos, orient="outward"), raw=raw)

    def augment(self, cloud: PointCloud) -> PointCloud:
        """Pseudo anomalous versions of a prepared cloud, as one cloud: ``pos``, ``offset`` (M, 3), ``version`` (M,)."""
        made = [self.version(cloud) for _ in range(self.versions)]
        pos, offset, phase = (torch.cat(parts) for parts in zip(*made))
        number = torch.arange(self.versions).repeat_interleave(torch.tensor([len(part) for part, _, _ in made]))
        extra: dict[str, Any] = {"residual": self.residual(pos, cloud.category)} if self.inputs == "reference" else {}
        return PointCloud(pos, offset=offset, version=number, phase=phase, **extra).update_facts(cloud)

    def residual(self, pos: Tensor, category: str) -> Tensor:
        """(M, 3) vectors from the surface of a class to points in its frame; 0 for a class without.

        The surface at a point is the plane through the mean of the nearest points of the class's training clouds,
        across the normal of the nearest.
        """
        surface = self.surfaces_.get(category)
        if surface is None:
            return torch.zeros_like(pos)
        return plane_gap(surface[:, :3].contiguous(), surface[:, 3:], pos, NEAR)

    def meet(self, clouds: Sequence[PointCloud]) -> None:
        """Keep the surface of each new class: its first clouds laid on each other, thinned, with normals (M, 6)."""
        super().meet(clouds)
        if self.inputs != "reference":
            return
        for category in sorted({c.category for c in clouds} - self.surfaces_.keys()):
            own = [c for c in clouds if c.category == category][:SCANS]
            points = toolkit.ops.voxel_downsample(torch.cat([self.prepared(c).pos for c in own]), 0.4 * self.voxel)
            self.surfaces_[category] = torch.cat([points, toolkit.ops.normals(points, orient="outward")], 1)

    def version(self, cloud: PointCloud, defects: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Points, offsets and grid phase (M, 3 each) of a random variant of a prepared cloud.

        Args:
            cloud: as `prepare` returns it.
            defects: pseudo anomalies in it; a random number of them if None.
        """
        g = self.generator
        pos, normal = cloud.pos, cloud.normal
        if self.keep < 1:
            share = self.keep + (1 - self.keep) * float(torch.rand((), generator=g))
            count = max(round(share * pos.shape[0]), min(pos.shape[0], 4 * self.parts))
            rows = torch.randperm(pos.shape[0], generator=g)[:count]
            pos, normal = pos[rows], normal[rows]
        moved = pos
        for _ in range(1 + int(torch.randint(self.defects, (), generator=g)) if defects is None else defects):
            moved = self.defect()(moved, normal, g).pos
        offset = moved - pos
        turn = random_rotation(self.rotation, g)
        place = (2 * torch.rand(3, generator=g) - 1) * self.shift
        phase = torch.rand(3, generator=g) * self.voxel
        noise = self.jitter * torch.randn(moved.shape, generator=g)
        return moved @ turn.t() + place + noise, offset @ turn.t(), phase.expand_as(pos)

    def _before_training_epoch(self, **kwargs: Any) -> None:
        self._set_rate()
        super()._before_training_epoch(**kwargs)

    def _set_rate(self) -> None:
        """Constant learning rate, then half a cosine down to a thousandth of it."""
        done = self.clock.train_exp_epochs / max(1, self.train_epochs)
        fall = max(0.0, done - self.warmup) / max(1e-9, 1 - self.warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr * (0.001 + 0.999 * (1 + math.cos(math.pi * fall)) / 2)

    def _after_training_exp(self, **kwargs: Any) -> None:
        super()._after_training_exp(**kwargs)
        if self.calibrate:
            self.model.eval()
            with torch.no_grad():
                self.baselines_ = {**self._baselines(), **self._new_baselines(self._raw)}

    def _baselines(self) -> dict[str, Tensor]:
        return vars(self).get("baselines_", {})  # there are none before training and after a restart

    def _new_baselines(self, clouds: Sequence[PointCloud]) -> dict[str, Tensor]:
        """(M, 3 + 3 H) per class: places, and the mean of what is predicted there for the first normal clouds."""
        found: dict[str, list[PointCloud]] = {}
        for cloud in clouds:
            if len(found.setdefault(cloud.category, [])) < SCANS:
                found[cloud.category].append(self.prepared(cloud))
        return {category: place_means([p.pos for p in own], [self.predicted(p) for p in own], 0.4 * self.voxel)
                for category, own in found.items()}  # fmt: skip

    def forces(self, prepared: PointCloud) -> Tensor:
        """(M, 3 H) predicted vectors of a prepared cloud, less what is predicted at such places of normal clouds."""
        return less_means(self.predicted(prepared), prepared.pos, self._baselines().get(prepared.category))

    def predicted(self, prepared: PointCloud) -> Tensor:
        """(M, 3 H) predicted vectors of the points of a prepared cloud, the mean over `passes` grids."""
        net: Any = self.model
        pos = prepared.pos.to(self.device)
        cloud = torch.zeros(pos.shape[0], dtype=torch.long, device=pos.device)
        # The diagonal meets every phase of the grid on all three axes.
        steps = [self.voxel * step / self.passes for step in range(self.passes)]
        residual = None
        if self.inputs == "reference":
            residual = self.residual(prepared.pos, prepared.category).to(self.device)
        return torch.stack([net.predict(pos, cloud, step, residual) for step in steps]).mean(0).float().cpu()

    def scored(self, prepared: PointCloud) -> tuple[Tensor, float]:
        """Point scores (M,) and object score of a prepared cloud: L1 lengths of the predicted offsets."""
        point = self.forces(prepared).unflatten(1, (-1, 3)).mean(1).abs().sum(1)
        if self.smooth > 1:
            point = toolkit.ops.smooth(point, prepared.pos, k=self.smooth)
        if self.object_score == "mean":
            return point, float(point.mean())
        return point, float(point.topk(math.ceil(self.top_share * point.shape[0])).values.mean())

    def score(self, cloud: PointCloud) -> AnomalyMap:
        """Scores of the prepared cloud, carried to all points."""
        prepared = self.prepared(cloud)
        point, value = self.scored(prepared)
        if point.shape[0] != cloud.pos.shape[0]:
            point = toolkit.ops.interpolate(point, prepared.raw, cloud.pos.cpu(), k=3)
        return AnomalyMap(point, value)


def random_rotation(degrees: float, generator: torch.Generator) -> Tensor:
    """(3, 3) rotation by up to that many degrees about a random axis; 180 and more: uniform over all rotations."""
    if degrees >= 180:
        w, x, y, z = nn.functional.normalize(torch.randn(4, generator=generator), dim=0).tolist()
    else:
        x, y, z = nn.functional.normalize(torch.randn(3, generator=generator), dim=0).tolist()
        angle = math.radians(degrees) * float(torch.rand((), generator=generator))
        w, s = math.cos(angle / 2), math.sin(angle / 2)
        x, y, z = s * x, s * y, s * z
    return torch.tensor([[1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
                         [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
                         [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)]])  # fmt: skip
