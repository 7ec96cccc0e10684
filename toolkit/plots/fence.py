"""The Fence Theorem's claim as a figure: AUROC against the number of cells that clouds are cut into.

The sweep is ``docs/grids/fence.yaml``; ``toolkit/plots/fence_sweep.py`` draws the figure from its runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from toolkit.plots import style


def fence_frame(results: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """One row per category of each finished run of Patch3D.

    A run with one cell has nothing to match and stands in every setting as its starting point.

    Args:
        results: contents of ``result.json``; those of other strategies are left out.

    Returns:
        Columns `setting` (how cells were aligned), `cells`, `seed`, `category`, `object_auroc`, `point_auroc`.
    """
    rows = []
    for result in results:
        part = result["spec"]["strategy"]
        if part["name"] == "Patch3D":
            given = part["arguments"]
            setting = f"{given['matching']}{'' if given['registration'] else ', not registered'}"
            for row in result["per_category"]:
                rows.append((setting if given["cells"] > 1 else "", given["cells"], result["spec"]["seed"],
                             row["category"], row["object_auroc"], row["point_auroc"]))  # fmt: skip
    columns = ["setting", "cells", "seed", "category", "object_auroc", "point_auroc"]
    frame = pd.DataFrame(rows, columns=columns)
    cut, whole = frame[frame["setting"] != ""], frame[frame["setting"] == ""]
    starts = [whole.assign(setting=setting) for setting in cut["setting"].unique()]
    return pd.concat([cut, *starts], ignore_index=True)


def fence_trend(frame: pd.DataFrame, metric: str = "point_auroc") -> pd.DataFrame:
    """Whether AUROC grows with the number of cells, setting by setting.

    Returns:
        Columns `setting`; `gain`, finest less coarsest cut, mean over categories; `standard_error` of it over the
        categories; `better`, share of categories that gain; `per_doubling`, slope of a straight line against log2
        of cells, mean over categories.
    """
    style.require(frame, ("setting", "cells", "category", metric))
    rows = []
    for setting in style.in_order(frame["setting"]):
        table = _by_category(frame[frame["setting"] == setting], metric)
        gain = table.iloc[-1] - table.iloc[0]
        slope = np.polyfit(np.log2(table.index.to_numpy(float)), table.to_numpy(), 1)[0] if len(table) > 1 else np.nan
        rows.append((setting, gain.mean(), gain.sem(), (gain > 0).mean(), np.mean(slope)))
    return pd.DataFrame(rows, columns=["setting", "gain", "standard_error", "better", "per_doubling"])


def fence(frame: pd.DataFrame, ax: Axes | None = None, title: str | None = None, metric: str = "point_auroc") -> Axes:
    """One line per setting: mean AUROC over categories against the number of cells.

    The band is one standard error of the difference to the coarsest cut, category by category: what the claim is about.
    Categories differ far more from each other than one category does from cut to cut.

    Args:
        frame: columns `setting`, `cells`, `category` and the metric, see `fence_frame`; seeds are averaged.
        ax: where to draw.
        title: above the figure.
        metric: "point_auroc" or "object_auroc".
    """
    style.require(frame, ("setting", "cells", "category", metric))
    settings = style.in_order(frame["setting"])
    with style.context():
        ax = style.new_axes(ax)
        for setting, look in style.looks(settings).items():
            table = _by_category(frame[frame["setting"] == setting], metric)
            mean, error = table.mean(axis=1), (table - table.iloc[0]).sem(axis=1).fillna(0)
            ax.plot(table.index, mean, label=setting, **look)
            ax.fill_between(table.index, mean - error, mean + error, color=look["color"], alpha=0.15, linewidth=0)
        ax.set_xscale("log", base=2)
        cells = sorted(frame["cells"].unique())
        ax.set_xticks(cells, [str(c) for c in cells])
        ax.set(xlabel="cells per cloud", ylabel=metric.replace("_auroc", " AUROC"), title=title or "")
        ax.legend()
    return style.remember(ax, frame.copy())


def _by_category(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Cells x categories, only categories for which every number of cells was run."""
    return frame.pivot_table(index="cells", columns="category", values=metric, aggfunc="mean").dropna(axis=1)
