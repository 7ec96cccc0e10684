"""Developer tables of absolute times: ``pytest benchmarks``; ``--benchmark-autosave`` and ``--benchmark-compare`` keep
and compare them. For ratios against other implementations, which survive a loaded machine, see `benchmarks.run`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.clouds import bumpy, features
from toolkit import ops
from toolkit.metrics.aupro import au_pro
from toolkit.metrics.detection import detection_metrics
from toolkit.metrics.streaming import ScoreHistogram

pytest.importorskip("pytest_benchmark")


def over_points(size: int) -> dict[str, Callable[[], Any]]:
    """Operators on a cloud, by name."""
    pos, other = bumpy(size), bumpy(size, seed=1)
    normal = ops.normals(pos)
    few = torch.arange(0, size, 100)
    return {
        "morton_order": lambda: ops.morton_order(pos),
        "voxel_downsample": lambda: ops.voxel_downsample(pos, 0.5),
        "fps": lambda: ops.fps(pos, 1024, exact=False),
        "knn": lambda: ops.knn(pos, pos, 16),
        "normals": lambda: ops.normals(pos),
        "fpfh": lambda: ops.fpfh(pos, normal, radius=2.5, rows=few),
        "chamfer": lambda: ops.chamfer(pos, other),
        "interpolate": lambda: ops.interpolate(normal[few], pos[few], pos),
        "smooth": lambda: ops.smooth(pos[:, 0], pos, k=16),
        "register": lambda: ops.register(other, pos),
    }


def over_rows(size: int) -> dict[str, Callable[[], Any]]:
    """Operators on a memory bank."""
    bank, query = features(size, 33), features(1000, 33, seed=1)
    return {
        "bank_nearest": lambda: ops.bank_nearest(bank, query),
        "coreset": lambda: ops.coreset(bank, 200),
    }


def over_scores(size: int) -> dict[str, Callable[[], Any]]:
    """Metrics."""
    rng = np.random.default_rng(0)
    region = np.where(rng.random(size) < 0.02, rng.integers(1, 20, size), 0)
    score = rng.standard_normal(size, np.float32) + (region > 0)
    return {
        "detection_metrics": lambda: detection_metrics(score, region > 0),
        "score_histogram": lambda: ScoreHistogram().update(score, region > 0).auroc(),
        "au_pro": lambda: au_pro(score, region),
    }


CASES = [
    (group, size, name)
    for group, sizes in ((over_points, (10_000, 100_000)), (over_rows, (1_000, 10_000)), (over_scores, (1_000_000,)))
    for size in sizes
    for name in group(100)
]


@pytest.mark.parametrize("group, size, name", CASES, ids=lambda v: v if isinstance(v, str) else None)
def test_time(benchmark, group, size, name):
    benchmark.group = f"{group.__name__} {size:,}"
    benchmark.pedantic(group(size)[name], rounds=3, iterations=1, warmup_rounds=1)
