"""Average AUROC over the tasks seen so far, as training goes on."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes

from toolkit.plots import style


def auroc_over_tasks(
    frame: pd.DataFrame, value: str = "auroc", ax: Axes | None = None, title: str | None = None
) -> Axes:
    """One line per strategy: the mean over runs of A_t; the band reaches from the lowest to the highest run.

    A strategy with one state only, such as joint training, becomes a horizontal line.

    Args:
        frame: columns `strategy`, `run`, `trained_on`, `experience` and `value`, as from `frames.matrices_frame`.
            States before any training are not drawn, since no task has been seen then.
        value: column to average.
        ax: where to draw.
        title: above the figure.
    """
    style.require(frame, ("strategy", "run", "trained_on", "experience", value))
    seen = frame[(frame["trained_on"] >= 0) & (frame["experience"] <= frame["trained_on"])]
    style.require(seen, (value,))
    curves = seen.groupby(["strategy", "run", "trained_on"], sort=False)[value].mean()
    table = curves.groupby(["strategy", "trained_on"], sort=False).agg(["mean", "min", "max", "count"]).reset_index()
    order = style.in_order(seen["strategy"])
    with style.context():
        ax = style.new_axes(ax)
        for name, look in style.looks(order).items():
            line = table[table["strategy"] == name].sort_values("trained_on")
            if len(line) == 1 and seen["trained_on"].nunique() > 1:
                ax.axhline(line["mean"].iloc[0], color=look["color"], linestyle="--", label=style.wrapped(name))
                ax.axhspan(line["min"].iloc[0], line["max"].iloc[0], color=look["color"], alpha=0.12, linewidth=0)
                continue
            ax.plot(line["trained_on"], line["mean"], label=style.wrapped(name), **look)
            ax.fill_between(line["trained_on"], line["min"], line["max"], color=look["color"], alpha=0.18, linewidth=0)
        style.whole_ticks(ax, seen["trained_on"])
        ax.set(xlabel="tasks trained", ylabel="mean object AUROC over seen tasks", title=title or "")
        if len(order) > 3:  # they would lie on the lines
            ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
        elif len(order) > 1:
            ax.legend()
    return style.remember(ax, table)
