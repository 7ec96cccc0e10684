"""Stability against plasticity."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from toolkit.plots import style


def stability_plasticity(frame: pd.DataFrame, ax: Axes | None = None, title: str | None = None) -> Axes:
    """How well strategies learn (x) against how well old tasks stand at the end (y); the upper right is best.

    Large markers are means over runs, small ones single runs; grey lines join equal harmonic means.

    Args:
        frame: columns `strategy`, `stability`, `plasticity`, one row per run, as from
            `frames.stability_plasticity_frame`.
        ax: where to draw.
        title: above the figure.
    """
    style.require(frame, ("strategy", "stability", "plasticity"))
    order = style.in_order(frame["strategy"])
    table = frame.groupby("strategy", sort=False)[["plasticity", "stability"]].mean().reset_index()
    table["tradeoff"] = 2 * table["plasticity"] * table["stability"] / (table["plasticity"] + table["stability"])
    with style.context():
        ax = style.new_axes(ax, width=5.6, height=3.8)
        values = frame[["plasticity", "stability"]].to_numpy(float)
        low, high = max(0.0, values.min() - 0.05), min(1.0, values.max() + 0.05)
        x, y = np.meshgrid(np.linspace(low, high, 100), np.linspace(low, high, 100))
        with np.errstate(invalid="ignore"):  # 0 / 0 in the corner of an all-zero picture
            lines = ax.contour(x, y, 2 * x * y / (x + y), levels=6, colors="0.75", linewidths=0.7)
        ax.clabel(lines, fmt="%.2f", fontsize=7.5, colors="0.45")
        for name, look in style.looks(order).items():
            runs = frame[frame["strategy"] == name]
            mean = table[table["strategy"] == name]
            marker = {"color": look["color"], "marker": look["marker"], "linestyle": "none"}
            if len(runs) > 1:
                ax.plot(runs["plasticity"], runs["stability"], markersize=3.5, alpha=0.5, **marker)
            ax.plot(
                mean["plasticity"],
                mean["stability"],
                markersize=9,
                markeredgecolor="white",
                label=style.wrapped(name),
                **marker,
            )
        ax.set(xlim=(low, high), ylim=(low, high), aspect="equal", title=title or "")
        ax.set(xlabel="plasticity: AUROC when learned", ylabel="stability: final AUROC of earlier tasks")
        ax.grid(False)
        ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return style.remember(ax, table)
