"""Heat map of an R matrix."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike

from toolkit.metrics.continual import as_r_matrix
from toolkit.plots import style

ANNOTATED = 14  # more columns than this leave no room for numbers
BOXED = 60  # more columns than this leave no room for boxes, dots and a name each


def r_matrix(
    R: ArrayLike | pd.DataFrame,
    tasks: Sequence[str] | None = None,
    ax: Axes | None = None,
    title: str | None = None,
    label: str = "object AUROC",
    limits: tuple[float, float] = (0.5, 1.0),
) -> Axes:
    """Rows are the states of the strategy ("before", "task 1", ...), columns the test data of each task.

    Boxes mark each task when it was learned; a dot in an empty cell means not measured; with more than 60 tasks there
    are neither. Values under `limits` share
    the lowest colour, and the number says what they are.

    Args:
        R: (T+1, T) matrix.
        tasks: T names for the columns.
        ax: where to draw.
        title: above the map.
        label: of the colour bar.
        limits: values of the lowest and highest colour.
    """
    matrix = as_r_matrix(np.asarray(R))
    count = matrix.shape[1]
    names = list(tasks) if tasks is not None else [f"task {j + 1}" for j in range(count)]
    states = ["before"] + [f"task {i + 1}" for i in range(count)]
    frame = pd.DataFrame(matrix, index=pd.Index(states, name="trained until"), columns=names)
    numbers = count <= ANNOTATED
    with style.context():
        shown = min(count, BOXED)
        ax = style.new_axes(ax, 2.0 + (0.55 if numbers else 0.17) * shown, 1.4 + (0.4 if numbers else 0.14) * shown)
        text = np.where(np.isnan(matrix), "", np.char.mod("%.2f", matrix))
        sns.heatmap(
            frame,
            ax=ax,
            vmin=limits[0],
            vmax=limits[1],
            cmap=style.SCORE_MAP,
            annot=text if numbers else None,
            fmt="",
            annot_kws={"size": 9 if count <= 8 else 7.5},
            linewidths=0.8 if numbers else 0,
            linecolor="white",
            xticklabels=True if count <= BOXED else "auto",
            yticklabels=True if count <= BOXED else "auto",
            cbar_kws={"label": label},
        )
        for written in ax.texts:  # black or white, whichever stands out more (WCAG contrast)
            column, row = written.get_position()
            red, green, blue = ax.collections[0].to_rgba(matrix[int(row), int(column)])[:3]
            light = 0.2126 * red**2.2 + 0.7152 * green**2.2 + 0.0722 * blue**2.2
            written.set_color("black" if light > 0.18 else "white")
        for i, j in np.argwhere(np.isnan(matrix)) if count <= BOXED else ():
            ax.plot(j + 0.5, i + 0.5, marker=".", color="0.6", markersize=4)
        for j in range(count) if count <= BOXED else ():
            ax.add_patch(Rectangle((j, j + 1), 1, 1, fill=False, edgecolor="black", linewidth=1.4))
        ax.set(xlabel="tested on", ylabel="trained until")
        ax.grid(False)
        ax.tick_params(length=0)
        ax.tick_params(axis="y", rotation=0)
        if max(map(len, names)) > 7 or not numbers:
            style.slant_labels(ax)
        else:
            ax.tick_params(axis="x", rotation=0)
        if title:
            ax.set_title(title)
    return style.remember(ax, frame.reset_index())
