"""Memory banks of features under continual learning, and the base of every method that scores by distance to one.

A bank is a plain dict, so that it can be stored as it is: category -> (M, D + 1) float32. A row is a feature and, in
the last column, the distance to be expected of a normal feature that is matched to it (see `rows_of`). Four ways to let
new categories in, none of them published for the baselines of C3D-AD's tables (its supplement and code are not
available):

* ``growing``: append; one selection of rows per category and task. Memory grows; nothing is ever lost. With the bank
  looked up by category this is the published class-specific method, class by class.
* ``fixed``: one budget for all rows. When a task arrives, old and new rows together are reduced to it by a greedy
  coreset, in which all categories compete (the fixed 10,000 rows of the published baselines, as far as one can tell).
* ``quota``: the same budget, divided evenly among the categories seen; each is reduced within its share.
* ``overwrite``: the rows of the new task only, within the budget: the lower bound.

Old clouds are never needed: what a later task costs depends on the budget and on its own clouds alone.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from toolkit.cloud import AnomalyMap, PointCloud
from toolkit.errors import CloudError, HyperparameterError
from toolkit.ops import bank_nearest, coreset, diagonal, interpolate, smooth
from toolkit.strategy import AnomalyStrategy, at_least, one_of
from toolkit.stream import CloudList

Bank = dict[str, Tensor]
Policy = Literal["growing", "fixed", "quota", "overwrite"]
Selection = Literal["coreset", "stride"]
ObjectScore = Literal["max", "top", "reweighted"]

POLICIES = ("growing", "fixed", "quota", "overwrite")
CANDIDATES = 100_000
"""At most so many rows of a category and task, evenly spaced, enter the selection: its cost grows with their square."""

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}


def parse_bytes(budget: int | str) -> int:
    """Number of bytes of ``"8MB"``, ``"512 KiB"``, ``"1000"`` or 1000.

    Raises:
        HyperparameterError: anything else, or nothing at all.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmg]i?)?b?\s*", str(budget), flags=re.IGNORECASE)
    size = int(float(match[1]) * _UNITS[(match[2] or "").lower()]) if match else 0
    if size < 1:
        raise HyperparameterError(f"budget: expected bytes such as 1000000, '8MB' or '512KiB', got {budget!r}.")
    return size


def bank_bytes(bank: Mapping[str, Tensor]) -> int:
    """Bytes held by the rows of a bank."""
    return sum(rows.element_size() * rows.numel() for rows in bank.values())


def look_up(bank: Mapping[str, Tensor], category: str | None = None) -> tuple[Tensor, Tensor]:
    """Features (M, D) and expected distances (M,) of a category; of the whole bank if it is None or has no rows."""
    rows = bank[category] if category is not None and category in bank else torch.cat(list(bank.values()))
    return rows[:, :-1].contiguous(), rows[:, -1]


def rows_of(features: Sequence[Tensor], positions: Sequence[Tensor], *, lof: int = 5, k_smooth: int = 16) -> Tensor:
    """Rows of a bank from the normal clouds of one category.

    Normal features do not lie equally close everywhere: at edges, thin walls and where the normals' sign is in doubt,
    no two scans of the same part agree well. The expected distance of a row is its mean distance to its ``lof`` nearest
    neighbours among all features of the category, averaged over neighbouring points; dividing a distance by it makes
    places comparable. This is the idea of the local outlier factor (Breunig et al., SIGMOD 2000), in the simplified
    form that takes mean distances for densities.

    Args:
        features: (M_i, D) of each cloud.
        positions: (M_i, 3) of each cloud.
        lof: neighbours; 0 expects the same distance, 1, of all.
        k_smooth: neighbouring points averaged over.

    Returns:
        (sum M_i, D + 1) float32.
    """
    feature = torch.cat(list(features)).float()
    expected = torch.ones(feature.shape[0])
    if lof and feature.shape[0] > lof:
        raw = bank_nearest(feature, feature, k=lof + 1)[0][:, 1:].mean(1)
        cut = raw.split([part.shape[0] for part in features])
        smoothed = torch.cat([smooth(part, pos, k=k_smooth) for part, pos in zip(cut, positions)])
        if float(smoothed.mean()) > 0:  # else all features are the same and nothing can be said
            expected = smoothed.clamp_min(0.01 * float(smoothed.mean()))
    return torch.cat([feature, expected[:, None]], 1)


def reduce(rows: Tensor, kept: Tensor) -> Tensor:
    """Keep some rows of a bank and let each answer for the dropped ones that are nearest to it.

    A normal feature that was e away from a dropped row, itself d away from the row that is kept, is now some sqrt(e^2 +
    d^2) away from the bank; the mean of that is the kept row's new expected distance. (Where all were 1, all stay 1.)

    Args:
        rows: (M, D + 1).
        kept: (K,) indices, in ascending order.

    Returns:
        (K, D + 1).
    """
    left = rows[kept].clone()
    if kept.shape[0] == rows.shape[0] or bool((rows[:, -1] == 1).all()):
        return left
    away, nearest = (t[:, 0] for t in bank_nearest(left[:, :-1], rows[:, :-1]))
    away[kept], nearest[kept] = 0.0, torch.arange(kept.shape[0])
    new = (rows[:, -1].square() + away.square()).sqrt()
    total = torch.zeros(kept.shape[0], dtype=torch.float64).index_add_(0, nearest, new.double())
    left[:, -1] = (total / nearest.bincount(minlength=kept.shape[0])).float()
    return left


def select(rows: Tensor, count: int, selection: Selection, seed: int) -> Tensor:
    """At most ``count`` of (M, D + 1) rows, in their order: a greedy coreset, or evenly spaced ones."""
    if rows.shape[0] <= count:
        return rows
    if selection == "stride":
        return reduce(rows, torch.arange(count) * rows.shape[0] // count)
    return reduce(rows, coreset(rows[:, :-1], count, seed=seed).sort().values)


def update(bank: Mapping[str, Tensor], new: Mapping[str, Tensor], *, policy: Policy, budget: int | str = "1MB",
           seed: int = 0) -> Bank:  # fmt: skip
    """The bank after a task has arrived.

    Args:
        bank: before the task.
        new: rows of the task by category.
        policy: see the head of this file.
        budget: bytes of all rows together; not used by ``growing``.
        seed: of the coresets.

    Returns:
        A new bank. Under a budget it takes at most that many bytes; a category may lose all its rows under ``fixed``
        and is then not in it.

    Raises:
        HyperparameterError: an unknown policy, or a budget that holds no row (``quota``: none per category).
        CloudError: rows of another dimension than those in the bank.
    """
    if policy not in POLICIES:
        raise HyperparameterError(f"policy must be one of {', '.join(POLICIES)}, got {policy!r}.")
    merged = {} if policy == "overwrite" else dict(bank)
    for category, rows in new.items():
        merged[category] = torch.cat([merged[category], rows]) if category in merged else rows
    widths = {rows.shape[1] for rows in merged.values()}
    if len(widths) > 1:
        raise CloudError(f"memory bank: features of {sorted(w - 1 for w in widths)} dimensions do not mix.")
    if policy == "growing" or not merged:
        return merged
    limit = parse_bytes(budget) // (4 * widths.pop())
    if limit < (len(merged) if policy == "quota" else 1):
        raise HyperparameterError(f"budget: {budget!r} holds {limit} rows of this method's features, too few for "
                                  f"{len(merged)} categories under policy {policy!r}. Raise the budget.")  # fmt: skip
    if policy == "quota":
        share, rest = divmod(limit, len(merged))
        return {c: select(rows, share + (i < rest), "coreset", seed) for i, (c, rows) in enumerate(merged.items())}
    together = torch.cat(list(merged.values()))
    if together.shape[0] <= limit:
        return merged
    kept = coreset(together[:, :-1], limit, seed=seed).sort().values
    bounds = torch.tensor([0, *(rows.shape[0] for rows in merged.values())]).cumsum(0)
    cuts = torch.searchsorted(kept, bounds).tolist()
    indices = {c: kept[cuts[i] : cuts[i + 1]] - bounds[i] for i, c in enumerate(merged)}
    return {c: reduce(merged[c], own) for c, own in indices.items() if own.shape[0]}


def reweighted(feature: Tensor, score: Tensor, bank: Tensor, *, b: int = 3) -> Tensor:
    """Object score of PatchCore (Roth et al., 2022, eq. 7) as BTF's code computes it.

    ``w * s`` with s the score of feature x and ``w = 1 - exp(s / sqrt(D)) / sum_j exp(|x - m_j| / sqrt(D))`` over the
    ``b`` nearest neighbours m_j, in the bank, of the bank's row nearest to x, that row itself left out.

    Args:
        feature: (D,) of the object's most anomalous point.
        score: scalar, its distance to the bank.
        bank: (M, D).
        b: neighbours, the row itself counted.

    Returns:
        Scalar; ``score`` itself if there are no neighbours.
    """
    scale = math.sqrt(bank.shape[1])
    nearest = bank[bank_nearest(bank, feature[None])[1][0]]
    around = bank_nearest(bank, nearest, k=min(b, bank.shape[0]))[1][0, 1:]
    if around.numel() == 0:
        return score
    away = (feature - bank[around]).norm(dim=1)
    return score * (1 - 1 / ((away - score) / scale).exp().sum())


class BankStrategy(AnomalyStrategy):
    """Base of memory-bank methods: a method gives `prepare`, everything else follows.

    ``prepare(cloud)`` returns a PointCloud of the points that are described, with ``pos`` (M, 3) in the raw cloud's
    coordinates and ``feature`` (M, D) float32. The score of such a point is the Euclidean distance of its feature to
    the nearest row of the bank, over the distance to be expected there; all points of the cloud get theirs from the
    described ones.

    Args:
        voxel: grid on which clouds are described, see `voxel_of`.
        units: of voxel: relative to the size of the class, or absolute in data units.
        bank_size: rows kept of each category of a task; 0 keeps all.
        selection: how they are chosen: greedy coreset, or evenly spaced rows.
        policy: what happens to the bank when a task arrives, see the head of this file.
        budget: bytes of the whole bank, e.g. "8MB" (not used by the policy growing). 10,000 rows of FPFH take 1.36 MB.
        per_category: score a cloud against the rows of its own category, whose name is known at test time in the
            published protocol, and against the whole bank where there are none; False: always the whole bank.
        lof: divide by the mean distance of the matched row to that many neighbours in its category (see `rows_of`);
            0 scores by the plain distance, as published.
        smooth: mean of the scores of that many neighbouring described points; 1 turns it off.
        spread: described points from which a point takes its score, weighted by inverse squared distance; 1 copies the
            nearest one's.
        object_score: largest smoothed score; mean of the top share; or the re-weighted maximum of BTF and PatchCore.
        top_share: share of the described points for object_score top.
        reweight: b of object_score reweighted.
    """

    survives_restart = (*AnomalyStrategy.survives_restart, "scales_")

    def __init__(self, *, voxel: float = 0.015, units: Literal["relative", "absolute"] = "relative",
                 bank_size: int = 10_000, selection: Selection = "coreset", policy: Policy = "growing",
                 budget: int | str = "1MB", per_category: bool = True, lof: int = 5, smooth: int = 16, spread: int = 3,
                 object_score: ObjectScore = "max", top_share: float = 0.01, reweight: int = 3,
                 **base: Any):  # fmt: skip
        self.voxel, self.units = voxel, units
        self.bank_size, self.selection, self.policy, self.budget = bank_size, selection, policy, budget
        self.per_category, self.lof, self.smooth, self.spread = per_category, lof, smooth, spread
        self.object_score, self.top_share, self.reweight = object_score, top_share, reweight
        at_least(self, voxel=1e-6, bank_size=0, lof=0, smooth=1, spread=1, reweight=1)
        one_of(self, units=("relative", "absolute"), selection=("coreset", "stride"), policy=POLICIES,
               object_score=("max", "top", "reweighted"))  # fmt: skip
        parse_bytes(budget)
        if not 0 < top_share <= 1:
            raise HyperparameterError(f"{type(self).__name__}: top_share must lie in (0, 1], got {top_share}.")
        if object_score == "reweighted" and lof:
            raise HyperparameterError(f"{type(self).__name__}: object_score 'reweighted' is defined for plain "
                                      "distances. Set lof=0, or another object_score.")  # fmt: skip
        super().__init__(**base)
        self.scales_: dict[str, float] = {}

    def meet(self, clouds: Sequence[PointCloud]) -> None:
        """Measure a class when it first appears: the median diagonal of its training clouds is its size."""
        for category in sorted({c.category for c in clouds} - self.scales_.keys()):
            sizes = torch.tensor([diagonal(c.pos) for c in clouds if c.category == category])
            self.scales_[category] = float(sizes.median())

    def prepare_key(self, cloud: PointCloud) -> str:
        """The size of the class."""
        return repr(self.scales_.get(cloud.category))

    def voxel_of(self, cloud: PointCloud) -> float:
        """Edge of the grid in the cloud's unit.

        In relative units it is a share of the size of the class, so that a broken part is looked at with the same eyes
        as a whole one; of the cloud's own diagonal for a class that was never trained on.
        """
        if self.units == "absolute":
            return self.voxel
        return self.voxel * (self.scales_.get(cloud.category) or diagonal(cloud.pos))

    def fit(self, clouds: CloudList) -> None:
        """Put the features of the normal clouds of a task into the bank."""
        found: dict[str, list[PointCloud]] = {}
        for sample in clouds.samples:
            cloud = clouds.load(sample)
            found.setdefault(cloud.category, []).append(cloud)
        new = {category: self._rows(parts) for category, parts in found.items()}
        self.bank_ = update(self._bank(), new, policy=self.policy, budget=self.budget, seed=self.seed)

    def _rows(self, parts: list[PointCloud]) -> Tensor:
        step = -(-sum(part.feature.shape[0] for part in parts) // CANDIDATES)
        features, positions = [part.feature[::step] for part in parts], [part.pos[::step] for part in parts]
        rows = rows_of(features, positions, lof=self.lof, k_smooth=self.smooth)
        return select(rows, self.bank_size or rows.shape[0], self.selection, self.seed)

    def score(self, cloud: PointCloud) -> AnomalyMap:
        """Distances to the bank, smoothed and carried to all points; zeros while the bank is empty."""
        cloud.check()
        if not self._bank():
            return AnomalyMap(torch.zeros(cloud.pos.shape[0]), 0.0)
        bank, expected = look_up(self._bank(), cloud.category if self.per_category else None)
        described = self.prepared(cloud)
        distance, index = bank_nearest(bank.to(self.device), described.feature.to(self.device))
        relative = distance[:, 0].cpu() / expected[index[:, 0].cpu()]
        point = smooth(relative, described.pos, k=self.smooth)
        return AnomalyMap(interpolate(point, described.pos, cloud.pos.cpu(), k=self.spread),
                          self._object(point, described.feature, bank))  # fmt: skip

    def _object(self, point: Tensor, feature: Tensor, bank: Tensor) -> float:
        if self.object_score == "top":
            return float(point.topk(math.ceil(self.top_share * point.shape[0])).values.mean())
        best = point.argmax()
        if self.object_score == "max":
            return float(point[best])
        return float(reweighted(feature[best], point[best], bank, b=self.reweight))

    def _bank(self) -> Bank:
        return vars(self).get("bank_", {})
