"""Covariances and fast point feature histograms of all points' neighbourhoods, found in cells."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from toolkit.ops.compiled import OPTIONS, spread
from toolkit.ops.compiled.cells import cells_for, near, room

_LEAST = 3  # a neighbourhood holds at least so many points, whatever the radius
_BINS = 11
_WIDTH = 36  # of a row of histograms: 33, and a few to make whole vectors
_EDGE = tuple(math.pi * odd / _BINS for odd in (1, 3, 5, 7, 9))  # between bins of a full turn, on one side
_COS, _SIN = tuple(math.cos(e) for e in _EDGE), tuple(math.sin(e) for e in _EDGE)


def covariances(pos: np.ndarray, k: int, radius: float) -> np.ndarray | None:
    """(N, 6) float64 xx, xy, xz, yy, yz, zz of the k nearest within the radius (inf for none), at least of three.

    None where the cloud does not fit into cells, see `cells_for`.
    """
    cells = cells_for(pos, k, radius)
    if cells is None:
        return None
    out = np.empty((len(pos), 6))
    limit = math.nextafter(radius**2, math.inf)
    some = _LEAST, math.inf
    spread(lambda first, last: _covariances(first, last, k, limit, *some, cells.order, *cells.arguments, out), len(pos))
    return out


@njit(**OPTIONS)
def _covariances(first, last, k, limit, least, everywhere, order, x, y, z, start, shape, low, edge, out):
    work = room()
    for row in range(first, last):
        px, py, pz = x[row], y[row], z[row]
        count, work = near(px, py, pz, k, limit, x, y, z, start, shape, low, edge, work)
        if count < least:
            count, work = near(px, py, pz, least, everywhere, x, y, z, start, shape, low, edge, work)
        found = work[1][1]
        sx = sy = sz = xx = xy = xz = yy = yz = zz = 0.0
        for at in range(count):
            place = found[at]
            dx, dy, dz = x[place] - px, y[place] - py, z[place] - pz
            sx, sy, sz = sx + dx, sy + dy, sz + dz
            xx, xy, xz = xx + dx * dx, xy + dx * dy, xz + dx * dz
            yy, yz, zz = yy + dy * dy, yz + dy * dz, zz + dz * dz
        sx, sy, sz = sx / count, sy / count, sz / count
        to = out[order[row]]
        to[0], to[1], to[2] = xx / count - sx * sx, xy / count - sx * sy, xz / count - sx * sz
        to[3], to[4], to[5] = yy / count - sy * sy, yz / count - sy * sz, zz / count - sz * sz


def histograms(
    pos: np.ndarray, normal: np.ndarray, k: int, radius: float, rows: np.ndarray | None
) -> np.ndarray | None:
    """(M, 33) float32 FPFH of the given rows, of all if None; None where the cloud does not fit into cells."""
    cells = cells_for(pos, k, radius)
    if cells is None:
        return None
    table = np.concatenate([cells.pos.T, normal[cells.order]], 1)  # side by side: a neighbour is one place to read
    asked = cells.order.argsort() if rows is None else cells.order.argsort()[rows]
    slot = np.arange(len(pos))
    if rows is not None:  # only the neighbours of what is asked for need histograms of their own
        needed = np.zeros(len(pos), np.bool_)
        spread(lambda first, last: _mark(first, last, asked, k, radius**2, *cells.arguments, needed), len(asked))
        slot = np.cumsum(needed) - 1
        places = needed.nonzero()[0]
    else:
        places = slot
    own = np.empty((len(places), _WIDTH), np.float32)
    spread(lambda first, last: _own(first, last, places, k, radius**2, *cells.arguments, table, own), len(places))
    out = np.empty((len(asked), 3 * _BINS), np.float32)
    in_order = np.arange(len(asked)) if rows is not None else cells.order
    asked = asked if rows is not None else slot  # all of them: in the order of the cells, whose neighbours are close
    spread(lambda first, last: _weighted(first, last, asked, in_order, slot, k, radius**2, *cells.arguments, own, out),
           len(asked))  # fmt: skip
    return out


@njit(**OPTIONS)
def _mark(first, last, asked, k, limit, x, y, z, start, shape, low, edge, needed):
    work = room()
    for row in asked[first:last]:
        count, work = near(x[row], y[row], z[row], k, limit, x, y, z, start, shape, low, edge, work)
        found = work[1][1]
        needed[row] = True
        for at in range(count):
            needed[found[at]] = True


@njit(**OPTIONS)
def _own(first, last, places, k, limit, x, y, z, start, shape, low, edge, table, out):
    """Histograms of the angles between each point's normal and its neighbours'."""
    work = room()
    counts = np.empty(_WIDTH, np.int64)
    bins, around = np.empty((3, k), np.int64), np.empty((7, k))
    dx, dy, dz, bx, by, bz, square = around
    for row in range(first, last):
        here = table[places[row]]
        px, py, pz = here[0], here[1], here[2]
        count, work = near(px, py, pz, k, limit, x, y, z, start, shape, low, edge, work)
        away, found = work[0][3], work[1][1]
        for at in range(count):
            there = table[np.uint64(found[at])]
            dx[at], dy[at], dz[at] = there[0] - px, there[1] - py, there[2] - pz
            bx[at], by[at], bz[at] = there[3], there[4], there[5]
            square[at] = away[at]
        _angles(here[3], here[4], here[5], around, bins, count)
        counts[:] = 0
        for at in range(count):
            counts[np.uint64(bins[0, at])] += 1
            counts[np.uint64(bins[1, at])] += 1
            counts[np.uint64(bins[2, at])] += 1
        # The point itself, or one in the same place, counted in the middle bins.
        for third in range(3 if count else 0):
            counts[third * _BINS + _BINS // 2] -= 1
        scale = 100 / (count - 1) if count > 1 else 0.0
        for b in range(_WIDTH):
            out[row, b] = scale * counts[b]


@njit(**OPTIONS)
def _angles(ax, ay, az, around, bins, count):
    """Bins of the three angles between a normal and others; written without branches, for vector instructions."""
    xs, ys, zs, away = around[0, :count], around[1, :count], around[2, :count], around[6, :count]
    us, vs, ws = around[3, :count], around[4, :count], around[5, :count]
    thetas, alphas, phis = bins[0, :count], bins[1, :count], bins[2, :count]
    half = _BINS // 2
    for at in range(len(xs)):
        dx, dy, dz, bx, by, bz = xs[at], ys[at], zs[at], us[at], vs[at], ws[at]
        apart = away[at] > 0
        inverse = 1 / math.sqrt(away[at] if apart else 1.0)
        one = (ax * dx + ay * dy + az * dz) * inverse
        two = (bx * dx + by * dy + bz * dz) * inverse
        # The frame stands on the point whose normal is closer to the line between them.
        other = abs(one) < abs(two)
        fx, fy, fz = bx if other else ax, by if other else ay, bz if other else az
        gx, gy, gz = ax if other else bx, ay if other else by, az if other else bz
        turn = -1.0 if other else 1.0
        dx, dy, dz = turn * dx, turn * dy, turn * dz
        vx, vy, vz = dy * fz - dz * fy, dz * fx - dx * fz, dx * fy - dy * fx
        size = vx * vx + vy * vy + vz * vz
        firm = apart & (size > 0)
        inverse = 1 / math.sqrt(size if firm else 1.0)
        vx, vy, vz = vx * inverse, vy * inverse, vz * inverse
        wx, wy, wz = fy * vz - fz * vy, fz * vx - fx * vz, fx * vy - fy * vx
        alpha = (vx * gx + vy * gy + vz * gz) if firm else 0.0
        phi = (-two if other else one) if firm else 0.0
        sine, cosine = wx * gx + wy * gy + wz * gz, fx * gx + fy * gy + fz * gz
        level = abs(sine)
        beyond = 0  # edges of bins between the angle's amount and 0
        beyond += _COS[0] * level - _SIN[0] * cosine >= 0
        beyond += _COS[1] * level - _SIN[1] * cosine >= 0
        beyond += _COS[2] * level - _SIN[2] * cosine >= 0
        beyond += _COS[3] * level - _SIN[3] * cosine >= 0
        beyond += _COS[4] * level - _SIN[4] * cosine >= 0
        beyond = beyond if sine >= 0 else -beyond
        thetas[at] = half + (beyond if firm else 0)
        alphas[at] = _BINS + min(max(int(_BINS * (alpha + 1) * 0.5), 0), _BINS - 1)
        phis[at] = 2 * _BINS + min(max(int(_BINS * (phi + 1) * 0.5), 0), _BINS - 1)


@njit(**OPTIONS)
def _weighted(first, last, asked, target, slot, k, limit, x, y, z, start, shape, low, edge, own, out):
    """Each point's histogram plus those of its neighbours, weighted by one over the squared distance."""
    work = room()
    total = np.empty(_WIDTH)
    for row in range(first, last):
        here = asked[row]
        count, work = near(x[here], y[here], z[here], k, limit, x, y, z, start, shape, low, edge, work)
        away, found = work[0][3], work[1][1]
        total[:] = 0
        for at in range(0, count, 2):  # two at a time: half the reading and writing of totals
            other = at + 1 if at + 1 < count else at
            one, two = own[np.uint64(slot[found[at]])], own[np.uint64(slot[found[other]])]
            w1 = 1 / away[at] if away[at] > 0 else 0.0
            w2 = 1 / away[other] if other > at and away[other] > 0 else 0.0
            for b in range(_WIDTH):
                total[b] += w1 * one[b] + w2 * two[b]
        line = own[slot[here]]
        to = out[target[row]]
        for third in range(3):
            size = 0.0
            for b in range(third * _BINS, (third + 1) * _BINS):
                size += total[b]
            scale = 100 / size if size > 0 else 0.0
            for b in range(third * _BINS, (third + 1) * _BINS):
                to[b] = scale * total[b] + line[b]
