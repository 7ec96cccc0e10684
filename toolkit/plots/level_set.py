"""A surface where a field has one value, extracted by marching cubes: what an implicit method has learned."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from toolkit.metrics import MetricInputError
from toolkit.plots import style


def extract(volume: ArrayLike, edge: float, level: float = 0.0) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Triangles of a level set by marching cubes (Lorensen and Cline 1987; scikit-image's).

    Args:
        volume: (D, H, W) values at the nodes of a cube's grid, axes z, y, x.
        edge: half the side of the cube, whose middle is the origin.
        level: the value.

    Returns:
        vertices (V, 3) as x, y, z and triangles (F, 3).

    Raises:
        MetricInputError: not a volume, or no value on either side of the level.
    """
    from skimage.measure import marching_cubes

    values = np.asarray(volume, dtype=np.float32)
    if values.ndim != 3 or min(values.shape) < 2:
        raise MetricInputError(f"level_set: expected a (D, H, W) volume, got shape {values.shape}.")
    if not values.min() < level < values.max():
        raise MetricInputError(f"level_set: level {level} is not between the values, {values.min()} to {values.max()}.")
    spacing = tuple(2 * edge / (n - 1) for n in values.shape)
    vertices, faces, *_ = marching_cubes(values, level, spacing=spacing)
    return vertices[:, ::-1].astype(np.float64) - edge, faces[:, ::-1].astype(np.int64)


def level_set(volume: ArrayLike, edge: float, level: float = 0.0, ax: Any = None) -> Any:
    """Draw the surface, lit from the upper left.

    Args:
        volume, edge, level: as for `extract`.
        ax: 3D axes.

    Returns:
        The 3D axes; their data are the corners of the triangles.
    """
    from mpl_toolkits.mplot3d.art3d import Poly3DCollection

    vertices, faces = extract(volume, edge, level)
    corners = vertices[faces]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
    light = np.abs(normal @ np.array([-0.4, -0.6, 0.7])).clip(0, 1)
    with style.context():
        if ax is None:
            ax = plt.subplots(figsize=(3.6, 3.6), layout="constrained", subplot_kw={"projection": "3d"})[1]
        shade = plt.get_cmap("gray")(0.35 + 0.55 * light)
        ax.add_collection3d(Poly3DCollection(corners, facecolors=shade, edgecolors="none"))
        low, high = vertices.min(0), vertices.max(0)
        for axis, a, b in zip("xyz", low, high):
            getattr(ax, f"set_{axis}lim")(a, b)
        ax.set_box_aspect(np.maximum(high - low, 1e-6))
        ax.view_init(elev=22, azim=-68)
        ax.set_axis_off()
    flat = corners.reshape(-1, 3)
    table = pd.DataFrame({"triangle": np.repeat(np.arange(len(faces)), 3), **dict(zip("xyz", flat.T))})
    return style.remember(ax, table)
