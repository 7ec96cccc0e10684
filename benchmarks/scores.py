"""Detection metrics and AU-PRO."""

from __future__ import annotations

import numpy as np

from benchmarks.baselines.scoring import three_metrics, thresholded_au_pro
from benchmarks.clouds import dented
from benchmarks.harness import Bench, CheckFailed, close
from toolkit.metrics.aupro import au_pro, cloud_regions
from toolkit.metrics.detection import auroc_of, average_precision_of, f1_max_of, rank
from toolkit.metrics.streaming import ScoreHistogram


def run(bench: Bench) -> None:
    """Measure the group."""
    for size, ties in ((1_000_000, False), (10_000_000, False), (10_000_000, True)):
        score, y = scored(size)
        if ties:
            score = np.round(score, 3)
        bench.paired("metrics", f"{size:,}{' with ties' if ties else ''}",
                     ("scikit-learn", lambda s=score, y=y: three_metrics(s, y)),
                     ("two sorts", lambda s=score, y=y: two_sorts(s, y)), close(1e-9, "AUROC, AP, F1"),
                     target=30 if size == 10_000_000 else float("nan"))  # fmt: skip
    score, y = scored(10_000_000)
    bench.paired("metrics", "10,000,000, AUROC", ("two sorts", lambda: auroc_of(rank(score, y))),
                 ("histogram", lambda: streamed(score, y)), within_bounds)  # fmt: skip
    score, region = regions()
    bench.paired("au_pro", "100 clouds of 100,000",
                 ("200 thresholds", lambda: thresholded_au_pro(score, region, 0.3, 200)),
                 ("au_pro", lambda: au_pro(score, region, [0.3])[0.3]), close(2e-3, "AU-PRO@0.3"), target=10,
                 note="thresholds err; the candidate is exact")  # fmt: skip


def scored(size: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(size,) float32 scores and (size,) bool labels, 2 % defective."""
    rng = np.random.default_rng(seed)
    y = rng.random(size, np.float32) < 0.02
    return rng.standard_normal(size, np.float32) + 1.5 * y, y


def two_sorts(score: np.ndarray, y: np.ndarray) -> tuple[float, float, float]:
    """AUROC, average precision and the largest F1 from one ranking."""
    ranking = rank(score, y)
    return auroc_of(ranking), average_precision_of(ranking), f1_max_of(ranking)


def streamed(score: np.ndarray, y: np.ndarray) -> tuple[float, float, float]:
    """AUROC and its bounds from a histogram that is filled cloud by cloud."""
    histogram = ScoreHistogram()
    for first in range(0, len(score), 100_000):
        histogram.update(score[first : first + 100_000], y[first : first + 100_000])
    return histogram.auroc(), *histogram.auroc_bounds()


def within_bounds(exact: float, found: tuple[float, float, float]) -> str:
    """The exact value lies within the bounds that the histogram states."""
    value, low, high = found
    if not low <= exact <= high:
        raise CheckFailed(f"{exact} is outside [{low}, {high}]")
    return f"error {abs(value - exact):.1e}, stated bound {(high - low) / 2:.1e}"


def regions(clouds: int = 100, size: int = 100_000) -> tuple[np.ndarray, np.ndarray]:
    """Scores and region numbers of many clouds with one dent each (the same dents ten times, other scores)."""
    rng = np.random.default_rng(0)
    found = []
    for seed in range(10):
        pos, inside = dented(size, seed)
        found.append(cloud_regions(pos.numpy(), inside.numpy()))
    scores, numbers, used = [], [], 0
    for cloud in range(clouds):
        region = found[cloud % 10]
        scores.append(rng.standard_normal(size, np.float32) + 1.5 * (region > 0).astype(np.float32))
        numbers.append(np.where(region > 0, region + used, 0))
        used += int(region.max())
    return np.concatenate(scores), np.concatenate(numbers)
