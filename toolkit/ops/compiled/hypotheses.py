"""The loop of RANSAC: transforms of triples of pairs, and how many pairs agree with each."""

from __future__ import annotations

import numpy as np
from numba import njit

from toolkit.ops.compiled import OPTIONS


@njit(**OPTIONS)
def judged(source, target, triple, distance, edge):
    """Judge transforms.

    Args:
        source, target: (C, 3) float64 pairs.
        triple: (S, 3) pairs to make a transform of.
        distance, edge: as in `toolkit.ops.ransac`.

    Returns:
        rotation (B, 3, 3), translation (B, 3), count (B,) of the triples that pass.
    """
    most = len(triple)
    rotation, translation = np.empty((most, 3, 3)), np.empty((most, 3))
    passed = 0
    s, t, sides, sidet = np.empty((3, 3)), np.empty((3, 3)), np.empty(3), np.empty(3)
    frame_s, frame_t = np.empty((3, 3)), np.empty((3, 3))
    for one in range(most):
        alike = True
        for a in range(3):
            b = (a + 2) % 3
            p, q = triple[one, a], triple[one, b]
            sides[a] = _apart(source, p, q)
            sidet[a] = _apart(target, p, q)
            if not min(sides[a], sidet[a]) >= edge * max(sides[a], sidet[a]) or not sides[a] > 2 * distance:
                alike = False
                break
        if not alike:
            continue
        for a in range(3):
            for c in range(3):
                s[a, c], t[a, c] = source[triple[one, a], c], target[triple[one, a], c]
        if not _frame(s, frame_s) > distance * max(sides[0], sides[1], sides[2]):
            continue
        _frame(t, frame_t)
        for a in range(3):
            for b in range(3):
                value = 0.0
                for c in range(3):
                    value += frame_t[a, c] * frame_s[b, c]
                rotation[passed, a, b] = value
        for a in range(3):
            value = (t[0, a] + t[1, a] + t[2, a]) / 3
            for c in range(3):
                value -= rotation[passed, a, c] * (s[0, c] + s[1, c] + s[2, c]) / 3
            translation[passed, a] = value
        passed += 1
    rotation, translation = rotation[:passed].copy(), translation[:passed].copy()
    return rotation, translation, _agreeing(source, target, rotation, translation, distance)


@njit(**OPTIONS)
def _apart(pos, p, q):
    x, y, z = pos[p, 0] - pos[q, 0], pos[p, 1] - pos[q, 1], pos[p, 2] - pos[q, 2]
    return np.sqrt(x * x + y * y + z * z)


@njit(**OPTIONS)
def _frame(corner, out):
    """A right-handed orthonormal frame, as columns, of a triangle; returns twice its area."""
    a0, a1, a2 = corner[1, 0] - corner[0, 0], corner[1, 1] - corner[0, 1], corner[1, 2] - corner[0, 2]
    b0, b1, b2 = corner[2, 0] - corner[0, 0], corner[2, 1] - corner[0, 1], corner[2, 2] - corner[0, 2]
    length = max(np.sqrt(a0 * a0 + a1 * a1 + a2 * a2), 1e-12)
    a0, a1, a2 = a0 / length, a1 / length, a2 / length
    u0, u1, u2 = a1 * b2 - a2 * b1, a2 * b0 - a0 * b2, a0 * b1 - a1 * b0
    height = max(np.sqrt(u0 * u0 + u1 * u1 + u2 * u2), 1e-12)
    u0, u1, u2 = u0 / height, u1 / height, u2 / height
    out[0, 0], out[1, 0], out[2, 0] = a0, a1, a2
    out[0, 1], out[1, 1], out[2, 1] = u1 * a2 - u2 * a1, u2 * a0 - u0 * a2, u0 * a1 - u1 * a0
    out[0, 2], out[1, 2], out[2, 2] = u0, u1, u2
    return length * height


@njit(**OPTIONS)
def _agreeing(source, target, rotation, translation, distance):
    # In float32, around the centre so that the digits suffice.
    pairs = len(source)
    middle = np.zeros(3)
    for p in range(pairs):
        for c in range(3):
            middle[c] += source[p, c] / pairs
    x, y, z = np.empty(pairs, np.float32), np.empty(pairs, np.float32), np.empty(pairs, np.float32)
    u, v, w = np.empty(pairs, np.float32), np.empty(pairs, np.float32), np.empty(pairs, np.float32)
    for p in range(pairs):
        x[p], y[p], z[p] = source[p, 0] - middle[0], source[p, 1] - middle[1], source[p, 2] - middle[2]
        u[p], v[p], w[p] = target[p, 0] - middle[0], target[p, 1] - middle[1], target[p, 2] - middle[2]
    limit = np.float32(distance**2)
    counts = np.empty(len(rotation), np.int64)
    r, shift = np.empty((3, 3), np.float32), np.empty(3, np.float32)
    for b in range(len(rotation)):
        for a in range(3):
            value = translation[b, a] - middle[a]
            for c in range(3):
                r[a, c] = rotation[b, a, c]
                value += rotation[b, a, c] * middle[c]
            shift[a] = value
        r00, r01, r02, r10, r11, r12 = r[0, 0], r[0, 1], r[0, 2], r[1, 0], r[1, 1], r[1, 2]
        r20, r21, r22, s0, s1, s2 = r[2, 0], r[2, 1], r[2, 2], shift[0], shift[1], shift[2]
        count = np.int32(0)
        for p in range(pairs):
            dx = r00 * x[p] + r01 * y[p] + r02 * z[p] + s0 - u[p]
            dy = r10 * x[p] + r11 * y[p] + r12 * z[p] + s1 - v[p]
            dz = r20 * x[p] + r21 * y[p] + r22 * z[p] + s2 - w[p]
            count += np.int32(dx * dx + dy * dy + dz * dz <= limit)
        counts[b] = count
    return counts


@njit(**OPTIONS)
def near_to(probe, rotation, translation, one, limit):
    """(B,) whether each transform carries the (P, 3) probes, on average, no farther than that from where one does."""
    out = np.empty(len(rotation), np.bool_)
    difference, shift = np.empty((3, 3)), np.empty(3)
    for b in range(len(rotation)):
        for a in range(3):
            shift[a] = translation[b, a] - translation[one, a]
            for c in range(3):
                difference[a, c] = rotation[b, a, c] - rotation[one, a, c]
        total = 0.0
        for p in range(len(probe)):
            square = 0.0
            for a in range(3):
                value = shift[a]
                for c in range(3):
                    value += difference[a, c] * probe[p, c]
                square += value * value
            total += np.sqrt(square)
        out[b] = total <= limit * len(probe)
    return out
