"""Corrective forces on a cloud: arrows where a point is pushed back, and how hard (the field that MC4AD predicts)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from toolkit.metrics import MetricInputError
from toolkit.plots import style
from toolkit.plots.clouds import best_view


def force_field(
    pos: ArrayLike,
    forces: Mapping[str, ArrayLike],
    towards: ArrayLike | None = None,
    arrows: int = 250,
    points: int = 6000,
    scale: float = 1.0,
    seed: int = 0,
    title: str | None = None,
) -> NDArray[np.object_]:
    """One picture per field: the cloud in grey, the strongest forces as arrows coloured by their strength.

    All pictures share one colour scale and one scale of arrows, so that lengths can be compared between them.

    Args:
        pos: (N, 3) points.
        forces: named fields, (N, 3) each, in the unit of `pos`.
        towards: (N,) mask of points to turn to the camera, e.g. the defective ones; by default those with the strongest
            forces of the first field.
        arrows: drawn per picture; those of the strongest points.
        points: drawn of the cloud.
        scale: arrows are drawn this many times as long as the forces.
        seed: of the choice of drawn points.
        title: above the figure.

    Returns:
        (number of fields,) array of 3D axes.

    Raises:
        MetricInputError: no field, or one whose shape is not that of the points.
    """
    where = np.asarray(pos, dtype=np.float64)
    fields = {name: np.asarray(field, dtype=np.float64) for name, field in forces.items()}
    if not fields or where.ndim != 2 or any(field.shape != where.shape for field in fields.values()):
        raise MetricInputError(
            f"force_field: expected (N, 3) points and at least one field of that shape, got {where.shape} and "
            f"{ {name: field.shape for name, field in fields.items()} }."
        )
    strength = {name: np.linalg.norm(field, axis=1) for name, field in fields.items()}
    first = next(iter(strength.values()))
    mask = first >= np.quantile(first, 0.99) if towards is None else np.asarray(towards).reshape(-1) > 0
    # best_view is affine: turning both ends of an arrow turns the arrow.
    turned = best_view(np.concatenate([where, *(where + scale * field for field in fields.values())]),
                       np.concatenate([mask] + [np.zeros(len(where), bool)] * len(fields)))  # fmt: skip
    start, *ends = np.split(turned, 1 + len(fields))
    high = max(float(np.quantile(s, 0.999)) for s in strength.values()) or 1.0
    shown = np.random.default_rng(seed).permutation(len(where))[:points]
    with style.context():
        figure, axes = plt.subplots(1, len(fields), figsize=(3.6 * len(fields), 3.6), squeeze=False,
                                    layout="constrained", subplot_kw={"projection": "3d"})  # fmt: skip
        drawn: Any = None
        for ax, (name, size), end in zip(axes[0], strength.items(), ends):
            strongest = np.argsort(-size, kind="stable")[:arrows]
            ax.computed_zorder = False
            ax.scatter(*start[shown].T, c="0.8", s=1.5, linewidths=0, depthshade=False)
            moved = end[strongest] - start[strongest]
            norm = plt.Normalize(0, high)
            drawn = ax.quiver(*start[strongest].T, *moved.T, colors=plt.get_cmap("plasma_r")(norm(size[strongest])),
                              linewidths=0.9, arrow_length_ratio=0.25)  # fmt: skip
            drawn.set(cmap="plasma_r", norm=norm)
            low, top = start.min(0), start.max(0)
            extent = np.maximum(top - low, 1e-3 * max(float((top - low).max()), 1e-12))
            for axis, m, e in zip("xyz", (low + top) / 2, extent):
                getattr(ax, f"set_{axis}lim")(m - e / 2, m + e / 2)
            ax.set_box_aspect(extent, zoom=1.1)
            ax.view_init(elev=22, azim=-68)
            ax.set_axis_off()
            ax.set_title(name)
            style.remember(ax, pd.DataFrame({**dict(zip("xyz", where[strongest].T)), "force": size[strongest]}))
        bar = figure.colorbar(plt.cm.ScalarMappable(plt.Normalize(0, high), "plasma_r"), ax=list(axes[0]), shrink=0.6)
        bar.set_label("force, in radii of the object" if scale == 1 else f"force (arrows {scale:g} times as long)")
        if title:
            figure.suptitle(title)
    return axes[0]
