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
    for size in (1_000_000, 10_000_000):
        score, y = scored(size)
        score = np.round(score, 3) if size == 10_000_000 else score
        bench.paired("metrics", f"AUROC, AP, F1-max of {size:,}{' with ties' if size == 10_000_000 else ''}",
                     ("scikit-learn", lambda s=score, y=y: three_metrics(s, y)),
                     ("two sorts", lambda s=score, y=y: two_sorts(s, y)), close(1e-9, "AUROC, AP, F1"),
                     target=30 if size == 10_000_000 else float("nan"))  # fmt: skip
    score, y = scored(10_000_000)
    bench.paired("metrics", "AUROC of 10,000,000", ("two sorts", lambda: auroc_of(rank(score, y))),
                 ("histogram", lambda: streamed([(score, y)])), within_bounds)  # fmt: skip
    _a_hundred_million(bench)
    scores, regions = dents()
    together = np.concatenate(scores), np.concatenate(regions)
    bench.paired("au_pro", "20 clouds of 100,000",
                 ("200 thresholds", lambda: thresholded_au_pro(scores, regions, 0.3, 200)),
                 ("au_pro", lambda: au_pro(*together, [0.3])[0.3]), close(2e-3, "AU-PRO@0.3"), target=10,
                 note="thresholds err; the candidate is exact")  # fmt: skip


def _a_hundred_million(bench: Bench) -> None:
    """10^8 points, never held at once: once, against the exact value of all of them (equal parts, so equal AUROC)."""
    score, y = scored(10_000_000)
    exact = auroc_of(rank(score, y))
    parts = [(score, y)] * 10
    bench.paired("metrics", "AUROC of 100,000,000, streamed",
                 ("two sorts of a tenth, times 10", lambda: auroc_of(rank(score, y))),
                 ("histogram", lambda: streamed(parts)), lambda a, b: within_bounds(exact, b), scale=10,
                 note="the baseline sorts 10^7 points and is multiplied; the stream is ten times the same 10^7 points, "
                      "whose AUROC is theirs")  # fmt: skip


def scored(size: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(size,) float32 scores and (size,) bool labels, 2 % defective."""
    rng = np.random.default_rng(seed)
    y = rng.random(size, np.float32) < 0.02
    return rng.standard_normal(size, np.float32) + 1.5 * y, y


def two_sorts(score: np.ndarray, y: np.ndarray) -> tuple[float, float, float]:
    """AUROC, average precision and the largest F1 from one ranking."""
    ranking = rank(score, y)
    return auroc_of(ranking), average_precision_of(ranking), f1_max_of(ranking)


def streamed(parts: list[tuple[np.ndarray, np.ndarray]]) -> tuple[float, float, float]:
    """AUROC and its bounds from a histogram that is filled cloud by cloud."""
    histogram = ScoreHistogram()
    for score, y in parts:
        for first in range(0, len(score), 100_000):
            histogram.update(score[first : first + 100_000], y[first : first + 100_000])
    return histogram.auroc(), *histogram.auroc_bounds()


def within_bounds(exact: float, found: tuple[float, float, float]) -> str:
    """The exact value lies within the bounds that the histogram states."""
    value, low, high = found
    if not low <= exact <= high:
        raise CheckFailed(f"{exact} is outside [{low}, {high}]")
    return f"error {abs(value - exact):.1e}, stated bound {(high - low) / 2:.1e}"


def dents(clouds: int = 20, size: int = 100_000) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Scores and region numbers of clouds with one dent each (five different dents)."""
    rng = np.random.default_rng(0)
    found = []
    for seed in range(5):
        pos, inside = dented(size, seed)
        found.append(cloud_regions(pos.numpy(), inside.numpy()))
    scores, numbers, used = [], [], 0
    for cloud in range(clouds):
        region = found[cloud % 5]
        scores.append(rng.standard_normal(size, np.float32) + 1.5 * (region > 0).astype(np.float32))
        numbers.append(np.where(region > 0, region + used, 0))
        used += int(region.max())
    return scores, numbers
