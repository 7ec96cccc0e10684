"""A cloud sorted into the cells of a regular grid, and the search for neighbours in it.

Cells that follow each other in z follow each other in memory, so that a block of cells is read in a few long runs. The
k nearest are found as a set, not in order: an interpolation search for the distance that k points lie below, which on
a surface takes a handful of passes, as the number of points grows with the square of the distance there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numba import njit

from toolkit.ops.compiled import OPTIONS

_CELLS = 8  # at most so many per point
_TRIAL = 16  # points per cell, about, of the grid that measures the density
_FINEST = 128  # cells of that grid along the longest side
_CROWDED = 8  # where points have so many more companions in their cells than expected, the grid is given up


@dataclass(frozen=True, eq=False)
class Cells:
    """Points in the order of their cells.

    Attributes:
        order: (N,) row in the cloud of each.
        pos: (3, N) float64 coordinates.
        start: where each cell's points begin, and the end.
        shape: (3,) cells along the axes.
        low: (3,) lowest corner.
        edge: of a cell.
    """

    order: np.ndarray
    pos: np.ndarray
    start: np.ndarray
    shape: np.ndarray
    low: np.ndarray
    edge: float

    @property
    def arguments(self) -> tuple:
        """What kernels take."""
        return (*self.pos, self.start, self.shape, self.low, self.edge)


def cells_for(pos: np.ndarray, k: int, radius: float) -> Cells | None:
    """Cells in which the ``k`` nearest within ``radius`` are found by looking two cells far, on most of a surface.

    Args:
        pos: (N, 3) points.
        k: neighbours.
        radius: inf for no limit.

    Returns:
        None where a grid does not fit the cloud: a few points far away, or points on top of each other.
    """
    axes = np.ascontiguousarray(pos.T, np.float64)
    low = axes.min(1)
    side = axes.max(1) - low
    longest = float(side.max())
    if not longest > 0:
        return None
    trial = longest / min(math.sqrt(len(pos) / _TRIAL + 1), _FINEST)
    occupied = np.count_nonzero(np.bincount(_numbers(axes, low, trial, _shape(side, trial))))
    density = len(pos) / (occupied * trial**2)  # a surface takes up as many cells as it has area, or a little more
    edge = max(min(math.sqrt(k / (math.pi * density)), radius) / 2, longest * 1e-6)
    while np.prod(_shape(side, edge).astype(float)) > _CELLS * len(pos) + 1000:
        edge *= 1.25
    cells = sorted_into(axes, low, edge, _shape(side, edge))
    count = np.diff(cells.start).astype(float)
    if (count**2).sum() / len(pos) > _CROWDED * (k + 8):
        return None
    return cells


def _shape(side: np.ndarray, edge: float) -> np.ndarray:
    return (side / edge).astype(np.int64) + 1


def sorted_into(axes: np.ndarray, low: np.ndarray, edge: float, shape: np.ndarray) -> Cells:
    """(3, N) float64 points, all within the grid, sorted into its cells."""
    start, order = _counted(_numbers(axes, low, edge, shape), int(shape.prod()))
    return Cells(order, axes[:, order], start, shape, low, edge)


@njit(**OPTIONS)
def _numbers(axes, low, edge, shape):
    """(N,) cell of each of (3, N) points."""
    out = np.empty(axes.shape[1], np.int64)
    for row in range(axes.shape[1]):
        i, j = int((axes[0, row] - low[0]) / edge), int((axes[1, row] - low[1]) / edge)
        out[row] = (i * shape[1] + j) * shape[2] + int((axes[2, row] - low[2]) / edge)
    return out


@njit(**OPTIONS)
def _counted(number, cells):
    start = np.zeros(cells + 1, np.int64)
    for cell in number:
        start[cell + 1] += 1
    for cell in range(cells):
        start[cell + 1] += start[cell]
    order, free = np.empty(len(number), np.int64), start[:-1].copy()
    for row in range(len(number)):
        order[free[number[row]]] = row
        free[number[row]] += 1
    return start, order


@njit(**OPTIONS)
def room(size=1024):
    """What `near` works in: the coordinates and places of the points around a cell, distances to them, answers."""
    return np.empty((4, size)), np.empty((2, size), np.int64), np.full(4, -1)


@njit(**OPTIONS)
def near(px, py, pz, k, limit, x, y, z, start, shape, low, edge, room):
    """The ``k`` nearest of those whose squared distance is below ``limit``.

    ``room`` comes back, larger where it had to grow. In it, the first ``count`` of ``room[0][3]`` are squared distances
    and of ``room[1][1]`` places in the cells' order, in no order. Points are searched quickest in the order of cells:
    what lies around a cell is put together once.

    Returns:
        count, room.
    """
    i = min(max(int((px - low[0]) / edge), 0), shape[0] - 1)
    j = min(max(int((py - low[1]) / edge), 0), shape[1] - 1)
    l = min(max(int((pz - low[2]) / edge), 0), shape[2] - 1)  # noqa: E741
    u, v, w = px - low[0] - i * edge, py - low[1] - j * edge, pz - low[2] - l * edge
    border = max(min(u, v, w, edge - u, edge - v, edge - w), 0.0)
    ring = 2
    cell, state = (i * shape[1] + j) * shape[2] + l, room[2]
    if state[0] == cell:
        ring = state[1]
    while True:
        if state[0] != cell or state[1] != ring:
            room = _gather(i, j, l, ring, x, y, z, start, shape, room)
            state = room[2]
            state[0], state[1] = cell, ring
        size = state[2]
        ax, ay, az, away = room[0][0, :size], room[0][1, :size], room[0][2, :size], room[0][3, :size]
        for at in range(size):
            dx, dy, dz = ax[at] - px, ay[at] - py, az[at] - pz
            away[at] = dx * dx + dy * dy + dz * dz
        sure = (ring * edge + border) ** 2  # within this, nothing can have been missed
        bound = limit if state[3] else min(sure, limit)
        inside = 0
        for at in range(size):
            inside += away[at] < bound
        if inside >= k or bound == limit:
            break
        ring += 1 + ring // 2
    lower, upper = bound, bound
    if inside > k:
        if bound == np.inf:
            bound = 1.0
            for at in range(size):
                bound = max(bound, 2 * away[at])
        lower, upper = _threshold(away, k, bound, inside)
    place, found = room[1][0, :size], room[1][1, :size]
    count = 0
    if upper == lower:
        for at in range(size):
            value = away[at]
            away[count], found[count] = value, place[at]
            count += value < lower
        return count, room
    missing = k  # there are equal distances: as many of them as are missing
    for at in range(size):
        missing -= away[at] < lower
    for at in range(size):
        value = away[at]
        take = value < lower
        if missing > 0 and not take and value < upper:
            take = True
            missing -= 1
        if take:
            away[count], found[count] = value, place[at]
            count += 1
    return count, room


@njit(**OPTIONS)
def _gather(i, j, l, ring, x, y, z, start, shape, room):  # noqa: E741
    """Put together the points of all cells that are at most ``ring`` away; state: cell, ring, points, whether all."""
    i0, i1 = max(i - ring, 0), min(i + ring, shape[0] - 1) + 1
    j0, j1 = max(j - ring, 0), min(j + ring, shape[1] - 1) + 1
    l0, l1 = max(l - ring, 0), min(l + ring, shape[2] - 1) + 1
    size = 0
    for a in range(i0, i1):
        for b in range(j0, j1):
            base = (a * shape[1] + b) * shape[2]
            size += start[base + l1] - start[base + l0]
    if size > room[1].shape[1]:
        room = (np.empty((4, 2 * size)), np.empty((2, 2 * size), np.int64), room[2])
    ax, ay, az, place = room[0][0], room[0][1], room[0][2], room[1][0]
    size = 0
    for a in range(i0, i1):
        for b in range(j0, j1):
            base = (a * shape[1] + b) * shape[2]
            for at in range(start[base + l0], start[base + l1]):
                ax[size], ay[size], az[size], place[size] = x[at], y[at], z[at], at
                size += 1
    room[2][2], room[2][3] = size, size == len(x)
    return room


@njit(**OPTIONS)
def _threshold(away, k, upper, inside):
    """A number that k of the distances lie below, twice; or a lower and an upper one with equal distances between."""
    lower, below, above = 0.0, 0, inside
    for step in range(80):
        share = (k + 0.5 - below) / (above - below) if step % 3 < 2 else 0.5
        middle = lower + (upper - lower) * share
        if not lower < middle < upper:
            middle = (lower + upper) / 2
            if not lower < middle < upper:
                break
        count = 0
        for at in range(len(away)):
            count += away[at] < middle
        if count == k:
            return middle, middle
        if count < k:
            lower, below = middle, count
        else:
            upper, above = middle, count
    return lower, upper
