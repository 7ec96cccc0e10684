"""AUROC of every task as later tasks are learned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize

from toolkit.plots import style

NAMED = 16  # more tasks than this cannot be told apart by colour and marker


def forgetting_lines(
    frame: pd.DataFrame,
    value: str = "auroc",
    tasks: Sequence[str] | None = None,
    ax: Axes | None = None,
    title: str | None = None,
) -> Axes:
    """One line per task; thin before the task was learned, a large marker when it was, then what is left of it.

    More than 16 tasks have no markers, and a colour bar in place of the legend.

    Args:
        frame: columns `run`, `trained_on`, `experience` and `value` of one strategy, as from `frames.matrices_frame`.
            Lines are means over runs, bands reach from the lowest to the highest run.
        value: column to draw.
        tasks: names of the tasks for the legend.
        ax: where to draw.
        title: above the figure.
    """
    style.require(frame, ("run", "trained_on", "experience", value))
    table = frame.groupby(["experience", "trained_on"])[value].agg(["mean", "min", "max", "count"]).reset_index()
    experiences = sorted(int(e) for e in table["experience"].unique())
    with style.context():
        ax = style.new_axes(ax)
        many = len(experiences) > NAMED
        for experience, look in (_shades(experiences) if many else style.looks(experiences)).items():
            line = table[table["experience"] == experience].sort_values("trained_on")
            learned = line[line["trained_on"] >= experience]
            earlier = line[line["trained_on"] <= experience]
            color = look["color"]
            name = tasks[experience] if tasks is not None else f"task {experience + 1}"
            ax.plot(earlier["trained_on"], earlier["mean"], color=color, linewidth=0.7, alpha=0.6)
            ax.plot(learned["trained_on"], learned["mean"], label=name, **look)
            if many:
                continue
            ax.fill_between(learned["trained_on"], learned["min"], learned["max"], color=color, alpha=0.15, linewidth=0)
            first = learned.iloc[:1]
            ax.plot(
                first["trained_on"], first["mean"], marker=look["marker"], color=color, markersize=9, linestyle="none"
            )
        ax.axhline(0.5, color="0.5", linewidth=0.8)
        ax.annotate(
            "chance", (1, 0.5), xycoords=("axes fraction", "data"), ha="right", va="bottom", color="0.4", size=8
        )
        style.whole_ticks(ax, np.unique(table["trained_on"]).tolist())
        ax.set(xlabel="tasks trained", ylabel="object AUROC", title=title or "")
        if many:
            limits = Normalize(experiences[0] + 1, experiences[-1] + 1)
            ax.figure.colorbar(ScalarMappable(limits, style.SCORE_MAP), ax=ax, label="tested on task")
        else:
            ax.legend(title="tested on", loc="center left", bbox_to_anchor=(1.0, 0.5))
    return style.remember(ax, table)


def _shades(experiences: list[int]) -> dict[int, dict[str, Any]]:
    """A thin line per task, in the colour of its place in the stream."""
    colors = colormaps[style.SCORE_MAP](np.linspace(0, 1, len(experiences)))
    return {e: {"color": color, "linewidth": 0.8, "alpha": 0.7} for e, color in zip(experiences, colors)}
