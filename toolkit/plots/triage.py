"""Three-way decisions: accepted, sent to re-inspection, rejected, and the error among the decided."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from toolkit.metrics import triage_metrics
from toolkit.plots import style


def triage_frame(score: ArrayLike, y: ArrayLike, low: float, high: float, steps: int = 41) -> pd.DataFrame:
    """What happens as the undecided band narrows from [low, high] to its middle and widens to twice its width.

    Args:
        score: (M,) object scores.
        y: (M,) labels, 1 = defective.
        low, high: the calibrated thresholds; accept at or below, reject at or above.
        steps: number of widths.

    Returns:
        Columns `width` (1 = as calibrated), `low`, `high`, `accepted`, `reinspected`, `rejected` (shares of all
        objects) and `decided_error` (NaN where nothing is decided).

    Raises:
        MetricInputError, LabelError: as `toolkit.metrics.triage_metrics`.
    """
    scores = np.asarray(score, dtype=float).reshape(-1)
    middle, half = (low + high) / 2, (high - low) / 2
    rows = []
    for width in np.linspace(0, 2, steps):
        lower, upper = middle - width * half, middle + width * half
        found = triage_metrics(scores, y, lower, upper)
        rejected = float((scores >= upper).mean())
        rows.append({"width": width, "low": lower, "high": upper, "reinspected": found["reinspection_rate"],
                     "accepted": 1 - rejected - found["reinspection_rate"], "rejected": rejected,
                     "decided_error": found["decided_error"]})  # fmt: skip
    return pd.DataFrame(rows)


def triage(frame: pd.DataFrame, ax: Axes | None = None, title: str | None = None) -> Axes:
    """Stacked shares of the three decisions over the width of the undecided band; the line is the decided error.

    Args:
        frame: from `triage_frame`.
        ax: where to draw.
        title: above the figure.
    """
    style.require(frame, ("width", "accepted", "reinspected", "rejected", "decided_error"))
    parts = {"accepted": style.NORMAL, "reinspected": "#BBBBBB", "rejected": style.DEFECTIVE}
    with style.context():
        ax = style.new_axes(ax)
        ax.stackplot(frame["width"], *(frame[p] for p in parts), labels=list(parts), colors=list(parts.values()),
                     alpha=0.55, linewidth=0)  # fmt: skip
        ax.plot(frame["width"], frame["decided_error"], color="black", label="error among the decided")
        ax.axvline(1, color="black", linestyle=":", linewidth=1)
        ax.set(xlim=(frame["width"].min(), frame["width"].max()), ylim=(0, 1), ylabel="share of objects",
               xlabel="width of the undecided band (1 = calibrated)", title=title or "")  # fmt: skip
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)
    return style.remember(ax, frame.copy())
