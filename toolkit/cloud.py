"""The data types that flow through continual3d: PointCloud, CloudBatch and AnomalyMap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Batch, Data

from toolkit.errors import CloudError, LabelError

LABELS = ("y", "point_y", "defect", "factors")
"""The attributes that only a labelled cloud has; `PointCloud.unlabelled` takes them off."""


class PointCloud(Data):
    """One scanned object: a `torch_geometric.data.Data` with fixed names.

    Args:
        pos: (N, 3) float32 coordinates in the dataset's unit.
        category: product class, e.g. ``"bolt"``.
        sample_id: unique within the dataset, e.g. ``"bolt/test/bolt_bulge0"``.
        group_id: the physical object. Copies and cuts of one object share it, so that no split tears them apart.
            Defaults to ``sample_id``.
        subcategory: variant within the category (``"bolt_M8"``); defaults to ``category``.
        normal: (N, 3) unit normals, if the file has them.
        rgb: (N, 3) colours in [0, 1], if the file has them.
        y: 0 normal, 1 defective; only on labelled clouds, like the next two.
        point_y: (N,) bool or int, 1 on defective points.
        defect: defect type, ``""`` for a normal cloud.
        extra: any further tensor or plain value, kept as an attribute.

    Key names avoid "index", "face" and "batch", which torch-geometric treats specially when it collates.
    """

    def __init__(
        self,
        pos: Tensor | None = None,
        *,
        category: str = "",
        sample_id: str = "",
        group_id: str = "",
        subcategory: str = "",
        normal: Tensor | None = None,
        rgb: Tensor | None = None,
        y: int | None = None,
        point_y: Tensor | None = None,
        defect: str | None = None,
        **extra: Any,
    ):
        super().__init__()
        if pos is None:  # torch-geometric creates empty objects when it copies, separates and collates
            for key, value in extra.items():
                self[key] = value
            return
        self.pos = pos
        self.category = category
        self.sample_id = sample_id
        self.group_id = group_id or sample_id
        self.subcategory = subcategory or category
        optional = dict(normal=normal, rgb=rgb, point_y=point_y, defect=defect)
        if y is not None:
            self.y = int(y)
        for key, value in {**optional, **extra}.items():
            if value is not None:
                self[key] = value

    def __inc__(self, key: str, value: Any, *args: Any, **kwargs: Any) -> Any:
        return 0  # no attribute of a cloud indexes points of other clouds

    def __cat_dim__(self, key: str, value: Any, *args: Any, **kwargs: Any) -> Any:
        return 0

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.cat:  # GEM joins mini-batches with torch.cat
            parts = [c for part in args[0] for c in (part.to_data_list() if isinstance(part, CloudBatch) else [part])]
            return CloudBatch.collate([c for c in parts if isinstance(c, PointCloud)])
        return NotImplemented

    def unlabelled(self) -> PointCloud:
        """A shallow copy without `LABELS`: all that a strategy may see of a test cloud."""
        bare = self.clone_shallow()
        for key in LABELS:
            if key in bare:
                del bare[key]
        return bare

    def clone_shallow(self) -> PointCloud:
        """A new PointCloud that shares the tensors of this one."""
        other = PointCloud()
        for key, value in self.to_dict().items():
            other[key] = value
        return other

    def tensors(self) -> dict[str, Tensor]:
        """The tensor attributes by name."""
        return {key: value for key, value in self.to_dict().items() if isinstance(value, Tensor)}

    def nbytes(self) -> int:
        """Bytes held by the tensor attributes."""
        return sum(value.element_size() * value.numel() for value in self.tensors().values())

    def update_facts(self, other: PointCloud) -> PointCloud:
        """A shallow copy that takes names, category and labels from `other`: plain attributes and ``point_y``."""
        copy = self.clone_shallow()
        for key, value in other.to_dict().items():
            if not isinstance(value, Tensor) or key == "point_y":
                copy[key] = value
        return copy

    def check(self, minimum: int = 1) -> PointCloud:
        """Return self if it can be worked with.

        Raises:
            CloudError: empty, fewer than ``minimum`` points, wrong shape, NaN or infinite coordinates.
            LabelError: ``point_y`` has another length than ``pos``.
        """
        name = self.sample_id or "cloud"
        if self.pos.dim() != 2 or self.pos.shape[1] != 3:
            raise CloudError(f"{name}: expected points of shape (N, 3), got {tuple(self.pos.shape)}.")
        if self.pos.shape[0] < minimum:
            raise CloudError(
                f"{name}: expected at least {minimum} points, got {self.pos.shape[0]}. "
                "Remove the file or use a smaller neighbourhood."
            )
        if not bool(torch.isfinite(self.pos).all()):
            bad = int((~torch.isfinite(self.pos)).any(1).sum())
            raise CloudError(
                f"{name}: {bad} of {self.pos.shape[0]} points have NaN or infinite coordinates. "
                "Remove those points from the file."
            )
        if "point_y" in self and self.point_y.shape[0] != self.pos.shape[0]:
            raise LabelError(f"{name}: {self.pos.shape[0]} points but {self.point_y.shape[0]} point labels.")
        return self


class CloudBatch(Batch):
    """Several clouds of different size in one object.

    Tensors of the clouds are concatenated along the points; ``batch`` (sum N,) says which cloud a point belongs to
    and ``ptr`` (B + 1,) where each cloud starts. Behaves enough like a tensor (size, slicing, torch.cat) for
    Avalanche's plugins, GEM included.
    """

    @classmethod
    def collate(cls, clouds: Sequence[PointCloud]) -> CloudBatch | EmptyBatch:
        """Batch of clouds; an `EmptyBatch` for none."""
        if not clouds:
            return EmptyBatch()
        return cls.from_data_list(list(clouds), exclude_keys=["file_order"])  # which small clouds lack

    def __len__(self) -> int:
        return self.num_graphs

    def size(self, dim: int | None = None) -> Any:
        """(B,) or B: the number of clouds, as a tensor of clouds would report it."""
        return torch.Size([self.num_graphs]) if dim is None else self.num_graphs

    @property
    def shape(self) -> torch.Size:
        """(B,)"""
        return torch.Size([self.num_graphs])

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, (slice, Tensor, list)):
            rows = torch.arange(self.num_graphs)[key].tolist()
            return CloudBatch.collate([self.get_example(i) for i in rows])
        return super().__getitem__(key)


class EmptyBatch:
    """Zero clouds. torch.cat with it returns the other operand."""

    shape = torch.Size([0])

    def size(self, dim: int | None = None) -> Any:
        return self.shape if dim is None else 0

    def __len__(self) -> int:
        return 0

    def to(self, *args: Any, **kwargs: Any) -> EmptyBatch:
        return self

    def to_data_list(self) -> list[PointCloud]:
        return []

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return PointCloud.__torch_function__(func, types, args, kwargs)


@dataclass(frozen=True)
class AnomalyMap:
    """What a strategy says of one cloud. Higher is more anomalous.

    Attributes:
        point: (N,) float32 on the CPU, in the order of the cloud's points.
        object: one score for the whole cloud.
    """

    point: Tensor
    object: float

    def check(self, cloud: PointCloud) -> AnomalyMap:
        """Return self if it fits the cloud and is finite; CloudError otherwise."""
        if self.point.shape != (cloud.pos.shape[0],):
            raise CloudError(
                f"{cloud.sample_id}: {cloud.pos.shape[0]} points but point scores of shape "
                f"{tuple(self.point.shape)}. This is a defect of the strategy."
            )
        if not bool(torch.isfinite(self.point).all()) or not torch.isfinite(torch.tensor(self.object)):
            raise CloudError(
                f"{cloud.sample_id}: the strategy returned NaN or infinite scores; "
                "the training may have diverged (try a smaller learning rate)."
            )
        return self
