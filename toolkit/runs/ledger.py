"""The ledger: the one place where labels meet scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from avalanche.training.plugins import SupervisedPlugin

from toolkit.cloud import PointCloud
from toolkit.data.base import Sample
from toolkit.metrics import POINT_METRICS, ObjectPoints, PointScores, cloud_regions, image_regions, won_pairs
from toolkit.runs.files import write_atomically, write_parquet
from toolkit.scenario import Slice, Task
from toolkit.stream import anonymous_id
from toolkit.zorder import in_file_order

COLUMNS = ["trained_on", "experience", "category", "subcategory", "sample_id", "group_id", "defect", "y",
           "object_score", "given_category", "slices"]  # fmt: skip
"""Columns of ``scores.parquet``, one row per scored cloud and state of training.

`trained_on` is -1 before any training. `given_category` is the class the strategy worked with; it differs from
`category` where the class was inferred wrongly. `slices` holds the names of the scenario's slices that the cloud
belongs to, each between semicolons: ``;known;new_variant;``.
"""


POINT_COLUMNS = ["trained_on", "experience", "category", "slice", "points", "defective_points", *POINT_METRICS,
                 "point_error"]  # fmt: skip
"""Columns of ``point_metrics.parquet``; slice "" is all test clouds of the category, `point_error` says how far the
metrics may be from the exact ones: 0 up to `toolkit.metrics.points.EXACT_POINTS` points."""

PAIR_COLUMNS = ["trained_on", "experience", "category", "defective", "normal", "defective_points", "normal_points",
                "won"]  # fmt: skip
"""Columns of ``point_pairs.parquet``: of the defective points of the test cloud `defective` and the normal ones of
`normal` (sample ids), the share of pairs that are ordered rightly (`toolkit.metrics.point_pairs`). After the last task
only, after its own where tasks are independent."""


class LabelKeeper:
    """Loads clouds for the streams and remembers the defect regions of the last few, so that none is read twice."""

    def __init__(self, load: Callable[[Sample], PointCloud], remember: int = 4):
        self._load, self._remember = load, remember
        self._regions: dict[str, np.ndarray | None] = {}

    def load(self, sample: Sample) -> PointCloud:
        """The labelled cloud."""
        cloud = self._load(sample)
        self._regions[sample.sample_id] = regions_of(cloud)
        while len(self._regions) > self._remember:
            del self._regions[next(iter(self._regions))]
        return cloud

    def regions(self, sample: Sample) -> np.ndarray | None:
        """`regions_of` a sample."""
        if sample.sample_id not in self._regions:
            self.load(sample)
        return self._regions[sample.sample_id]


def regions_of(cloud: PointCloud) -> np.ndarray | None:
    """(N,) number of the defect region of each point, 0 on normal ones; None where the dataset has no point labels.

    Regions are those of the image grid where the cloud has one, else those of neighbouring points.
    """
    if "point_y" not in cloud:
        return None
    defective = cloud.point_y.numpy() > 0
    if "pixel" in cloud:
        image = np.zeros((int(cloud.image_height), int(cloud.image_width)), bool)
        pixel = cloud.pixel.numpy()
        image.flat[pixel[defective]] = True
        return image_regions(image).flat[pixel] * defective
    return cloud_regions(cloud.pos.numpy(), defective)


class Ledger(SupervisedPlugin):
    """Joins scores with labels during ``strategy.eval`` and writes one row file per state of training.

    Args:
        folder: the run's folder; ``rows/`` in it takes a pair of Parquet files per state.
        tasks: of the scenario.
        keeper: gives point labels.
        slices: parts of the test clouds that are reported on their own.
        independent: each task is an experiment of its own.
        save_point_scores: also write ``point_scores/<state>.safetensors``, one float32 tensor per cloud.
    """

    def __init__(self, folder: Path, tasks: Sequence[Task], keeper: LabelKeeper,
                 slices: Sequence[Slice] = (), independent: bool = False,
                 save_point_scores: bool = False):  # fmt: skip
        super().__init__()
        self._last, self._independent = len(tasks) - 1, independent
        self.folder, self._keeper, self.save_point_scores = folder, keeper, save_point_scores
        self.slices = slices
        self._samples = {anonymous_id(s): s for task in tasks for s in task.test}
        self.begin(-1)

    def begin(self, trained_on: int) -> None:
        """Start the row of scores made after training on experience `trained_on`."""
        self.trained_on = trained_on
        self._objects: list[dict[str, Any]] = []
        self._points: list[dict[str, Any]] = []
        self._pairs: list[dict[str, Any]] = []
        self._shown: dict[str, dict[str, ObjectPoints]] = {}
        self._maps: dict[str, Any] = {}
        self._open: dict[tuple[str, str], PointScores] = {}

    def after_eval_iteration(self, strategy: Any, **kwargs: Any) -> None:
        """Note the scores of one cloud."""
        sample = self._samples[strategy.mb_cloud.sample_id]
        scores = strategy.mb_map.point.numpy()
        slices = [s.name for s in self.slices if s.keeps(sample, self.trained_on)]
        self._objects.append(dict(zip(COLUMNS, [
            self.trained_on, strategy.experience.current_experience, sample.category,
            sample.subcategory or sample.category, sample.sample_id, sample.group_id, sample.defect, sample.y,
            strategy.mb_map.object, strategy.mb_cloud.category, "".join(f";{n}" for n in slices) + ";"])))  # fmt: skip
        regions = self._keeper.regions(sample)
        if regions is not None:
            for name in ("", *slices):
                self._open.setdefault((sample.category, name), PointScores()).update(scores, regions)
            if self._independent or self.trained_on == self._last:
                shown = self._shown.setdefault(sample.category, {})
                shown[sample.sample_id] = ObjectPoints.of(scores, regions > 0)
        if self.save_point_scores:
            self._maps[sample.sample_id] = in_file_order(strategy.mb_cloud, strategy.mb_map.point)

    def after_eval_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Point metrics of each category and slice: all points of its test clouds of this experience together."""
        for (category, name), found in self._open.items():
            self._points.append({
                "trained_on": self.trained_on, "experience": strategy.experience.current_experience,
                "category": category, "slice": name, "points": found.points, "defective_points": found.defective,
                **found.metrics()})  # fmt: skip
        for category, objects in self._shown.items():
            won = won_pairs(list(objects.values()))
            self._pairs += [dict(zip(PAIR_COLUMNS, [
                self.trained_on, strategy.experience.current_experience, category, a, b, objects[a].defective_points,
                objects[b].normal_points, won[i, j]]))
                for i, a in enumerate(objects) if objects[a].defective_points
                for j, b in enumerate(objects)]  # fmt: skip
        self._open, self._shown = {}, {}

    @property
    def scored(self) -> int:
        """Number of clouds scored since `begin`."""
        return len(self._objects)

    def commit(self) -> None:
        """Write the row. Until then nothing of it is on disk."""
        if self.save_point_scores:
            from safetensors.torch import save_file

            maps = {name: scores.contiguous() for name, scores in self._maps.items()}
            write_atomically(self.folder / "point_scores" / f"{self.trained_on}.safetensors",
                             lambda path: save_file(maps, path))  # fmt: skip
        write_parquet(self._path("pairs", self.trained_on), pd.DataFrame(self._pairs, columns=PAIR_COLUMNS))
        write_parquet(self._path("points", self.trained_on), pd.DataFrame(self._points, columns=POINT_COLUMNS))
        write_parquet(self._path("objects", self.trained_on), pd.DataFrame(self._objects, columns=COLUMNS))

    def has(self, trained_on: int) -> bool:
        """Whether that row was committed."""
        return self._path("objects", trained_on).exists()

    def read(self) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
        """All committed rows: object scores, point metrics and pairs, in the order of training."""
        tables = []
        for kind, columns in (("objects", COLUMNS), ("points", POINT_COLUMNS), ("pairs", PAIR_COLUMNS)):
            paths = sorted((self.folder / "rows").glob(f"{kind}_*.parquet"), key=lambda p: int(p.stem.split("_")[1]))
            parts = [part for part in map(pd.read_parquet, paths) if len(part)]
            tables.append(pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns))
        return tables[0], tables[1], tables[2]

    def _path(self, kind: str, trained_on: int) -> Path:
        return self.folder / "rows" / f"{kind}_{trained_on}.parquet"
