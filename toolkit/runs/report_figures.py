"""Which figures a stream gets, and how they come into a page and into a folder beside it."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from toolkit.metrics import critical_difference
from toolkit.runs.groups import Method, Stream
from toolkit.runs.load import FinishedRun
from toolkit.runs.report_tables import StreamTables
from toolkit.runs.show import matrix, shorten

MOST_PANELS = 12


@dataclass(frozen=True)
class Picture:
    """A drawn figure.

    Attributes:
        title, caption: for the page.
        path: of the PNG; the numbers lie beside it as CSV.
        source: the figure as a ``data:`` address, for pages that stand alone.
        wide: takes a whole row of the page.
    """

    title: str
    caption: str
    path: Path
    source: str
    wide: bool = False


@dataclass(frozen=True)
class _Plan:
    name: str
    title: str
    caption: str
    draw: Callable[[], Any]
    wide: bool = False


def draw_pictures(tables: StreamTables, folder: Path) -> list[Picture]:
    """Draw every figure that a stream's runs have the numbers for, as PNG and CSV in a folder.

    Raises:
        OutputError: the folder cannot be written.
    """
    import matplotlib.pyplot as plt

    from toolkit.plots import save

    pictures = []
    for plan in _plans(tables):
        figure = plan.draw()
        figure = figure if hasattr(figure, "savefig") else figure.get_figure(root=True)
        path = save(figure, folder / plan.name)
        pictures.append(Picture(plan.title, plan.caption, path, as_address(figure), plan.wide))
        plt.close(figure)
    return pictures


def as_address(figure: Any) -> str:
    """A matplotlib figure as SVG in a ``data:`` address; equal figures give equal bytes."""
    import matplotlib

    from toolkit.plots import context

    buffer = io.BytesIO()
    with context(), matplotlib.rc_context({"svg.hashsalt": "continual3d"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()


def file_name(text: str) -> str:
    """`text` with nothing in it that a file system minds."""
    return re.sub(r"[^\w.=-]+", "_", text).strip("_")


def _plans(tables: StreamTables) -> Iterator[_Plan]:
    stream = tables.stream
    if len(stream.tasks) > 1 and not stream.first.independent:
        yield from _over_tasks(stream)
    yield from _costs(tables)
    yield from _slices(stream)
    yield from _openness(stream)
    yield from _ranks(tables)
    for method in stream.methods:
        yield from _drift(method)
    for method in stream.methods:
        yield from _scores(method)


def _over_tasks(stream: Stream) -> Iterator[_Plan]:
    """Curves over tasks, R matrices, forgetting, stability and plasticity."""
    from toolkit import plots

    matrices = {m.name: [matrix(run.result) for run in m.runs] for m in stream.methods}
    frame = plots.matrices_frame(matrices)
    if (frame["trained_on"] >= 0).any():
        yield _Plan(
            "auroc_over_tasks",
            "AUROC over tasks",
            "Mean object AUROC of the tasks seen so far. Bands: lowest to highest repetition. Dashed: methods "
            "trained once on everything.",
            partial(plots.auroc_over_tasks, frame),
        )
    transfer = plots.transfer_frame(matrices)
    if len(transfer):
        yield _Plan(
            "forgetting",
            "Forgetting and backward transfer",
            "Forgetting above 0 and backward transfer below 0: earlier tasks got worse. A dot is a repetition.",
            partial(plots.bars, transfer),
        )
    balance = plots.stability_plasticity_frame(matrices)
    if len(balance):
        yield _Plan(
            "stability_plasticity",
            "Stability and plasticity",
            "How well tasks are learned when they come, and how well they stand at the end.",
            partial(plots.stability_plasticity, balance),
        )
    tasks = [shorten(name, 14) for name in stream.tasks]
    for kind in ("object_auroc", "point_auroc"):
        label = kind.replace("_auroc", " AUROC")
        for method in stream.methods:
            stack = [matrix(run.result, kind) for run in method.runs]
            if np.isnan(stack).all():
                continue
            mean = f", mean of {len(stack)} repetitions" if len(stack) > 1 else ""
            yield _Plan(
                f"r_{kind}_{file_name(method.name)}",
                f"R matrix, {label}: {method.name}",
                f"{label[0].upper()}{label[1:]} on each task's test clouds (columns) after each task (rows){mean}."
                " Boxes: the task just learned.",
                partial(plots.r_matrix, np.mean(stack, axis=0), tasks, label=label),
            )

    for name in stream.first.result["slices"]:
        for method in stream.methods:
            stack = [_array(run.result["slices"][name]["matrices"]["object_auroc"]) for run in method.runs]
            if np.isnan(stack).all():
                continue
            yield _Plan(
                f"r_object_auroc_{file_name(method.name)}_{file_name(name)}",
                f"R matrix, {name.replace('_', ' ')}: {method.name}",
                f"Object AUROC on the part of each task's test clouds that is called {name.replace('_', ' ')}.",
                partial(plots.r_matrix, np.mean(stack, axis=0), tasks, label="object AUROC"),
            )


def _array(rows: Any) -> Any:
    return np.array([[np.nan if value is None else value for value in row] for row in rows], dtype=float)


def _costs(tables: StreamTables) -> Iterator[_Plan]:
    """Accuracy against memory and against latency."""
    from toolkit import plots

    if len(tables.stream.methods) < 2:
        return
    rows = []
    for method in tables.stream.methods:
        costs = [run.result["cost"] for run in method.runs]
        rows.append(
            {
                "strategy": method.name,
                "average": tables.final[method.name].value,
                "state_mb": np.mean([c.get("kept_bytes", c["state_bytes"]) for c in costs]) / 2**20,
                "score_s": np.mean([c["score_seconds_per_cloud"] for c in costs]),
            }
        )
    frame = pd.DataFrame(rows).dropna()
    for cost, title, label in (
        ("state_mb", "memory", "kept from task to task, replay included (MB)"),
        ("score_s", "latency", "seconds to score a cloud"),
    ):
        chosen = frame[frame[cost] > 0]
        together = chosen.groupby([cost, "average"], sort=False)["strategy"].agg(",\n".join).reset_index()
        if len(chosen) > 1:
            yield _Plan(
                f"pareto_{title}",
                f"Accuracy against {title}",
                "Upper left is best. Differences in AUROC may be within noise; see the table.",
                partial(plots.pareto, together, cost, cost_label=label, quality_label="mean object AUROC"),
            )


def _slices(stream: Stream) -> Iterator[_Plan]:
    """Known and unknown defects, or whatever parts of the test clouds the scenario reports."""
    from toolkit import plots

    names = list(stream.first.result["slices"])
    runs = [(method, run) for method in stream.methods for run in method.runs]
    if {"known", "unknown"} <= set(names):
        rows = [
            {
                "strategy": method.name,
                "known_auroc": run.result["slices"]["known"]["object_auroc"],
                "unknown_auroc": run.result["slices"]["unknown"]["object_auroc"],
                "overall_auroc": run.result["final"]["object_auroc"],
            }
            for method, run in runs
        ]
        frame = pd.DataFrame(rows)
        if frame[["known_auroc", "unknown_auroc"]].notna().any().all():
            yield _Plan(
                "known_unknown",
                "Known and unknown defects",
                "Object AUROC against the same normal clouds. A dot is a repetition.",
                partial(plots.known_unknown, frame),
            )
    elif names:
        rows = [
            {
                "strategy": name.replace("_", " "),
                "metric": method.name,
                "value": run.result["slices"][name]["object_auroc"],
            }
            for name in names
            for method, run in runs
        ]
        parts = pd.DataFrame(rows).dropna()
        if len(parts):
            yield _Plan(
                "slices",
                "Slices of the test clouds",
                "Object AUROC of each slice. A dot is a repetition.",
                partial(plots.bars, parts, ylabel="object AUROC", baseline=0.5),
                wide=len(names) > 6,
            )


def _openness(stream: Stream) -> Iterator[_Plan]:
    """AUROC as unknown defect types come in, mean over categories and runs."""
    from toolkit import plots
    from toolkit.metrics import openness_curve

    if {"known", "unknown"} - set(stream.first.result["slices"]) or "given" not in stream.first.result:
        return
    rows = []
    for method in stream.methods:
        for run in method.runs:
            known = {kind for task in run.result["given"] for kind in task["known"]}
            for _, part in run.final_scores().groupby("category"):
                if known & set(part["defect"]) and part["y"].min() == 0:
                    curve = openness_curve(part["object_score"], part["y"], part["defect"], known)
                    rows.append(pd.DataFrame({"strategy": method.name, **curve}))
    if not rows:
        return
    frame = pd.concat(rows).groupby(["strategy", "unknown"], sort=False).mean().reset_index()
    if frame["unknown"].nunique() > 1:
        yield _Plan(
            "openness",
            "Openness",
            "Object AUROC of the known types and of u unknown ones, mean over categories and repetitions. Every set of "
            "u types is counted out; the bands reach from the worst set to the best.",
            partial(plots.openness_curve, frame),
        )


def _ranks(tables: StreamTables) -> Iterator[_Plan]:
    """Average ranks over categories."""
    from toolkit import plots

    by_method = {m.name: [tables.resampled[run].categories() for run in m.runs] for m in tables.stream.methods}
    common = sorted(set.intersection(*(set(part) for parts in by_method.values() for part in parts)))
    if len(by_method) < 3 or len(common) < 6:
        return
    values = {
        name: [float(np.mean([part[c][0] for part in parts])) for c in common] for name, parts in by_method.items()
    }
    yield _Plan(
        "critical_difference",
        "Average rank over categories",
        "Methods joined by a bar are not told apart (Friedman, Nemenyi, 5 %).",
        partial(plots.critical_difference, critical_difference(values)),
    )


def _drift(method: Method) -> Iterator[_Plan]:
    """How later training moves the scores of the first task."""
    from toolkit import plots

    run = method.runs[0]
    first = run.scores[(run.scores["experience"] == 0) & (run.scores["trained_on"] >= 0)]
    if run.independent or first["trained_on"].nunique() < 2:
        return
    threshold = run.result["drift"].get("threshold")  # none where too few normal clouds promise anything
    fixed = "The threshold is fixed after task 1 at 10 % false alarms."
    yield _Plan(
        f"drift_{file_name(method.name)}",
        f"Score drift: {method.name}",
        f"Scores of the first task's test clouds as later tasks are learned{_which(method)}. Lines: medians, bands: "
        f"5 to 95 %. {'Too few normal clouds for a threshold.' if threshold is None else fixed}",
        partial(plots.score_drift, run.scores, threshold),
    )


def _scores(method: Method) -> Iterator[_Plan]:
    """Histograms of one method's object scores."""
    yield _Plan(
        f"scores_{file_name(method.name)}",
        f"Scores: {method.name}",
        f"Object scores of each task's test clouds after the last task{_which(method)}.",
        partial(_histograms, method.runs[0]),
        wide=True,
    )


def _which(method: Method) -> str:
    return f" ({method.repetitions[0]})" if len(method.runs) > 1 else ""


def _histograms(run: FinishedRun) -> Any:
    """One panel per task, at most `MOST_PANELS`."""
    import matplotlib.pyplot as plt

    from toolkit import plots

    final = run.final_scores()
    shown = sorted(final["experience"].unique())[:MOST_PANELS]
    columns = min(4, len(shown))
    lines = -(-len(shown) // columns)
    with plots.context():
        figure, grid = plt.subplots(
            lines, columns, figsize=(3.1 * columns, 2.5 * lines), squeeze=False, layout="constrained"
        )
    for ax, experience in zip(grid.flat, shown):
        title = shorten(run.result["tasks"][int(experience)], 28)
        plots.score_histograms(final[final["experience"] == experience], bins=20, ax=ax, title=title)
    for ax in grid.flat[len(shown) :]:
        ax.set_axis_off()
    for ax in grid[:, 1:].flat:
        ax.set_ylabel("")
    left = len(final["experience"].unique()) - len(shown)
    if left:
        figure.suptitle(f"first {len(shown)} tasks; {left} more are not shown")
    return figure
