"""Rigid transforms from uncertain pairs of points.

Source: Fischler, Bolles, "Random sample consensus", 1981; the edge-length test of Buch et al., "Pose estimation using
local structure-specific shape and appearance context", 2013. All samples are drawn and tested as one batch. Written
here rather than taken from Open3D because Open3D's stops at a moment that depends on its threads.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from toolkit.ops.compiled import usable
from toolkit.ops.rigid import fit_rigid

_TILE = 2**20  # coordinates held at a time
_PROBES = 16  # points by which transforms are told apart


def ransac(
    source: Tensor,
    target: Tensor,
    *,
    distance: float,
    keep: int = 8,
    samples: int = 50_000,
    edge: float = 0.9,
    seed: int = 0,
) -> list[Tensor]:
    """Transforms that many pairs agree on, best first.

    Args:
        source: (C, 3) points.
        target: (C, 3), the presumed partner of each.
        distance: a pair agrees with a transform when it ends up no farther apart than this.
        keep: return at most this many transforms, all clearly different from each other, because a nearly symmetric
            part has several good ones.
        samples: triples of pairs to try.
        edge: a triple is tried only if the sides of its two triangles have lengths within this ratio.
        seed: of the triples.

    Returns:
        (4, 4) float64 transforms; none if there are fewer than 3 pairs or no triple passes.
    """
    pairs = source.shape[0]
    if pairs < 3:
        return []
    source, target = source.double(), target.double()
    generator = torch.Generator().manual_seed(seed)
    triple = torch.randint(pairs, (samples, 3), generator=generator).to(source.device)
    rotation, translation, count = _judged(source, target, triple, distance, edge)
    # Of transforms that carry a few of the points to nearly the same places, the best stands for all.
    probe = source[:: -(-pairs // _PROBES)]
    near_to = _near_to(probe, rotation, translation, 2 * distance)
    found: list[Tensor] = []
    while len(found) < keep and len(count) and int(count.max()) >= 3:
        best = int(count.argmax())
        inside = (source @ rotation[best].t() + translation[best] - target).norm(dim=1) <= distance
        found.append(fit_rigid(source[inside], target[inside]))
        count[near_to(best)] = 0
    return found


def _near_to(probe: Tensor, rotation: Tensor, translation: Tensor, limit: float) -> Callable[[int], Tensor]:
    """A function that says which transforms (B,) carry the probes, on average, as near as that to where one does."""
    if usable(probe):
        from toolkit.ops.compiled.hypotheses import near_to

        arrays = probe.numpy(), rotation.numpy(), translation.numpy()
        return lambda one: torch.from_numpy(near_to(*arrays, one, limit))
    place = probe @ rotation.transpose(1, 2) + translation[:, None]
    return lambda one: (place - place[one]).norm(dim=2).mean(1) <= limit


def _judged(
    source: Tensor, target: Tensor, triple: Tensor, distance: float, edge: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Rotations (B, 3, 3) and translations (B, 3) of the triples that pass, and the number of pairs that agree (B,)."""
    if usable(source, target):
        from toolkit.ops.compiled.hypotheses import judged

        found = judged(source.numpy(), target.numpy(), triple.numpy(), float(distance), float(edge))
        rotation, translation, count = map(torch.from_numpy, found)
        return rotation, translation, count
    before, after = source[triple], target[triple]
    side_s = (before - before.roll(1, 1)).norm(dim=2)
    side_t = (after - after.roll(1, 1)).norm(dim=2)
    alike = (torch.minimum(side_s, side_t) >= edge * torch.maximum(side_s, side_t)).all(1)
    # The directions of small or thin triangles are mostly error.
    area = torch.linalg.cross(before[:, 1] - before[:, 0], before[:, 2] - before[:, 0], dim=1).norm(dim=1)
    alike &= (side_s.amin(1) > 2 * distance) & (area > distance * side_s.amax(1))
    passed = alike.nonzero().squeeze(1)
    before, after = before[passed], after[passed]
    frame_s, frame_t = _frames(before), _frames(after)
    rotation = frame_t @ frame_s.transpose(1, 2)
    translation = after.mean(1) - (rotation @ before.mean(1)[:, :, None]).squeeze(2)
    return rotation, translation, _agreeing(source, target, rotation, translation, distance)


def _frames(triangle: Tensor) -> Tensor:
    """(B, 3, 3) right-handed orthonormal frames, as columns, of (B, 3, 3) triangles, one corner per row."""
    first = torch.nn.functional.normalize(triangle[:, 1] - triangle[:, 0], dim=1)
    up = torch.nn.functional.normalize(torch.linalg.cross(first, triangle[:, 2] - triangle[:, 0], dim=1), dim=1)
    return torch.stack([first, torch.linalg.cross(up, first, dim=1), up], 2)


def _agreeing(source: Tensor, target: Tensor, rotation: Tensor, translation: Tensor, distance: float) -> Tensor:
    """(B,) number of pairs that each transform brings within the distance."""
    # In float32, around the centre so that the digits suffice; one plain matrix product for all transforms.
    middle = source.mean(0)
    points, goals = (source - middle).float().t().contiguous(), (target - middle).float().t().contiguous()
    shifts = (translation + rotation @ middle - middle).float()
    counts = [rotation.new_empty(0, dtype=torch.long)]
    step = max(1, _TILE // points.numel())
    for first in range(0, rotation.shape[0], step):
        part = rotation[first : first + step].float()
        apart = (part.reshape(-1, 3) @ points).view(-1, *points.shape)
        apart += shifts[first : first + step, :, None]
        apart -= goals
        counts.append((apart.square_().sum(1) <= distance**2).sum(1))
    return torch.cat(counts)
