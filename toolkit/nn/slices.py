"""Slices of a cloud: what one sees from above, from below, and from a cut through its middle in both directions.

The four views of ISMP's Spatial Insight Engine (AAAI 2025; formulas of the released code): along one axis, with the cut
half-way between the cloud's lowest and highest point,

    top            all points, distance to the highest plane        bottom         all, to the lowest plane
    middle-top     the upper half, to the cut                       middle-bottom  the lower half, to the cut

A pixel's grey value is 1 - d / d_max, d the distance to the plane and d_max its largest among the points of the view;
pixels without a point are 0. Both sides of the image are stretched to the cloud's extent. The inner faces of a hollow
part, hidden from every camera outside, are what the views from the cut show.

Different: where several points share a pixel the one nearest to the plane is seen (the code draws them in file order,
so that the last one wins).
"""

from __future__ import annotations

import torch
from torch import Tensor

from toolkit.errors import HyperparameterError

VIEWS = ("top", "bottom", "middle-top", "middle-bottom")


def slices(pos: Tensor, pixels: int = 224, *, axis: int = 2) -> Tensor:
    """The four views of a cloud.

    Args:
        pos: (N, 3) points, in a pose that is comparable among clouds.
        pixels: edge of an image.
        axis: direction of view, 0 to 2.

    Returns:
        (4, pixels, pixels) in [0, 1], in the order of `VIEWS`; rows and columns are the two other axes in their order.

    Raises:
        HyperparameterError: pixels below 1 or no such axis.
    """
    if pixels < 1 or axis not in (0, 1, 2):
        raise HyperparameterError(f"slices: expected pixels >= 1 and axis 0, 1 or 2, got {pixels} and {axis}.")
    low, high = pos.amin(0), pos.amax(0)
    extent = (high - low).clamp_min(1e-12)
    first, second = (i for i in range(3) if i != axis)
    cell = ((pos - low) / extent * (pixels - 1)).floor().long()
    cell = cell[:, first] * pixels + cell[:, second]
    height = pos[:, axis]
    middle = (low[axis] + high[axis]) / 2
    every = torch.ones_like(height, dtype=torch.bool)
    views = ((every, high[axis]), (every, low[axis]), (height >= middle, middle), (height <= middle, middle))
    images = [_image(cell[seen], (height[seen] - plane).abs(), pixels) for seen, plane in views]
    return torch.stack(images)


def _image(cell: Tensor, away: Tensor, pixels: int) -> Tensor:
    """(P, P) from (M,) pixels and distances to the plane."""
    image = torch.zeros(pixels * pixels, dtype=away.dtype, device=away.device)
    if cell.numel():
        grey = 1 - away / away.max().clamp_min(1e-12)
        image.scatter_reduce_(0, cell, grey, "amax")
    return image.view(pixels, pixels)
