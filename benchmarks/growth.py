"""How cost grows: with points (10^4 .. 2 x 10^6), tasks (4 .. 1,000) and rows of a memory bank (10^3 .. 10^6).

Each size is measured a few times and its smallest processor time kept. A curve's exponent is the slope of log time over
log size between the sizes from `TAIL` of the largest on, where fixed costs no longer count; N log N is an exponent of
about 1.1 there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.clouds import bumpy, features
from benchmarks.harness import Peak
from strategies.btf import BTF
from toolkit.cloud import PointCloud
from toolkit.nn.bank import bank_bytes, update
from toolkit.ops import bank_nearest, coreset, fpfh, fps, interpolate, knn, morton_order, normals, voxel_downsample
from toolkit.stream import CloudList

POINTS = (10_000, 30_000, 100_000, 300_000, 1_000_000, 2_000_000)
TASKS = (4, 16, 64, 250, 1_000)
ROWS = (1_000, 10_000, 100_000, 1_000_000)
TAIL = 0.1
LIMITS = {"points": 1.25, "tasks": 1.1, "rows": 1.15}
"""Largest exponents that still count as N log N, and as linear, given what timing a shared machine can tell."""


def curves() -> Iterator[dict[str, Any]]:
    """One row per curve and size: axis, curve, size, seconds, megabytes (of memory, at its peak)."""
    yield from _points()
    yield from _tasks()
    yield from _training()
    yield from _rows()


def _points() -> Iterator[dict[str, Any]]:
    bank = BTF()
    bank.scales_ = {"part": 40.0}
    bank.fit(_Few(bank))  # type: ignore[arg-type]
    for size in POINTS:
        pos = bumpy(size)
        pos = pos[morton_order(pos)]  # as clouds come from the cache
        cells = voxel_downsample(pos, 0.6)
        work: dict[str, Callable[[], Any]] = {
            "sort along the curve": lambda p=pos: morton_order(p),
            "voxel grid": lambda p=pos: voxel_downsample(p, 0.6),
            "farthest points (4,096)": lambda p=pos: fps(p, 4_096, exact=False),
            "16 neighbours of all": lambda p=pos: knn(p, p, 16),
            "interpolate from a grid": lambda p=pos, c=cells: interpolate(c[:, 0], c, p),
            "BTF score": lambda p=pos: bank.score(PointCloud(p, category="part")),
        }
        if size <= 1_000_000:
            work["normals"] = lambda p=pos: normals(p)
        if size <= 300_000:
            normal = normals(pos)
            work["FPFH, 1 in 500"] = lambda p=pos, n=normal: fpfh(p, n, radius=2.5, rows=torch.arange(0, len(p), 500))
        for name, function in work.items():
            bank._memory.clear()  # a prepared cloud would be found again
            yield _measured("points", name, size, function)


class _Few:
    """Two prepared training clouds, as `fit` wants them."""

    def __init__(self, strategy: BTF):
        self.samples = [0, 1]
        self._strategy = strategy

    def load(self, seed: int) -> PointCloud:
        return self._strategy.prepared(PointCloud(bumpy(20_000, seed=10 + seed), category="part"))


def _tasks() -> Iterator[dict[str, Any]]:
    """The bank's update when the last of so many tasks arrives, and the whole bank's bytes."""
    for policy in ("growing", "fixed", "quota"):
        bank: dict[str, torch.Tensor] = {}
        spent: list[float] = []
        for task in range(1, max(TASKS) + 1):
            rows = torch.cat([features(200, 33, seed=task), torch.ones(200, 1)], 1)
            begin = time.process_time()
            bank = update(bank, {f"class {task}": rows}, policy=policy, budget="150kB")
            spent.append(time.process_time() - begin)
            if task in TASKS:
                recent = spent[-min(task, 10) :]
                yield {"axis": "tasks", "curve": f"bank takes a task, {policy}", "size": task,
                       "seconds": float(np.median(recent)), "megabytes": bank_bytes(bank) / 1e6}  # fmt: skip


def _training() -> Iterator[dict[str, Any]]:
    """A whole method learning its n-th task under a budget: what that takes, and how much memory."""
    strategy = BTF(policy="fixed", budget="100kB")
    for task in range(1, 65):
        cloud = PointCloud(bumpy(4_096, seed=task), category=f"class {task}", sample_id=str(task))

        def learn(cloud: PointCloud = cloud) -> None:
            strategy._memory.clear()
            strategy.meet([cloud])
            strategy.fit(CloudList("x", [0], lambda _: strategy.prepared(cloud), [0]))  # type: ignore[list-item]

        with Peak() as peak:
            spent = _seconds(learn)
        if task in TASKS:
            yield {"axis": "tasks", "curve": "BTF learns a task, fixed", "size": task, "seconds": spent,
                   "megabytes": peak.rise / 1e6}  # fmt: skip


def _rows() -> Iterator[dict[str, Any]]:
    query = features(1_000, 33, seed=1)
    for size in ROWS:
        bank = features(size, 33)
        yield _measured("rows", "1,000 queries x 33", size, lambda b=bank: bank_nearest(b, query))
        yield _measured("rows", "coreset of 100", size, lambda b=bank: coreset(b, 100))


def _measured(axis: str, curve: str, size: int, function: Callable[[], Any]) -> dict[str, Any]:
    with Peak() as peak:
        times = [_seconds(function)]
    while len(times) < 3 and sum(times) < 1.5:
        times.append(_seconds(function))
    return {"axis": axis, "curve": curve, "size": size, "seconds": min(times), "megabytes": peak.rise / 1e6}


def _seconds(function: Callable[[], Any]) -> float:
    begin = time.process_time()
    function()
    return time.process_time() - begin


def exponents(rows: list[dict[str, Any]]) -> dict[tuple[str, str], float]:
    """Slope of log seconds over log size of each curve, by (axis, curve), from a tenth of its largest size on."""
    found = {}
    for key in dict.fromkeys((row["axis"], row["curve"]) for row in rows):
        own = [row for row in rows if (row["axis"], row["curve"]) == key]
        largest = max(float(row["size"]) for row in own)
        tail = [row for row in own if float(row["size"]) >= TAIL * largest]
        x, y = (np.log([float(row[name]) for row in tail]) for name in ("size", "seconds"))
        found[key] = float(np.polyfit(x, y, 1)[0])
    return found


def figure(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw the curves, one panel per axis, on logarithmic scales."""
    import matplotlib.pyplot as plt

    panels = list(dict.fromkeys(row["axis"] for row in rows))
    drawn, axes = plt.subplots(1, len(panels), figsize=(5.2 * len(panels), 5.2), squeeze=False)
    slopes = exponents(rows)
    for axis, panel in zip(axes[0], panels):
        for name in dict.fromkeys(row["curve"] for row in rows if row["axis"] == panel):
            own = [row for row in rows if (row["axis"], row["curve"]) == (panel, name)]
            axis.plot([float(r["size"]) for r in own], [float(r["seconds"]) for r in own], marker="o", markersize=3,
                      label=f"{name} ({slopes[panel, name]:.2f})")  # fmt: skip
        axis.set(xscale="log", yscale="log", xlabel=panel, ylabel="processor seconds")
        axis.grid(alpha=0.3, which="major")
        axis.legend(fontsize=8, ncols=2, title="curve (exponent of its end)", title_fontsize=8, frameon=False,
                    loc="upper center", bbox_to_anchor=(0.5, -0.13))  # fmt: skip
    drawn.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn.savefig(path, dpi=130)
    plt.close(drawn)
