"""Reading a cloud again from the cache, against parsing its text file each time."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from benchmarks.clouds import bumpy
from benchmarks.harness import Bench, close
from toolkit.cloud import PointCloud
from toolkit.data.folder import Folder
from toolkit.store import Store, cached_load
from toolkit.zorder import in_file_order


def run(bench: Bench) -> None:
    """Measure the group."""
    with tempfile.TemporaryDirectory() as name:
        for size in (30_000, 100_000, 500_000):
            root = Path(name) / str(size)
            path = written(root, size)
            dataset = Folder(root=str(root), labels="none")
            store, sample = Store(root / "cache"), dataset.select(split="train")[0]
            cached_load(dataset, sample, store)

            def cached(d=dataset, s=sample, c=store) -> PointCloud:
                cloud = cached_load(d, s, c)
                cloud.pos.numpy().sum()  # touch every byte of the mapped file
                return cloud

            bench.paired("read", f"{size:,} points", ("genfromtxt", lambda p=path: np.genfromtxt(p)),
                         ("cached", cached), lambda text, cloud: close(1e-5, "coordinates")(text, as_listed(cloud)),
                         target=100 if size == 100_000 else float("nan"))  # fmt: skip
            bench.paired("read", f"{size:,} points, first time", ("genfromtxt", lambda p=path: np.genfromtxt(p)),
                         ("our parser", lambda d=dataset, s=sample: d.load(s).pos.numpy()),
                         close(1e-5, "coordinates"))  # fmt: skip


def as_listed(cloud: PointCloud) -> np.ndarray:
    """(N, 3) coordinates in the order of the file."""
    return np.stack([in_file_order(cloud, axis).numpy() for axis in cloud.pos.t()], 1)


def written(root: Path, size: int) -> Path:
    """A data folder with one training cloud of `size` points as text; returns that file."""
    for split in ("train", "test/good"):
        (root / "part" / split).mkdir(parents=True)
    path = root / "part" / "train" / "scan.txt"
    np.savetxt(path, bumpy(size).numpy(), fmt="%.6f")
    np.savetxt(root / "part" / "test" / "good" / "other.txt", bumpy(100).numpy(), fmt="%.6f")
    return path
