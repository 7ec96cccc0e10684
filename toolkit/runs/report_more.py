"""Further tables of a report: detection figures, continual figures, drift, slices, class given or inferred."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit import metrics
from toolkit.runs.groups import Method, method_names, repetition_key
from toolkit.runs.load import FinishedRun
from toolkit.runs.report_tables import WORSE, StreamTables
from toolkit.runs.tables import Table, number, p_value, with_interval
from toolkit.runs.uncertainty import ALPHA, LEAST_CATEGORIES, LEVEL, over_runs, paired_p

DETECTION = {
    "object_ap": "object AP",
    "object_f1_max": "object F1-max",
    "object_fpr95": "object FPR95",
    "pooled_object_auroc": "pooled object AUROC",
    "point_ap": "point AP",
    "point_f1_max": "point F1-max",
    "point_fpr95": "point FPR95",
    "au_pro_30": "AU-PRO 30 %",
    "au_pro_10": "AU-PRO 10 %",
    "au_pro_5": "AU-PRO 5 %",
    "au_pro_1": "AU-PRO 1 %",
}
"""Keys of ``final`` and ``per_category`` in result.json -> headings."""
LOWER_IS_BETTER = ("object_fpr95", "point_fpr95")

CONTINUAL: dict[str, Callable[[NDArray], float]] = {
    "average": metrics.average,
    "learning accuracy": metrics.learning_accuracy,
    "stability": metrics.stability,
    "harmonic mean of both": metrics.stability_plasticity_tradeoff,
    "AUC over time": metrics.auc_over_time,
}
SLICE_FIGURES = {"object_auroc": "object AUROC", "object_ap": "object AP", "point_auroc": "point AUROC",
                 "point_ap": "point AP"}  # fmt: skip


def more_tables(made: StreamTables) -> list[Table]:
    """Those that have something to say."""
    found = [identity(made), detection(made), continual(made), drift(made), slice_figures(made)]
    return [table for table in found if table is not None and table.rows]


def detection(made: StreamTables) -> Table:
    """The other detection figures after the last task, and the interquartile mean of object AUROC."""
    methods = made.stream.methods
    keys = [k for k in DETECTION if any(run.result["final"].get(k) is not None for m in methods for run in m.runs)]
    worse, tested = _worse_over_categories(methods, keys)
    rows = []
    for method in methods:
        middle = _interquartile(made, method)
        cells = [_mean_of(method.runs, key) for key in keys]
        shown = [number(value) + (WORSE if (method.name, key) in worse else "") for key, value in zip(keys, cells)]
        rows.append([method.name, with_interval(middle.value, middle.low, middle.high), *shown])
    note = ("Means over categories after the last task; F1-max takes the best threshold for the test labels. Pooled: "
            "one threshold for all categories. Interquartile mean: of the object AUROC over categories and "
            "repetitions [95 % bootstrap interval].")  # fmt: skip
    error = max(run.result["final"].get("point_error") or 0.0 for m in methods for run in m.runs)
    if error:
        note += f" Point figures come from bins of scores and are off by at most {error:.2g}."
    if len(methods) > 1:
        note += (f" {WORSE.strip()} worse than the best method beyond noise (Wilcoxon's signed-rank test over "
                 "categories, Holm-adjusted over the table; pooled AUROC is not tested)." if tested else
                 f" Differences are not tested here: it takes {LEAST_CATEGORIES} categories.")  # fmt: skip
    return Table("Detection", ["method", "object AUROC, IQM", *(DETECTION[k] for k in keys)], rows, note)


def _interquartile(made: StreamTables, method: Method) -> metrics.Interval:
    """Interquartile mean over categories and repetitions, draw by draw."""
    cells = np.array([v for run in method.runs for v in made.resampled[run].categories().values()])
    if not len(cells):
        nan = float("nan")
        return metrics.Interval(nan, nan, nan, np.array([nan]))
    middle = np.array([metrics.interquartile_mean(column) for column in cells.T])
    low, high = np.quantile(middle[1:], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return metrics.Interval(float(middle[0]), float(low), float(high), middle[1:])


def _mean_of(runs: Sequence[FinishedRun], key: str) -> float:
    values = [run.result["final"].get(key) for run in runs]
    return float("nan") if any(v is None for v in values) else float(np.mean(values))


def _worse_over_categories(methods: Sequence[Method], keys: Sequence[str]) -> tuple[set[tuple[str, str]], bool]:
    """Cells (method, key) worse than the best of their column beyond noise, and whether anything could be tested."""
    p_values: list[tuple[tuple[str, str], float]] = []
    for key in keys:
        sign = -1 if key in LOWER_IS_BETTER else 1
        tables = {m.name: _by_category(m.runs, key) for m in methods}
        common = sorted(set.intersection(*(set(t) for t in tables.values())))
        if len(methods) < 2 or len(common) < LEAST_CATEGORIES:
            continue
        values = {name: [sign * table[c] for c in common] for name, table in tables.items()}
        best = max(values, key=lambda name: float(np.mean(values[name])))
        for row in metrics.compare_paired(values, reference=best):
            p_values.append(((str(row["a"]), key), float(row["p"])))
    adjusted = metrics.holm([p for _, p in p_values]) if p_values else ()
    return {cell for (cell, _), p in zip(p_values, adjusted) if p < ALPHA}, bool(p_values)


def _by_category(runs: Sequence[FinishedRun], key: str) -> dict[str, float]:
    found: dict[str, list[float]] = {}
    for run in runs:
        for row in run.result["per_category"]:
            if row.get(key) is not None:
                found.setdefault(row["category"], []).append(row[key])
    return {category: float(np.mean(values)) for category, values in found.items()}


def continual(made: StreamTables) -> Table | None:
    """Figures of the object R matrices, with intransigence where a method that keeps all data is there."""
    stream = made.stream
    if stream.first.independent or len(stream.tasks) < 2:
        return None
    drawn: dict[tuple[str, str], metrics.Interval] = {}
    reference = next((m for kind in ("Cumulative", "Joint") for m in stream.methods
                      if m.runs[0].spec.continual.name == kind), None)  # fmt: skip
    for method in stream.methods:
        matrices = [made.resampled[run].matrix() for run in method.runs]
        for name, function in CONTINUAL.items():
            drawn[method.name, name] = over_runs([_each(function, m) for m in matrices], made.seed)
        if reference is not None and method.runs[0].spec.strategy.name == reference.runs[0].spec.strategy.name:
            against = {repetition_key(run): made.resampled[run].matrix() for run in reference.runs}
            pairs = [(m, against.get(repetition_key(run), next(iter(against.values()))))
                     for run, m in zip(method.runs, matrices)]  # fmt: skip
            joint = reference.runs[0].spec.continual.name == "Joint"
            values = [np.array([-metrics.intransigence(R, J[-1] if joint else np.diagonal(J, -1))
                                for R, J in zip(ours, theirs)]) for ours, theirs in pairs]  # fmt: skip
            drawn[method.name, "intransigence"] = over_runs(values, made.seed)
    names = [*CONTINUAL, *(["intransigence"] if reference is not None else [])]
    worse = made._worse(names, drawn)
    rows = []
    for method in stream.methods:
        cells = []
        for name in names:
            found = drawn.get((method.name, name))
            if found is None or np.isnan(found.value):
                cells.append("–")
                continue
            sign = -1 if name == "intransigence" else 1
            low, high = sorted((sign * found.low, sign * found.high))
            cells.append(with_interval(sign * found.value, low, high) + worse.get((method.name, name), ""))
        rows.append([method.name, *cells])
    note = ("Of object AUROC. Average: over tasks after the last one (Lopez-Paz). Learning accuracy: of each task "
            "right after it was learned (Riemer), also called plasticity. Stability: of the earlier tasks after the "
            "last one. AUC over time: under the average over the tasks seen so far.")  # fmt: skip
    if reference is not None:
        kind = "after its one training on all tasks" if joint_of(reference) else "right after each task"
        note += (f" Intransigence (Chaudhry): how far learning accuracy stays behind {reference.name} {kind}; for "
                 "runs of the same method, lower is better.")  # fmt: skip
    return Table("Continual figures", ["method", *names], rows, note + made._worse_note())


def joint_of(method: Method) -> bool:
    """Whether a method was trained once on everything."""
    return method.runs[0].spec.continual.name == "Joint"


def _each(function: Callable[[NDArray], float], matrices: NDArray) -> NDArray:
    """A figure of every draw; NaN where a matrix lacks what it takes (a method trained once on everything)."""
    values = []
    for matrix in matrices:
        try:
            values.append(function(matrix))
        except (metrics.MetricInputError, ValueError):
            values.append(float("nan"))
    return np.array(values)


def drift(made: StreamTables) -> Table | None:
    """False alarms on task 1's normal clouds under a threshold fixed after task 1."""
    rows, states = [], sorted({row["trained_on"] for m in made.stream.methods for run in m.runs
                               for row in run.result["drift"].get("after", [])})  # fmt: skip
    clouds = 0
    for method in made.stream.methods:
        by_state: dict[int, list[float]] = {}
        for run in method.runs:
            first = run.scores[(run.scores["experience"] == 0) & (run.scores["y"] == 0)]
            clouds = max(clouds, first["sample_id"].nunique())
            for row in run.result["drift"].get("after", []):
                if row["false_alarm_rate"] is not None:
                    by_state.setdefault(row["trained_on"], []).append(row["false_alarm_rate"])
        if len(by_state) > 1:
            rows.append([method.name, *(_range(by_state.get(state, [])) for state in states)])
    if not rows:
        return None
    note = (f"Share of task 1's {clouds} normal test clouds above the threshold that at most 10 % exceed after task 1; "
            "(lowest to highest repetition). Shows how later training moves scores; one cloud is "
            f"{1 / clouds:.3f}, differences are not tested.")  # fmt: skip
    return Table("False alarms at a fixed threshold", ["method", *(f"after task {s + 1}" for s in states)], rows, note)


def slice_figures(made: StreamTables) -> Table | None:
    """AUROC and AP of every slice at object and point level."""
    names = list(made.stream.first.result["slices"])
    if not names:
        return None
    rows = []
    for method in made.stream.methods:
        for name in ("", *names):
            parts = [run.result["slices"][name] if name else run.result["final"] for run in method.runs]
            cells = [_range([p[k] for p in parts if p.get(k) is not None]) for k in SLICE_FIGURES]
            rows.append([method.name, name.replace("_", " ") or "all", *cells])
    note = ("Means over categories (lowest to highest repetition), each slice against its own normal clouds. AP "
            "depends on the share of defective clouds and cannot be compared between slices. Tests: see Slices of the "
            "test clouds; what is shown here alone is not tested.")  # fmt: skip
    return Table("Slices, further figures", ["method", "slice", *SLICE_FIGURES.values()], rows, note,
                 frozenset({"slice"}))  # fmt: skip


def identity(made: StreamTables) -> Table | None:
    """What it costs to infer the class of test clouds instead of being given it, method by method."""
    twins: dict[str, dict[str, Method]] = {}
    for method in made.stream.methods:
        spec = method.runs[0].spec
        options = {k: v for k, v in spec.strategy.arguments.items() if k != "category_at_test"}
        key = repr([spec.strategy.name, sorted(options.items(), key=str), spec.continual, spec.precision])
        given = spec.strategy.arguments.get("category_at_test", "known")
        twins.setdefault(key, {})[given] = method
    pairs = [pair for pair in twins.values() if {"known", "inferred"} <= set(pair)]
    specs = [pair["known"].runs[0].spec for pair in pairs]
    names = method_names(specs)
    rows, p_values = [], []
    for name, pair in zip(names, pairs):
        known, inferred = (made.final[pair[kind].name] for kind in ("known", "inferred"))
        shared = {repetition_key(r) for r in pair["known"].runs} & {repetition_key(r) for r in pair["inferred"].runs}
        ours, theirs = (over_runs([made.resampled[r].final() for r in pair[kind].runs
                                   if repetition_key(r) in shared or not shared], made.seed)
                        for kind in ("inferred", "known"))  # fmt: skip
        drawn = ours.samples - theirs.samples
        low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        p_values.append(paired_p(ours.samples, theirs.samples))
        accuracy = [run.result["final"]["category_accuracy"] for run in pair["inferred"].runs]
        rows.append([name, with_interval(known.value, known.low, known.high),
                     with_interval(inferred.value, inferred.low, inferred.high),
                     with_interval(ours.value - theirs.value, float(low), float(high), signed=True),
                     number(float(np.mean(accuracy)))])  # fmt: skip
    if not rows:
        return None
    for row, p in zip(rows, metrics.holm(p_values)):
        row += [p_value(float(p)), "beyond noise" if p < ALPHA else "within noise"]
    columns = ["method", "given", "inferred", "inferred − given", "classes inferred rightly", "p", "verdict"]
    note = ("Object AUROC after the last task [95 % bootstrap interval], when the class of each test cloud is given, "
            "as in the published protocols, or taken from the nearest training cloud (toolkit/identify.py). Paired "
            "bootstrap, Holm-adjusted over the table.")  # fmt: skip
    return Table("Class of test clouds: given or inferred", columns, rows, note, frozenset({"verdict"}))


def _range(values: Sequence[Any]) -> str:
    """Mean, with the lowest and highest value of several."""
    if not values:
        return "–"
    shown = number(float(np.mean(values)))
    return shown if len(values) == 1 else f"{shown} ({number(min(values))} to {number(max(values))})"
