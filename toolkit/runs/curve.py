"""Open-set results over the number of known samples (`shots`) or of known defect types (`known`).

``python scenarios/open_set.py --curve shots --draws 5`` makes a run per value and draw, all tested on the clouds that
the largest value leaves, and draws the curve; ``--curve known`` does the same for 1, 2, .. known types. `continual3d
report` draws the curve of runs that exist.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from toolkit.errors import HyperparameterError
from toolkit.metrics import holm
from toolkit.runs.groups import method_names, repetition_key
from toolkit.runs.load import FinishedRun, load_run
from toolkit.runs.tables import Table, number, with_interval
from toolkit.runs.uncertainty import ALPHA, Resampled, over_runs, paired_p

if TYPE_CHECKING:
    from toolkit.data.base import CloudDataset
    from toolkit.scenario import Scenario

AXES = {"shots": "known samples per type and class", "known": "known defect types"}
SHOTS = (1, 2, 4, 5, 10)
PARTS = ("all", "known", "unknown")
FIGURES = ("object_auroc", "object_ap", "point_auroc", "point_ap")


@dataclass(frozen=True)
class Curve:
    """Runs that differ in one option of the stream, and in their draws.

    Attributes:
        axis: of `AXES`.
        title: what the runs share.
        frame: long table: strategy, value (of the axis), given (known samples per class, mean), draw, seed, part (of
            `PARTS`), figure (of `FIGURES`), score.
        runs: (strategy, value) -> runs.
        same_clouds: whether all of them are tested on the same clouds.
    """

    axis: str
    title: str
    frame: pd.DataFrame
    runs: dict[tuple[str, int], list[FinishedRun]]
    same_clouds: bool


def settings(scenario: Scenario, text: str, dataset: CloudDataset) -> list[Scenario]:
    """The scenarios of a curve, smallest value first.

    Args:
        scenario: with the options that stay as they are.
        text: ``shots`` or ``known``, with values if wanted: ``shots:1,2,4``.
        dataset: what it runs on. Values that give the same samples as a smaller one, because there are no more, are
            left out.

    Raises:
        HyperparameterError: no such axis, or values that make no sense.
    """
    from toolkit.known_defects import known_types

    axis, _, listed = text.partition(":")
    if axis not in AXES or not all(value.isdigit() and int(value) > 0 for value in listed.split(",") if listed):
        raise HyperparameterError(f"--curve {text}: expected shots, known, or values with it, as in shots:1,2,4.")
    if "test_of" not in [f.name for f in fields(scenario)]:
        raise HyperparameterError(f"--curve: {type(scenario).__name__} has none; open_set has.")
    options = scenario.arguments()
    values = sorted({int(value) for value in listed.split(",")}) if listed else []
    if axis == "shots":
        values = values or list(SHOTS)
        changes = [{"shots": v, "test_of": f"{options['known']}:{values[-1]}"} for v in values]
    else:
        given = options["known"].split("+")
        kinds = len({s.defect for s in dataset.select(split="test") if s.y})
        types = given if len(given) > 1 else list(known_types(str(kinds), dataset))
        values = values or list(range(1, len(types) + (len(given) > 1)))
        if not values or values[-1] > len(types):
            raise HyperparameterError(f"--curve {text}: there are {len(types)} types, {', '.join(types)}.")
        widest = f"{'+'.join(types[: values[-1]])}:{options['shots']}"
        changes = [{"known": "+".join(types[:v]), "test_of": widest} for v in values]
    made: dict[str, Scenario] = {}
    for change in changes:
        one = replace(scenario, **change)
        made.setdefault(repr([[s.sample_id for s in task.train] for task in one.tasks(dataset)]), one)
    return list(made.values())


def curves_of(runs: Sequence[FinishedRun]) -> list[Curve]:
    """Every curve that finished runs have the points of: two values of an axis at least."""
    curves = []
    for axis in AXES:
        groups: dict[str, list[FinishedRun]] = {}
        for run in runs:
            options = run.spec.scenario.arguments
            if not set(AXES) <= set(options) or {"known", "unknown"} - set(run.result["slices"]):
                continue
            kept = {k: v for k, v in options.items() if k not in (axis, "draw", "order")}
            key = [run.spec.scenario.name, kept, run.spec.dataset.name, run.spec.fingerprint, run.spec.evaluate]
            groups.setdefault(json.dumps(key, sort_keys=True, default=str), []).append(run)
        for found in groups.values():
            if len({_value(run, axis) for run in found}) > 1:
                curves.append(_curve(axis, found))
    return sorted(curves, key=lambda c: (c.title, c.axis))


def _curve(axis: str, runs: Sequence[FinishedRun]) -> Curve:
    methods: dict[str, list[FinishedRun]] = {}
    for run in runs:
        spec = run.spec
        key = [spec.strategy.name, spec.strategy.arguments, spec.continual.name, spec.continual.arguments,
               spec.precision]  # fmt: skip
        methods.setdefault(json.dumps(key, sort_keys=True, default=str), []).append(run)
    firsts = [found[0].spec for found in methods.values()]
    names = method_names(firsts)
    rows: list[dict[str, Any]] = []
    placed: dict[tuple[str, int], list[FinishedRun]] = {}
    for name, found in zip(names, methods.values()):
        for run in found:
            value = _value(run, axis)
            placed.setdefault((name, value), []).append(run)
            common = {"strategy": name, "value": value, "given": _given(run), "seed": run.spec.seed,
                      "draw": run.spec.scenario.arguments.get("draw")}  # fmt: skip
            parts = {"all": run.result["final"], **{p: run.result["slices"][p] for p in ("known", "unknown")}}
            rows += [{**common, "part": part, "figure": figure, "score": parts[part].get(figure)}
                     for part in PARTS for figure in FIGURES]  # fmt: skip
    spec = runs[0].spec
    fixed = {k: v for k, v in spec.scenario.arguments.items() if k in AXES and k != axis}
    shared = ", ".join(f"{k} {v}" for k, v in fixed.items())
    title = f"{spec.scenario.name} on {spec.dataset.name}, {shared}"
    frame = pd.DataFrame(rows).astype({"score": float}).sort_values(["strategy", "value", "draw"], kind="stable")
    return Curve(axis, title, frame.reset_index(drop=True), dict(sorted(placed.items())), _same_clouds(placed))


def _same_clouds(placed: dict[tuple[str, int], list[FinishedRun]]) -> bool:
    """Whether each repetition (seed, draw) is tested on the same clouds at every value."""
    tested: dict[str, set[frozenset[str]]] = {}
    for runs in placed.values():
        for run in runs:
            tested.setdefault(repetition_key(run), set()).add(frozenset(run.final_scores()["sample_id"]))
    return all(len(sets) == 1 for sets in tested.values())


def _value(run: FinishedRun, axis: str) -> int:
    """Place on the axis: the number of shots, or of known types."""
    option = run.spec.scenario.arguments[axis]
    if axis == "shots":
        return int(option)
    return int(option) if str(option).isdigit() else len(str(option).split("+"))


def _given(run: FinishedRun) -> float:
    """Known samples given for training, mean over classes; NaN in results that do not say."""
    given = run.result.get("given")
    return float("nan") if given is None else float(np.mean([sum(task["known"].values()) for task in given]))


def curve_table(curve: Curve, draws: int = 1000, seed: int = 0) -> Table:
    """One row per strategy and value, and whether it differs from the smallest value beyond noise.

    Args:
        curve: from `curves_of`.
        draws: bootstrap resamples of the test clouds.
        seed: of the resampling.
    """
    intervals, tested = {}, []
    for (name, value), runs in curve.runs.items():
        intervals[name, value] = {part: over_runs([Resampled(run, draws, seed, "" if part == "all" else part).final()
                                                   for run in runs], seed) for part in PARTS}  # fmt: skip
    firsts = {name: min(v for n, v in curve.runs if n == name) for name, _ in curve.runs}
    if curve.same_clouds:
        for (name, value), found in intervals.items():
            base = intervals[name, firsts[name]]["all"]
            p = paired_p(found["all"].samples, base.samples)
            if value != firsts[name] and not np.isnan(p):
                tested.append(((name, value), p))
    adjusted = dict(zip([cell for cell, _ in tested], holm([p for _, p in tested]))) if tested else {}
    rows = []
    for (name, value), runs in curve.runs.items():
        if value == firsts[name]:
            verdict = "–"
        elif (name, value) not in adjusted:
            verdict = "not tested: other test clouds"
        else:
            difference = intervals[name, value]["all"].value - intervals[name, firsts[name]]["all"].value
            beyond = "beyond" if adjusted[name, value] < ALPHA else "within"
            verdict = f"{number(difference, signed=True)}, {beyond} noise"
        given = [_given(run) for run in runs]
        cells = [with_interval(i.value, i.low, i.high) for i in intervals[name, value].values()]
        rows.append([name, str(value), number(float(np.mean(given)), 1), str(len(runs)), *cells, verdict])
    columns = ["method", AXES[curve.axis], "given per class", "runs", "all defects", "known defects",
               "unknown defects", "all defects, against the first"]  # fmt: skip
    same = ("All values are tested on the same clouds." if curve.same_clouds
            else "The values are tested on different clouds, because what is given leaves the test set.")  # fmt: skip
    note = (f"Object AUROC [95 % bootstrap interval over test objects and draws]; tests Holm-adjusted over the table. "
            f"{same} Given: known samples per class, where there are fewer than asked for.")  # fmt: skip
    return Table(f"{curve.title}: over {AXES[curve.axis]}", columns, rows, note, frozenset(columns[-1:]))


def draw_curve(curve: Curve, figure: str = "object_auroc") -> Any:
    """A matplotlib figure with a panel each for all, known and unknown defects.

    Args:
        curve: from `curves_of`.
        figure: which of `FIGURES`.
    """
    import matplotlib.pyplot as plt

    from toolkit import plots

    label = figure.replace("_auroc", " AUROC").replace("_ap", " average precision")
    with plots.context():
        whole, panels = plt.subplots(1, len(PARTS), figsize=(9.6, 3.2), layout="constrained", sharey=True)
    rows = curve.frame[curve.frame["figure"] == figure].dropna(subset="score")
    for ax, part in zip(panels, PARTS):
        here = rows[rows["part"] == part]
        if len(here):
            plots.known_curve(here, ax=ax, title=f"{part} defects", xlabel=AXES[curve.axis], ylabel=label)
    for ax in panels[1:]:
        ax.set_ylabel("")
        if ax.get_legend() is not None:
            ax.get_legend().remove()
    return whole


def run_curve(scenarios: Sequence[Scenario], text: str, classes: dict[str, Any], arguments: dict[str, dict[str, Any]],
              options: Any) -> int:  # fmt: skip
    """Run all points of a curve, print its table, and write figures and CSV; returns the exit code.

    Args:
        scenarios: one per draw, otherwise alike.
        text: see `settings`.
        classes, arguments, options: as for `toolkit.runs.session.run_session`.
    """
    from toolkit.plots import save
    from toolkit.runs import session
    from toolkit.runs.show import _console

    session.quieten()
    dataset = classes["dataset"](**arguments["dataset"])
    planned = [one for scenario in scenarios for one in settings(scenario, text, dataset)]
    if len(planned) <= len(scenarios):
        raise HyperparameterError(f"--curve {text}: only one value gives samples of its own here: types have too few "
                                  "objects. Nothing to draw.")  # fmt: skip
    if options.dry_run:
        for one in planned:
            session.print_stream(one, dataset)
        return 0
    session.writable(options.output)
    device, threads = session.choose_device(options.device), session.set_threads(options.threads)
    store = session.open_store(options.cache)
    runs = []
    for i, one in enumerate(planned, 1):
        print(f"curve: run {i} of {len(planned)}", flush=True)
        runs.append(load_run(session.run_one(one, dataset, classes, arguments, options, device, threads, store)))
    axis = text.partition(":")[0]
    curve = next(curve for curve in curves_of(runs) if curve.axis == axis)
    table = curve_table(curve)
    _console().print(table.rich())
    spec = runs[0].spec
    fixed = "_".join(f"{k}={v}" for k, v in scenarios[0].arguments().items() if k in AXES and k != axis)
    folder = Path(options.output) / "curves" / f"{spec.scenario.name}_{spec.dataset.name}_{spec.method}_{axis}_{fixed}"
    for figure in ("object_auroc", "point_auroc"):
        print(f"written: {save(draw_curve(curve, figure), folder / figure, close=True)}")
    curve.frame.to_csv(folder / "curve.csv", index=False)
    print(f"written: {folder / 'curve.csv'}")
    return 0
