"""Nearest neighbours in memory banks."""

from __future__ import annotations

import numpy as np
import torch

from benchmarks.clouds import features
from benchmarks.harness import Bench, CheckFailed
from toolkit.ops import bank_nearest
from toolkit.ops.bank import has_bf16


def run(bench: Bench) -> None:
    """Measure the group."""
    for queries, rows, dim in (
        (10_000, 10_000, 33),
        (100_000, 10_000, 33),
        (4_096, 10_000, 384),
        (4_096, 10_000, 1152),
    ):
        bank, query = features(rows, dim), features(queries, dim, seed=1)
        target = 1 / 1.1 if dim == 33 else 2.0 if dim == 1152 and has_bf16() else float("nan")
        bench.paired("bank", f"{queries:,} in {rows:,} x {dim}",
                     ("faiss flat", lambda b=bank, q=query: faiss_flat(b, q)),
                     ("bank_nearest", lambda b=bank, q=query: ours(b, q)), full_recall, target=target)  # fmt: skip


def faiss_flat(bank: torch.Tensor, query: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Index and distance of the nearest row by an exact faiss index."""
    import faiss

    faiss.omp_set_num_threads(torch.get_num_threads())
    index = faiss.IndexFlatL2(bank.shape[1])
    index.add(bank.numpy())
    square, found = index.search(query.numpy(), 1)
    return found[:, 0], np.sqrt(np.maximum(square[:, 0], 0))


def ours(bank: torch.Tensor, query: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Index and distance of the nearest row."""
    distance, found = bank_nearest(bank, query)
    return found[:, 0].numpy(), distance[:, 0].numpy()


def full_recall(first: tuple[np.ndarray, np.ndarray], second: tuple[np.ndarray, np.ndarray]) -> str:
    """No row found is farther away than faiss's, to five digits."""
    farther = second[1] > first[1] * (1 + 1e-5) + 1e-6
    if farther.any():
        raise CheckFailed(f"{int(farther.sum())} of {len(farther)} neighbours are farther than faiss's")
    return f"recall 1.0 (same row {float((first[0] == second[0]).mean()):.5f})"
