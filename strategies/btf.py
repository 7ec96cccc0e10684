"""BTF, "Back to the Feature": nearest neighbour among hand-made features of normal clouds, class by class.

Paper: Horwitz and Hoshen, "Back to the Feature: Classical 3D Features Are (Almost) All You Need for 3D Anomaly
Detection", CVPRW 2023 (VAND); for whole point clouds as in the code of Real3D-AD (Liu et al., NeurIPS 2023).

The same: FPFH (33 numbers) of a point from 5 voxels around it; no registration, no training; distance to the nearest
row of a memory of normal features, which is every n-th of them; object score from the largest.

Different by default; in brackets what gives the published way back:

* Lengths are relative to the class (median diagonal of its training clouds) instead of a voxel of 0.5 data units, which
  fits Real3D-AD's millimetres only: 0.015 of the diagonal, so that FPFH looks 0.075 far, about as far as the defects of
  the field's datasets reach (``units="absolute", voxel=0.5``).
* Points are averaged per voxel and only these means are described. Clouds of any density then give the same features,
  noise is averaged out, and a million points cost little more than 8,000. The published code describes points of the
  full cloud by their 100 nearest, so that the neighbourhood shrinks as density grows (``stride=100, test_stride=500``).
* Normals from 3 voxels, not 2, which on the grid are some 12 points; pointing away from the centroid, as without a rule
  for their sign FPFH changes with the pose (``normal_radius=2``).
* Square roots of the histograms are compared (Hellinger distance): a count's noise grows with its root
  (``hellinger=False``).
* A distance counts relative to how close normal features lie at the place it was matched to (``lof=0``), the mean over
  16 neighbouring described points is taken, all points get theirs by interpolation (``smooth=1, spread=1``) and the
  object score is the plain maximum (``object_score="reweighted"``).
* ``features="raw"`` and ``"both"`` use centred coordinates without registration, as published; of use only where all
  clouds come in one pose. In "both", coordinates are counted in voxels and weighted; the published 11 copies of
  millimetres are ``raw_weight=1.66, hellinger=False``.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch

from toolkit.cloud import AnomalyMap, PointCloud
from toolkit.nn.bank import BankStrategy
from toolkit.nn.fpfh_grid import describe
from toolkit.strategy import at_least, one_of
from toolkit.tuning.space import Categorical, Float, Int, Space

__all__ = ["BTF"]


class BTF(BankStrategy):
    """Nearest neighbour in a memory of FPFH or raw coordinates, without training (Horwitz and Hoshen 2023).

    Args:
        features: FPFH, centred coordinates, or both side by side.
        stride: describe every n-th point of the file, from all points, instead of the mean point of each voxel;
            0 = voxels.
        test_stride: the same for clouds that are scored; 0 = as stride.
        normal_radius: neighbourhood of normals, in voxels.
        normal_k: at most so many neighbours for normals.
        fpfh_radius: neighbourhood of FPFH, in voxels.
        fpfh_k: at most so many neighbours for FPFH.
        hellinger: compare square roots of FPFH.
        raw_weight: weight of coordinates, counted in voxels, beside FPFH.
        bank_size: rows of each category of a task, evenly spaced; 0 keeps all.
        selection: "stride" for evenly spaced rows, "coreset" for a greedy coreset.
        options: further arguments of `BankStrategy` and `AnomalyStrategy`.
    """

    paper = "Horwitz, Hoshen: Back to the Feature. CVPRW 2023"
    prepare_arguments = ("features", "voxel", "units", "stride", "normal_radius", "normal_k", "fpfh_radius", "fpfh_k",
                         "hellinger", "raw_weight")  # fmt: skip
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": dict(stride=100, test_stride=500, normal_radius=2.0, hellinger=False, bank_size=0, units="absolute",
                      voxel=0.5, lof=0, smooth=1, spread=1, object_score="reweighted"),
    }  # fmt: skip
    search_space: ClassVar[dict[str, Space]] = {
        "voxel": Float(0.008, 0.03, log=True, source="ours; half to twice the default"),
        "fpfh_radius": Float(3.0, 8.0, source="ours; published: 5"),
        "lof": Int(0, 10, source="ours; published: 0"),
        "smooth": Int(1, 32, source="ours; published: 1"),
        "object_score": Categorical(("max", "top"), source="ours"),
    }

    def __init__(self, *, features: Literal["fpfh", "raw", "both"] = "fpfh", stride: int = 0, test_stride: int = 0,
                 normal_radius: float = 3.0, normal_k: int = 30, fpfh_radius: float = 5.0, fpfh_k: int = 100,
                 hellinger: bool = True, raw_weight: float = 0.3, bank_size: int = 10_000,
                 selection: Literal["coreset", "stride"] = "stride", **options: Any):  # fmt: skip
        self.features, self.stride, self.test_stride = features, stride, test_stride
        self.normal_radius, self.normal_k = normal_radius, normal_k
        self.fpfh_radius, self.fpfh_k = fpfh_radius, fpfh_k
        self.hellinger, self.raw_weight = hellinger, raw_weight
        at_least(self, stride=0, test_stride=0, normal_radius=1e-6, normal_k=3, fpfh_radius=1e-6, fpfh_k=2,
                 raw_weight=1e-6)  # fmt: skip
        one_of(self, features=("fpfh", "raw", "both"))
        super().__init__(bank_size=bank_size, selection=selection, **options)

    def score(self, cloud: PointCloud) -> AnomalyMap:
        """As the base class, from every `test_stride`-th point where that is set."""
        cloud = cloud.clone_shallow()
        cloud.scored = True
        return super().score(cloud)

    def _stride_of(self, cloud: PointCloud) -> int:
        return self.test_stride or self.stride if "scored" in cloud else self.stride

    def prepare_key(self, cloud: PointCloud) -> str:
        """The size of the class and the stride."""
        return f"{super().prepare_key(cloud)} {self._stride_of(cloud)}"

    def prepare(self, cloud: PointCloud) -> PointCloud:
        """The described points with their features."""
        voxel, stride = self.voxel_of(cloud), self._stride_of(cloud)
        rows = None
        if stride:
            place = cloud.file_order.long() if "file_order" in cloud else torch.arange(cloud.pos.shape[0])
            rows = (place % stride == 0).nonzero().squeeze(1)
        pos, feature = describe(cloud.check(minimum=3).pos, voxel, rows=rows, hellinger=self.hellinger,
                                normal_radius=self.normal_radius, normal_k=self.normal_k, fpfh_radius=self.fpfh_radius,
                                fpfh_k=self.fpfh_k, histograms=self.features != "raw")  # fmt: skip
        if self.features != "fpfh":
            raw = (pos - cloud.pos.mean(0)) / voxel * self.raw_weight
            feature = torch.cat([feature, raw], 1)
        return PointCloud(pos, feature=feature)
