"""Quality against cost, with the Pareto front."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullFormatter
from numpy.typing import ArrayLike, NDArray

from toolkit.plots import style


def pareto_front(cost: ArrayLike, quality: ArrayLike) -> NDArray[np.bool_]:
    """Mask of the points that no other point beats: none is at most as costly and at least as good, and not equal."""
    c, q = np.asarray(cost, dtype=np.float64).reshape(-1), np.asarray(quality, dtype=np.float64).reshape(-1)
    order = np.lexsort((-q, c))
    best = np.maximum.accumulate(np.concatenate([[-np.inf], q[order]]))[:-1]
    front = np.zeros(c.size, dtype=bool)
    front[order] = q[order] > best
    twins = [(c[i], q[i]) for i in np.flatnonzero(front)]
    return np.array([(a, b) in twins for a, b in zip(c, q)], dtype=bool)


def pareto(
    frame: pd.DataFrame,
    cost: str = "score_s",
    quality: str = "average",
    name: str = "strategy",
    cost_label: str | None = None,
    quality_label: str | None = None,
    log: bool = True,
    ax: Axes | None = None,
    title: str | None = None,
) -> Axes:
    """One marker per row; those on the front are filled and joined.

    Args:
        frame: columns `cost` (lower = better), `quality` (higher = better) and `name`.
        cost: column.
        quality: column.
        name: column with the labels.
        cost_label: of the x axis, with unit.
        quality_label: of the y axis.
        log: logarithmic cost axis.
        ax: where to draw.
        title: above the figure.
    """
    style.require(frame, (cost, quality, name))
    table = frame[[name, cost, quality]].dropna().sort_values(cost, kind="stable")
    table["on_front"] = pareto_front(table[cost], table[quality])
    with style.context():
        ax = style.new_axes(ax, width=6.0)
        front, others = table[table["on_front"]], table[~table["on_front"]]
        ax.step(front[cost], front[quality], where="post", color=style.NORMAL, linewidth=1.2, alpha=0.7)
        ax.plot(front[cost], front[quality], "o", color=style.NORMAL, label="Pareto front")
        ax.plot(others[cost], others[quality], "s", mfc="none", color="0.45", label="beaten by another")
        if log:
            ax.set_xscale("log")
            ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=8))
            ax.xaxis.set_major_formatter("{x:g}")
            ax.xaxis.set_minor_formatter(NullFormatter())
        ax.margins(x=0.2, y=0.15)
        for row in table.to_dict("records"):
            ax.annotate(
                style.wrapped(row[name]),
                (row[cost], row[quality]),
                xytext=(5, -10),
                textcoords="offset points",
                va="top",
                fontsize=8.5,
            )
        ax.set(xlabel=cost_label or cost, ylabel=quality_label or quality, title=title or "")
        ax.legend(loc="upper left", bbox_to_anchor=(1.02, 1.0))
    return style.remember(ax, table)
