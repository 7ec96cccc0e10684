"""Point Coordinate Mapping: the pose of a cloud from its own points, so that turning it changes nothing.

RIF (arXiv 2511.13115), eq. 1 and algorithm 1; the released code differs. With q_i the points less their mean:

    u1 = the farthest q;  u2 = the next farthest that is independent of u1;  u3 = the nearest independent of both;
    e1, e2, e3 = Gram-Schmidt of u1, u2, u3;      p*_i = (e1 . q_i, e2 . q_i, e3 . q_i)

Which points are chosen depends on distances to the mean alone, so p* is the same for every rotation and translation of
the same points. The three axes may form a left-handed frame; that, too, is the same in every pose.

What "independent" means decides how much noise the frame bears. By a test at machine precision u2 is a neighbour of u1
and its direction is noise: between two scans e2 then turns by a median of 120 degrees. Here u2 and u3 must lie off the
axis, or the plane, by a share ``tol`` of the largest distance; ``tol=1e-6`` is the paper taken literally.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from toolkit.errors import CloudError, HyperparameterError

Basis = Literal["far-far-near", "far-near-near"]


class Frame(NamedTuple):
    """Where a cloud's own coordinate system lies.

    Attributes:
        centre: (3,) float64, the mean of the points.
        axes: (3, 3) float64, rows e1, e2, e3: orthonormal, right- or left-handed.
    """

    centre: Tensor
    axes: Tensor

    def map(self, pos: Tensor) -> Tensor:
        """(N, 3) points in the frame, in their own dtype."""
        return ((pos.double() - self.centre) @ self.axes.t()).to(pos.dtype)

    def back(self, pos: Tensor) -> Tensor:
        """The inverse of `map`."""
        return (pos.double() @ self.axes + self.centre).to(pos.dtype)


def pcm(pos: Tensor, *, tol: float = 0.1, basis: Basis = "far-far-near") -> Frame:
    """The frame of a cloud.

    Args:
        pos: (N, 3) points.
        tol: least distance of u2 from the first axis and of u3 from the plane of the first two, over the largest
            distance from the mean. Where no point is that far, the farthest from the axis (plane) is taken.
        basis: "far-far-near" as above and in the paper; "far-near-near" takes the nearest and the second nearest
            independent point for u2 and u3, as the released code does.

    Returns:
        The frame. For points on a line or in a plane, whose frame is not determined, it is completed by any
        perpendicular axis: turning the points about that line, or mirroring them at that plane, changes nothing.

    Raises:
        CloudError: no points, or all in one place.
        HyperparameterError: ``tol`` outside (0, 1), or an unknown ``basis``.
    """
    if not 0 < tol < 1:
        raise HyperparameterError(f"pcm: tol must lie between 0 and 1, got {tol}.")
    if basis not in ("far-far-near", "far-near-near"):
        raise HyperparameterError(f"pcm: basis must be 'far-far-near' or 'far-near-near', got {basis!r}.")
    if pos.dim() != 2 or pos.shape[1] != 3 or not pos.shape[0]:
        raise CloudError(f"pcm: expected points of shape (N, 3), got {tuple(pos.shape)}.")
    pos = pos.double()
    centre = pos.mean(0)
    q = pos - centre
    length = q.norm(dim=1)
    order = length.argsort(descending=True, stable=True)
    q, largest = q[order], length[order[0]]
    if largest <= 1e-12 * pos.abs().max():
        raise CloudError("pcm: all points of the cloud coincide; it has no axes. Remove the file.")
    first = q[0] / largest
    off = q - (q @ first)[:, None] * first
    second = _chosen(off, tol * largest, nearest=basis == "far-near-near")
    if second is None:
        second = torch.linalg.cross(first, torch.eye(3, dtype=first.dtype)[first.abs().argmin()])
        second = second / second.norm()
    off = off - (off @ second)[:, None] * second
    third = _chosen(off, tol * largest, nearest=True)
    if third is None:
        third = torch.linalg.cross(first, second)
    axes = torch.stack([first, second, third])
    return Frame(centre, _orthonormal(axes))


def _chosen(off: Tensor, least: Tensor, nearest: bool) -> Tensor | None:
    """Unit vector of the first (or last) row of at least that length, of the longest if none is, None if all are 0.

    Args:
        off: (N, 3) points less their part along the axes found so far, farthest from the mean first.
        least: length asked for.
        nearest: take the last row, i.e. the nearest to the mean.
    """
    length = off.norm(dim=1)
    long = (length >= least).nonzero()[:, 0]
    row = int(long[-1 if nearest else 0]) if long.numel() else int(length.argmax())
    if length[row] <= 1e-9 * least:
        return None
    return off[row] / length[row]


def _orthonormal(axes: Tensor) -> Tensor:
    """Gram-Schmidt once more: nearly parallel points leave axes that are perpendicular to few digits only."""
    first = axes[0] / axes[0].norm()
    second = axes[1] - (axes[1] @ first) * first
    second = second / second.norm()
    third = axes[2] - (axes[2] @ first) * first
    third = third - (third @ second) * second
    return torch.stack([first, second, third / third.norm()])
