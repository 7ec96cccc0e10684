"""What a latent code does: the same normal cloud decoded with one code moved at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import ArrayLike, NDArray

from toolkit.metrics import MetricInputError
from toolkit.plots import style
from toolkit.plots.clouds import best_view, cloud

Decode = Callable[[int, float], tuple[ArrayLike, ArrayLike]]
"""Number of a code, or of a direction among codes, and its value -> (M, 3) points and (M,) how far each moved."""


def latent_traversal(
    decode: Decode,
    codes: Sequence[int],
    values: Sequence[float] = (-3.0, -1.5, 0.0, 1.5, 3.0),
    names: Sequence[str] | None = None,
    label: str = "moved by",
    title: str | None = None,
) -> NDArray[np.object_]:
    """A row per code, a column per value; colour is how far points moved, on one scale for the whole figure.

    Args:
        decode: what to draw; called once per picture.
        codes: numbers of the codes to move.
        values: that they take.
        names: of the codes, "code 3" by default.
        label: of the colour bar.
        title: above the figure.

    Returns:
        (len(codes), len(values)) array of 3D axes.

    Raises:
        MetricInputError: no codes or values, or names that do not match.
    """
    names = [f"code {code}" for code in codes] if names is None else list(names)
    if not len(codes) or not len(values) or len(names) != len(codes):
        raise MetricInputError(f"latent_traversal: expected codes, values and a name per code, got {len(codes)} codes, "
                               f"{len(values)} values and {len(names)} names.")  # fmt: skip
    decoded = [[tuple(np.asarray(a, np.float64) for a in decode(code, value)) for value in values] for code in codes]
    high = max(float(moved.max()) for row in decoded for _, moved in row if len(moved))
    turned = _common_view([pos for row in decoded for pos, _ in row])
    low = np.min([pos.min(axis=0) for pos in turned if len(pos)], axis=0)
    extent = np.max([pos.max(axis=0) for pos in turned if len(pos)], axis=0) - low
    with style.context():
        figure, grid = plt.subplots(
            len(codes), len(values), figsize=(1.7 * len(values) + 1.2, 1.6 * len(codes) + 0.5), squeeze=False,
            layout="constrained", subplot_kw={"projection": "3d"},
        )  # fmt: skip
        pictures = iter(turned)
        for name, row, axes in zip(names, decoded, grid, strict=True):
            for value, (_, moved), ax in zip(values, row, axes, strict=True):
                cloud(next(pictures), moved, ax, limits=(0.0, max(high, 1e-12)), size=2.0)
                _frame(ax, low, extent)
                style.remember(ax, style.data_of(ax).assign(code=name, latent=value))
                ax.set_title(f"{name}\n{value:+.1f}" if ax is axes[0] else f"\n{value:+.1f}", fontsize=8)
        bar = figure.colorbar(grid[0, 0].collections[0], ax=grid, shrink=0.7, pad=0.06)
        bar.set_label(label)
        if title:
            figure.suptitle(title)
    return grid


def _frame(ax: Any, low: NDArray[np.float64], extent: NDArray[np.float64]) -> None:
    """The same box in every picture, so that what moves is seen to move."""
    for axis, start, length in zip("xyz", low, np.maximum(extent, 1e-6 * extent.max()), strict=True):
        getattr(ax, f"set_{axis}lim")(start, start + length)
    ax.set_box_aspect(np.maximum(extent, 1e-3 * extent.max()), zoom=1.45)


def _common_view(clouds: Sequence[Any]) -> list[NDArray[np.float64]]:
    """All clouds turned alike, by the view that suits all of them together."""
    together = best_view(np.concatenate(clouds))
    return np.split(together, np.cumsum([len(pos) for pos in clouds])[:-1])
