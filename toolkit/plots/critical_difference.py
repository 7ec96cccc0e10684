"""Critical difference diagram."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes

from toolkit.metrics import CriticalDifference
from toolkit.plots import style


def critical_difference(result: CriticalDifference, ax: Axes | None = None, title: str | None = None) -> Axes:
    """Average ranks on a line, best on the left; a bar joins methods that the test does not tell apart.

    Args:
        result: from `toolkit.metrics.critical_difference`.
        ax: where to draw.
        title: above the figure.

    Source: Demsar, "Statistical comparisons of classifiers over multiple data sets", JMLR 7 (2006), figure 1.
    """
    names, ranks = list(result.ranks), list(result.ranks.values())
    count = len(names)
    half = (count + 1) // 2
    with style.context():
        ax = style.new_axes(ax, width=6.0, height=1.3 + 0.3 * (half + len(result.groups)))
        step = 1.0
        first_label = -step * (len(result.groups) + 1.2)
        for i, (name, rank) in enumerate(zip(names, ranks)):
            left = i < half
            y = first_label - step * (i if left else count - 1 - i)
            end = 1 - 0.12 * (count - 1) if left else count + 0.12 * (count - 1)
            ax.plot([rank, rank, end], [0, y, y], color="0.35", linewidth=0.9)
            ax.annotate(
                style.wrapped(f"{name} ({rank:.2f})", 30),
                (end, y),
                xytext=(-4 if left else 4, 0),
                textcoords="offset points",
                ha="right" if left else "left",
                va="center",
                fontsize=9,
            )
        for i, group in enumerate(result.groups):
            y = -step * (i + 0.8)
            span = [result.ranks[group[0]] - 0.04, result.ranks[group[-1]] + 0.04]
            ax.plot(span, [y, y], color=style.PALETTE[0], linewidth=4, solid_capstyle="butt")
        ax.plot([1, count], [0, 0], color="black", linewidth=1.2)
        for tick in range(1, count + 1):
            ax.plot([tick, tick], [0, 0.3], color="black", linewidth=1.2)
            ax.annotate(str(tick), (tick, 0.3), xytext=(0, 2), textcoords="offset points", ha="center", fontsize=9)
        width = min(result.critical_difference, count - 1)
        ax.plot([1, 1, 1 + width, 1 + width], [1.7, 1.9, 1.9, 1.7], color="black", linewidth=1.2)
        shown = f"critical difference {result.critical_difference:.2f}"
        if result.critical_difference > count - 1:
            shown += " (beyond the scale)"
        ax.annotate(shown, (1 + width / 2, 1.9), xytext=(0, 2), textcoords="offset points", ha="center", fontsize=9)
        ax.annotate("average rank", (count, 0.9), xytext=(0, 6), textcoords="offset points", ha="right", fontsize=9)
        ax.set_xlim(1 - 0.55 * (count - 1), count + 0.55 * (count - 1))
        ax.set_axis_off()
        if title:
            ax.set_title(title)
    member = {name: " ".join(str(i) for i, g in enumerate(result.groups) if name in g) for name in names}
    table = pd.DataFrame({"method": names, "average_rank": ranks, "groups": [member[name] for name in names]})
    return style.remember(
        ax, table.assign(critical_difference=result.critical_difference, friedman_p=result.friedman_p)
    )
