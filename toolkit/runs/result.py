"""``result.json``: what a finished run says of itself, recomputable from ``scores.parquet`` and the point metrics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from toolkit import metrics
from toolkit.runs.spec import FORMAT, RunSpec
from toolkit.scenario import Scenario, Slice, Task


def summarise(spec: RunSpec, scenario: Scenario, slices: Sequence[Slice], objects: pd.DataFrame,
              points: pd.DataFrame, tasks: Sequence[Task],
              cost: dict[str, Any], environment: dict[str, Any]) -> dict[str, Any]:  # fmt: skip
    """The content of ``result.json``.

    Args:
        spec: of the run.
        scenario, slices, tasks: what was run.
        objects: the scores table (`toolkit.runs.ledger.COLUMNS`).
        points: point metrics, columns trained_on, experience, category, slice, point_auroc, point_ap.
        cost: seconds, memory, parameters.
        environment: versions and hardware.

    Returns:
        ``given`` says per task how many normal and known defective clouds training got. ``final`` holds means over
        categories after the last experience (after its own where tasks are independent). Rows of ``matrices`` are the
        states of training -1 (before any), 0, .., T-1; columns the experiences; null where nothing was scored.
        ``slices`` repeats both for each part of the test clouds that the scenario names.
    """
    count = len(tasks)
    everything = _Part(objects, points[points["slice"] == ""], count, scenario.independent)
    parts = {}
    for piece in slices:
        kept = objects[objects["slices"].str.contains(f";{piece.name};", regex=False)]
        parts[piece.name] = _Part(kept, points[points["slice"] == piece.name], count, scenario.independent)
    sliced = {}
    for piece in slices:
        part = parts[piece.name]
        sliced[piece.name] = {**part.final(), "matrices": part.matrices()}
        if piece.threshold_from:
            sliced[piece.name]["false_alarm_rate"] = part.false_alarms(parts[piece.threshold_from])
    return {
        "format": FORMAT,
        "spec": spec.as_dict(),
        "hash": spec.hash,
        "tasks": [task.name for task in tasks],
        "categories": [task.categories for task in tasks],
        "given": [_given(task) for task in tasks],
        "independent_tasks": scenario.independent,
        "final": everything.final(),
        "continual": continual_figures(everything, scenario.independent),
        "matrices": everything.matrices(),
        "slices": sliced,
        "drift": {} if scenario.independent else drift(objects),
        "per_category": everything.per_category().to_dict(orient="records"),
        "cost": cost,
        "environment": environment,
    }


def _given(task: Task) -> dict[str, Any]:
    """What a task gives for training: number of normal clouds, and of known ones by type."""
    known: dict[str, int] = {}
    for sample in task.train:
        if sample.y:
            known[sample.defect] = known.get(sample.defect, 0) + 1
    return {"normal": len(task.train) - sum(known.values()), "known": known}


OBJECT_METRICS = {"auroc": "object_auroc", "average_precision": "object_ap", "f1_max": "object_f1_max",
                  "fpr_at_95_tpr": "object_fpr95"}  # fmt: skip
"""Keys of `toolkit.metrics.detection_metrics` -> names in ``result.json``."""


class _Part:
    """Metrics of a part of the scores."""

    def __init__(self, objects: pd.DataFrame, points: pd.DataFrame, tasks: int, independent: bool):
        self.objects, self.points, self.tasks = objects, points, tasks
        self.last, self.last_points = (
            table[table["trained_on"] == (table["experience"] if independent else table["trained_on"].max())]
            for table in (objects, points)
        )

    def false_alarms(self, reference: _Part, rate: float = 0.1) -> float:
        """Mean over tasks and categories of the false-alarm rate among this part's normal clouds.

        The threshold is set per category so that at most `rate` of `reference`'s normal clouds exceed it, see
        `exceeded_by`. NaN without any.
        """
        rates = []
        keys = ["trained_on", "experience", "category"]
        calibration = dict(list(reference.last[reference.last["y"] == 0].groupby(keys)))
        for key, normal in self.last[self.last["y"] == 0].groupby(keys):
            if key in calibration:
                threshold = exceeded_by(calibration[key]["object_score"], rate)
                rates.append(float((normal["object_score"] > threshold).mean()))
        return float(np.mean(rates)) if rates else float("nan")

    def per_category(self) -> pd.DataFrame:
        """One row per category after the last experience."""
        if not len(self.last):
            return pd.DataFrame(columns=["category", *OBJECT_METRICS.values(), *metrics.POINT_METRICS])
        table = metrics.per_category(self.last.assign(trained_on=0))
        known = [name for name in metrics.POINT_METRICS if name in self.last_points]
        columns = self.last_points.set_index(["experience", "category"])[known]
        return table.join(columns, on=["experience", "category"]).rename(columns=OBJECT_METRICS)

    def final(self) -> dict[str, float]:
        """Means over categories, and the pooled AUROC: one threshold for all categories."""
        table = self.per_category()
        named = {name: float(table[name].mean()) for name in (*OBJECT_METRICS.values(), *metrics.POINT_METRICS)
                 if name in table}  # fmt: skip
        if "point_error" in self.last_points:
            named["point_error"] = float(self.last_points["point_error"].max())
        if len(self.last):
            named["pooled_object_auroc"] = metrics.auroc(self.last["object_score"], self.last["y"])
            named["category_accuracy"] = float((self.last["given_category"] == self.last["category"]).mean())
        return named

    def matrices(self) -> dict[str, np.ndarray]:
        """Object and point R matrices."""
        return {
            "object_auroc": metrics.r_matrix_from_scores(self.objects, tasks=self.tasks),
            "point_auroc": point_r_matrix(self.points, self.tasks),
        }


def continual_figures(part: _Part, independent: bool) -> dict[str, float]:
    """The figures that follow from the R matrices. Independent tasks have only their own results."""
    matrices = part.matrices()
    R, P = matrices["object_auroc"], matrices["point_auroc"]
    if independent:
        undefined = dict.fromkeys(metrics.continual_metrics(R), float("nan"))
        return {**undefined, "average": metrics.learning_accuracy(R), "point_average": metrics.learning_accuracy(P),
                "point_forgetting": float("nan")}  # fmt: skip
    weights = metrics.categories_per_experience(part.objects)
    return {
        **metrics.continual_metrics(R, weights if len(weights) == R.shape[1] else None),
        "plasticity": metrics.plasticity(R),
        "point_average": metrics.average(P),
        "point_forgetting": metrics.chaudhry_forgetting(P),
    }


def exceeded_by(score: pd.Series, rate: float) -> float:
    """The lowest of these scores that at most a share `rate` of them exceeds: of fewer than ten, at 0.1, the highest.

    `metrics.threshold_from_normals` promises the rate for new clouds, but of few scores it makes an infinite threshold,
    at which nothing alarms.
    """
    return float(np.quantile(score, 1 - rate, method="higher"))


def drift(objects: pd.DataFrame, false_alarms: float = 0.1) -> dict[str, Any]:
    """False alarms and misses on task 1's clouds under a threshold that is fixed once task 1 is learned.

    The threshold is set on the normal test clouds of task 1, so that right after task 1 the rate is at most what was
    asked for by construction: this shows how later training moves scores, not how well a threshold generalises.
    """
    first = objects[(objects["experience"] == 0) & (objects["trained_on"] >= 0)]
    start = first[(first["trained_on"] == first["trained_on"].min()) & (first["y"] == 0)]
    if not len(start):
        return {}
    threshold = exceeded_by(start["object_score"], false_alarms)
    rates = metrics.false_alarm_drift(first["object_score"], first["y"], first["trained_on"], threshold)
    return {"threshold": threshold, "false_alarms_wanted": false_alarms,
            "after": [{"trained_on": state, **values} for state, values in rates.items()]}  # fmt: skip


def point_r_matrix(points: pd.DataFrame, tasks: int, column: str = "point_auroc") -> np.ndarray:
    """(T+1, T) mean over categories of a point metric; see `metrics.r_matrix_from_scores` for the rows."""
    matrix = np.full((tasks + 1, tasks), np.nan)
    for (trained_on, experience), value in points.groupby(["trained_on", "experience"])[column].mean().items():
        matrix[int(trained_on) + 1, int(experience)] = value
    return matrix
