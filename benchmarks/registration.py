"""Registration to a template."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from benchmarks.baselines import open3d_calls
from benchmarks.clouds import bumpy
from benchmarks.harness import Bench, at_most
from toolkit.ops import compiled, register
from toolkit.ops.register import Template


def run(bench: Bench) -> None:
    """Measure the group."""
    for size in (20_000,):
        template, (source, truth) = bumpy(size).numpy(), moved(size)
        kept = Template(torch.from_numpy(template))
        scan = torch.from_numpy(source)
        plain = Template(torch.from_numpy(template))
        away = at_most(lambda found, s=source, t=truth: misplaced(found, s, t), "residual")
        case, baseline = f"{size:,} onto {size:,}", partial(open3d_calls.registration, source, template)
        note = ("residual: root mean square distance of points to where they belong; the baseline takes between 1 and "
                "17 s, as its unseeded RANSAC finds or does not find early agreement")  # fmt: skip
        bench.paired("registration", case, ("RANSAC, unoriented", baseline),
                     ("register", lambda s=scan, k=kept: register(s, k).transform.numpy()), away, target=50,
                     note=note)  # fmt: skip
        bench.paired("registration", f"{case}, without numba", ("RANSAC, unoriented", baseline),
                     ("register", lambda s=scan, k=plain: without_numba(s, k)), away, note=note)  # fmt: skip


def without_numba(source: torch.Tensor, template: Template) -> np.ndarray:
    """As where that is not installed."""
    before, compiled.enabled = compiled.enabled, False
    try:
        return register(source, template).transform.numpy()
    finally:
        compiled.enabled = before


def moved(size: int) -> tuple[np.ndarray, np.ndarray]:
    """(N, 3) another sampling of the same surface, turned and shifted, and the (4, 4) transform that undoes that."""
    rotation = Rotation.from_rotvec([0.4, -0.7, 0.5]).as_matrix()
    shift = np.array([3.0, -2.0, 1.5])
    source = bumpy(size, seed=1).double().numpy() @ rotation.T + shift
    back = np.eye(4)
    back[:3, :3], back[:3, 3] = rotation.T, -rotation.T @ shift
    return source.astype(np.float32), back


def misplaced(found: np.ndarray, source: np.ndarray, truth: np.ndarray) -> float:
    """Root mean square distance of the points to where the true transform puts them."""
    apart = found - truth
    return float(np.sqrt((((source @ apart[:3, :3].T) + apart[:3, 3]) ** 2).sum(1).mean()))
