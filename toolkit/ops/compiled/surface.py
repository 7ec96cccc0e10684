"""Nearest points of a surface that is searched many times, no farther than a given reach, and what is built on them.

Every cell knows the point nearest to its centre, so that a search looks no farther than that point lies.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from scipy.ndimage import distance_transform_edt

from toolkit.ops.compiled import OPTIONS
from toolkit.ops.compiled.cells import Cells, sorted_into

_MOST = 2**20  # cells
_CROWDED = 64  # companions in a point's cell, on average, from which the grid is of no use


def surface_for(pos: np.ndarray, normal: np.ndarray, spacing: float, reach: float) -> Surface | None:
    """A surface of (M, 3) points with (M, 3) unit normals.

    Args:
        pos, normal: the points.
        spacing: of the points, about; cells are three times as wide.
        reach: farthest that searches will look.

    Returns:
        None where the points do not fit into such cells, as a few of them lie far away.
    """
    axes = np.ascontiguousarray(pos.T, np.float64)
    low, edge = axes.min(1) - reach, 3 * spacing
    side = axes.max(1) + reach - low
    while np.prod(np.ceil(side / edge)) > _MOST:
        edge *= 1.25
    cells = sorted_into(axes, low, edge, (side / edge).astype(np.int64) + 1)
    if (np.diff(cells.start).astype(float) ** 2).sum() / len(pos) > _CROWDED:
        return None
    return Surface(cells, normal)


class Surface:
    """Points in `cells`, and their normals."""

    def __init__(self, cells: Cells, normal: np.ndarray):
        pos = cells.pos.T
        empty = (np.diff(cells.start) == 0).reshape(cells.shape)
        occupied = distance_transform_edt(empty, return_distances=False, return_indices=True)
        start = cells.start.astype(np.int32)
        guess = start[np.ravel_multi_index(tuple(occupied), tuple(cells.shape))].reshape(-1)
        self.arguments = (np.ascontiguousarray(pos), start, guess, cells.shape, cells.low, cells.edge)
        _improve(guess, *self.arguments[:2], *self.arguments[3:])
        self.normal = normal.astype(np.float64)[cells.order]
        self.centre = pos.mean(0)
        self.extent = float(np.linalg.norm(pos - self.centre, axis=1).max()) or 1.0

    def misfits(self, pos: np.ndarray, poses: np.ndarray, reach: float, keep: int) -> np.ndarray:
        """(P,) mean squared distance of (N, 3) points under each of (P, 4, 4) poses; what is beyond counts as reach.

        Inf where that is larger than the ``keep`` smallest before it: those are not computed to the end.
        """
        return _misfits(pos.astype(np.float64), poses, reach**2, keep, *self.arguments)

    def distances(self, pos: np.ndarray, pose: np.ndarray, reach: float) -> np.ndarray:
        """(N,) distance of each point under a pose, inf beyond the reach."""
        return _distances(pos.astype(np.float64), pose, np.nextafter(reach**2, np.inf), *self.arguments)

    def refined(self, pos: np.ndarray, poses: np.ndarray, distance: float, iterations: int, tolerance: float):
        """(P, 4, 4) poses after iterative closest point, as `toolkit.ops.icp`."""
        out = np.empty((len(poses), 4, 4))
        points, limit = pos.astype(np.float64), np.nextafter(distance**2, np.inf)
        for pose, to in zip(poses, out):
            to[:] = _refined(points, pose, limit, iterations, tolerance, self.normal, self.centre, self.extent,
                             *self.arguments)  # fmt: skip
        return out


@njit(**OPTIONS)
def _nearest(px, py, pz, limit, points, start, guess, shape, low, edge):
    """Place of the nearest point and its squared distance; -1 and ``limit`` where that is not below ``limit``."""
    per = 1 / edge
    u, v, w = (px - low[0]) * per, (py - low[1]) * per, (pz - low[2]) * per  # in cells
    if not (u >= 0 and v >= 0 and w >= 0 and u < shape[0] and v < shape[1] and w < shape[2]):
        return -1, limit
    best, who = limit, -1
    place = guess[np.uint64((int(u) * shape[1] + int(v)) * shape[2] + int(w))]
    square = _square(points[np.uint64(place)], px, py, pz)
    if square < best:
        best, who = square, place
    squeeze = per * per * (1 + 1e-9)  # a hair more than what is needed, for rounding
    reach = np.sqrt(best * squeeze)
    for a in range(int(max(u - reach, 0.0)), int(min(u + reach, shape[0] - 1.0)) + 1):
        across = max(a - u, u - a - 1, 0.0)
        left = best * squeeze - across * across
        if left <= 0:
            continue
        reach = np.sqrt(left)
        for b in range(int(max(v - reach, 0.0)), int(min(v + reach, shape[1] - 1.0)) + 1):
            along = max(b - v, v - b - 1, 0.0)
            left = best * squeeze - across * across - along * along
            if left <= 0:
                continue
            reach = np.sqrt(left)
            base = (a * shape[1] + b) * shape[2]
            first = start[np.uint64(base + int(max(w - reach, 0.0)))]
            last = start[np.uint64(base + int(min(w + reach, shape[2] - 1.0)) + 1)]
            for at in range(first, last):
                square = _square(points[np.uint64(at)], px, py, pz)
                if square < best:
                    best, who = square, at
    return who, best


@njit(**OPTIONS)
def _square(point, x, y, z):
    dx, dy, dz = point[0] - x, point[1] - y, point[2] - z
    return dx * dx + dy * dy + dz * dz


@njit(**OPTIONS)
def _improve(guess, points, start, shape, low, edge):
    """From some point near each cell to the one nearest to the cell's centre."""
    for a in range(shape[0]):
        for b in range(shape[1]):
            for c in range(shape[2]):
                x, y, z = low[0] + (a + 0.5) * edge, low[1] + (b + 0.5) * edge, low[2] + (c + 0.5) * edge
                cell = (a * shape[1] + b) * shape[2] + c
                guess[cell] = _nearest(x, y, z, np.inf, points, start, guess, shape, low, edge)[0]


@njit(**OPTIONS)
def _moved(pose, point):
    x, y, z = point[0], point[1], point[2]
    return (
        pose[0, 0] * x + pose[0, 1] * y + pose[0, 2] * z + pose[0, 3],
        pose[1, 0] * x + pose[1, 1] * y + pose[1, 2] * z + pose[1, 3],
        pose[2, 0] * x + pose[2, 1] * y + pose[2, 2] * z + pose[2, 3],
    )


@njit(**OPTIONS)
def _misfits(pos, poses, limit, keep, points, start, guess, shape, low, edge):
    out = np.empty(len(poses))
    for p in range(len(poses)):
        worst = _smallest(out, p, keep)
        total, most, pose = 0.0, worst * len(pos), poses[p].copy()
        for row in range(len(pos)):
            x, y, z = _moved(pose, pos[row])
            total += _nearest(x, y, z, limit, points, start, guess, shape, low, edge)[1]
            if total > most:
                break
        out[p] = total / len(pos) if total <= most else np.inf
    return out


@njit(**OPTIONS)
def _smallest(values, count, place):
    """The place-th smallest of the first ``count`` values; inf if there are fewer."""
    for i in range(count):
        below, equal = 0, 0
        for j in range(count):
            below += values[j] < values[i]
            equal += values[j] == values[i]
        if below < place <= below + equal:
            return values[i]
    return np.inf


@njit(**OPTIONS)
def _distances(pos, pose, limit, points, start, guess, shape, low, edge):
    out = np.empty(len(pos))
    for row in range(len(pos)):
        x, y, z = _moved(pose, pos[row])
        who, square = _nearest(x, y, z, limit, points, start, guess, shape, low, edge)
        out[row] = np.sqrt(square) if who >= 0 else np.inf
    return out


@njit(**OPTIONS)
def _refined(pos, pose, limit, iterations, tolerance, normal, centre, extent, points, start, guess, shape, low, edge):
    transform = pose.copy()
    row = np.empty(6)
    for _ in range(iterations):
        matrix, side = np.zeros((6, 6)), np.zeros(6)
        pairs = 0
        for at in range(len(pos)):
            x, y, z = _moved(transform, pos[at])
            who, _square = _nearest(x, y, z, limit, points, start, guess, shape, low, edge)
            if who < 0:
                continue
            pairs += 1
            goal, plane = points[who], normal[who]
            offset = ((goal[0] - x) * plane[0] + (goal[1] - y) * plane[1] + (goal[2] - z) * plane[2]) / extent
            x, y, z = (x - centre[0]) / extent, (y - centre[1]) / extent, (z - centre[2]) / extent
            row[0] = y * plane[2] - z * plane[1]
            row[1] = z * plane[0] - x * plane[2]
            row[2] = x * plane[1] - y * plane[0]
            row[3], row[4], row[5] = plane[0], plane[1], plane[2]
            for a in range(6):
                side[a] += row[a] * offset
                for b in range(a + 1):
                    matrix[a, b] += row[a] * row[b]
        if pairs < 6:
            break
        for a in range(6):
            for b in range(a):
                matrix[b, a] = matrix[a, b]
        value, vector = np.linalg.eigh(matrix)
        step = np.zeros(6)
        for c in range(6):
            if value[c] > 1e-5 * value[5]:
                amount = 0.0
                for a in range(6):
                    amount += vector[a, c] * side[a]
                for a in range(6):
                    step[a] += vector[a, c] * amount / value[c]
        turn = np.sqrt(step[0] ** 2 + step[1] ** 2 + step[2] ** 2)
        first = np.sin(turn) / turn if turn > 0 else 1.0
        second = (np.sin(turn / 2) / (turn / 2)) ** 2 / 2 if turn > 0 else 0.5
        cross = np.zeros((3, 3))
        cross[0, 1], cross[0, 2], cross[1, 2] = -step[2], step[1], -step[0]
        cross[1, 0], cross[2, 0], cross[2, 1] = step[2], -step[1], step[0]
        rotation = np.zeros((3, 3))
        for a in range(3):
            for b in range(3):
                rotation[a, b] = (a == b) + first * cross[a, b]
                for c in range(3):
                    rotation[a, b] += second * cross[a, c] * cross[c, b]
        before = transform.copy()
        for a in range(3):
            for b in range(4):
                transform[a, b] = (
                    rotation[a, 0] * before[0, b] + rotation[a, 1] * before[1, b] + rotation[a, 2] * before[2, b]
                )
            transform[a, 3] += centre[a] + extent * step[3 + a]
            for c in range(3):
                transform[a, 3] -= rotation[a, c] * centre[c]
        if turn + np.sqrt(step[3] ** 2 + step[4] ** 2 + step[5] ** 2) < tolerance:
            break
    return transform
