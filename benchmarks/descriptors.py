"""Fast point feature histograms."""

from __future__ import annotations

import torch

from benchmarks.baselines import open3d_calls
from benchmarks.clouds import bumpy
from benchmarks.harness import Bench, close
from toolkit.ops import fpfh


def run(bench: Bench) -> None:
    """Measure the group."""
    size = 100_000
    pos = bumpy(size).numpy()
    normal = open3d_calls.outward(pos, open3d_calls.normals(pos))
    p, n = torch.from_numpy(pos), torch.from_numpy(normal)
    for step, target in ((500, 20), (1, 1.7)):
        rows = None if step == 1 else torch.arange(0, size, step)
        name = "all points" if step == 1 else f"1 point in {step}"
        bench.paired("fpfh", f"{size:,}, {name}",
                     ("Open3D, file order", lambda s=step: open3d_calls.fpfh(pos, normal)[::s]),
                     ("fpfh", lambda r=rows: fpfh(p, n, radius=2.5, rows=r)), close(1e-3, "features"),
                     target=target)  # fmt: skip
