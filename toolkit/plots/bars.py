"""Grouped bars with the single runs on top."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes

from toolkit.plots import style

HATCHES = ("", "////", "....", "xxxx")


def bars(
    frame: pd.DataFrame,
    ax: Axes | None = None,
    title: str | None = None,
    ylabel: str = "change of object AUROC",
    baseline: float = 0.0,
) -> Axes:
    """Forgetting and backward transfer (or any other figures) of several strategies.

    A bar is the mean over runs, a dot is a run.

    Args:
        frame: columns `strategy`, `metric`, `value`, and `run` if there are several, as from `frames.transfer_frame`.
        ax: where to draw.
        title: above the figure.
        ylabel: of the value axis.
        baseline: where bars start: 0, or 0.5 for AUROCs.
    """
    style.require(frame, ("strategy", "metric", "value"))
    strategies, metrics = style.in_order(frame["strategy"]), style.in_order(frame["metric"])
    table = (
        frame.groupby(["strategy", "metric"], sort=False)["value"].agg(["mean", "min", "max", "count"]).reset_index()
    )
    width = 0.8 / len(metrics)
    with style.context():
        ax = style.new_axes(ax, width=max(3.2, 1.8 + 0.4 * len(strategies) * len(metrics)))
        for k, metric in enumerate(metrics):
            shift = (k - (len(metrics) - 1) / 2) * width
            heights = table[table["metric"] == metric].set_index("strategy")["mean"].reindex(strategies) - baseline
            ax.bar(
                [i + shift for i in range(len(strategies))],
                heights,
                width * 0.92,
                bottom=baseline,
                facecolor=(style.PALETTE[k % len(style.PALETTE)], 0.75),
                edgecolor="white",
                hatch=HATCHES[k % len(HATCHES)],
                label=metric,
            )
            runs = frame[frame["metric"] == metric]
            if len(runs) > len(strategies):
                at = [strategies.index(s) + shift for s in runs["strategy"]]
                ax.plot(at, runs["value"], linestyle="none", marker="o", markersize=2.8, color="black")
        ax.axhline(baseline, color="0.2", linewidth=0.8)
        ax.set(xlabel="", ylabel=ylabel, title=title or "")
        ax.grid(False, axis="x")
        ax.set_xticks(range(len(strategies)), [style.wrapped(s) for s in strategies])
        room = 0.6 * ax.figure.bbox.width / ax.figure.dpi / len(strategies)  # the legend takes the rest
        if 0.07 * max(min(len(str(s)), 24) for s in strategies) > room:  # inches per letter
            style.slant_labels(ax)
        ax.legend(title=None, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return style.remember(ax, table)
