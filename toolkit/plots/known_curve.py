"""Detection over the number of known samples, or of known defect types."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes

from toolkit.plots import style


def known_curve(frame: pd.DataFrame, ax: Axes | None = None, title: str | None = None, xlabel: str = "known samples",
                ylabel: str = "object AUROC") -> Axes:  # fmt: skip
    """One line per strategy: the mean over draws; the band reaches from the lowest to the highest draw.

    Args:
        frame: columns `strategy`, `value` (a count) and `score`, one row per run.
        ax: where to draw.
        title: above the figure.
        xlabel, ylabel: of the axes.
    """
    style.require(frame, ("strategy", "value", "score"))
    with style.context():
        ax = style.new_axes(ax)
        for name, look in style.looks(style.in_order(frame["strategy"])).items():
            runs = frame[frame["strategy"] == name].groupby("value")["score"].agg(["mean", "min", "max"])
            ax.plot(runs.index, runs["mean"], label=name, **look)
            ax.fill_between(runs.index, runs["min"], runs["max"], color=look["color"], alpha=0.15, linewidth=0)
        ax.set_xticks(sorted(int(v) for v in frame["value"].unique()))
        ax.set(xlabel=xlabel, ylabel=ylabel, title=title or "")
        ax.legend()
    return style.remember(ax, frame.copy())
