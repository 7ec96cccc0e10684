"""How sure we are: bootstrap intervals, interquartile mean, paired comparisons, critical differences.

Test sets in 3D-AD are small (30 to 100 objects a category) and runs are few, so a mean without an interval says
little. Two sources of chance are kept apart and can be combined: which objects happened to be in the test set, and
which seed and task order a run happened to have.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from toolkit.errors import LabelError
from toolkit.metrics._checks import MetricInputError, labels_array, scores_array

CELLS = 1 << 22  # resamples are drawn in blocks of this many numbers: 32 MB


@dataclass(frozen=True)
class Interval:
    """A value with its percentile bootstrap interval."""

    value: float
    low: float
    high: float
    samples: NDArray[np.float64]
    """(n,) bootstrap values, for plots and for differences between methods resampled with the same seed."""


def _interval(value: float, samples: NDArray, level: float) -> Interval:
    low, high = np.quantile(samples, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high), samples)


def _counts(rng: np.random.Generator, draws: int, size: int) -> NDArray[np.float64]:
    """(draws, size) how often each of `size` items was drawn, with replacement, in `draws` resamples."""
    picks = rng.integers(0, size, (draws, size)) + size * np.arange(draws)[:, None]
    return np.bincount(picks.reshape(-1), minlength=draws * size).reshape(draws, size).astype(np.float64)


def resampled_objects(
    y: ArrayLike, group: ArrayLike | None = None, n: int = 2000, seed: int = 0
) -> NDArray[np.float64]:
    """(n, M) how often each object of one category is drawn, by `bootstrap_auroc` with the same arguments, too.

    Args:
        y: (M,) labels, 1 = defective.
        group: (M,) physical objects, copies of which are drawn together.
        n: number of resamples.
        seed: of the resampling.

    Raises:
        LabelError: labels are not 0 and 1.
    """
    size = np.asarray(y).size
    groups = np.arange(size) if group is None else _codes(group, size, "group")
    return _drawn(labels_array(y, size), groups, n, np.random.default_rng(seed))


def _drawn(positive: NDArray, groups: NDArray, n: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """(n, M) how often each object is drawn, with replacement within each class, copies together."""
    weights = np.zeros((n, positive.size))
    for kind in (False, True):
        chosen = positive == kind
        if not chosen.any():
            continue
        members = np.unique(groups[chosen], return_inverse=True)[1].reshape(-1)
        block = max(1, CELLS // (int(members.max()) + 1))
        for start in range(0, n, block):
            stop = min(start + block, n)
            weights[start:stop, chosen] = _counts(rng, stop - start, int(members.max()) + 1)[:, members]
    return weights


def weighted_auroc(score: ArrayLike, y: ArrayLike, weight: ArrayLike) -> NDArray[np.float64]:
    """AUROC for many weightings of the same objects at once.

    Args:
        score: (M,) scores.
        y: (M,) labels, 1 = defective, both classes present.
        weight: (B, M) non-negative weights, e.g. how often each object was drawn in B bootstrap resamples.

    Returns:
        (B,) AUROCs; nan where one class has no weight.

    Raises:
        MetricInputError: NaN or no scores, or weights of another width.
    """
    scores = scores_array(score)
    positive = labels_array(y, scores.size)
    weights = np.asarray(weight, dtype=np.float64)
    if scores.size == 0 or weights.ndim != 2 or weights.shape[1] != scores.size:
        raise MetricInputError(
            f"weight: expected (B, {scores.size}) for {scores.size} > 0 scores, got {weights.shape}."
        )
    order = np.argsort(scores, kind="stable")
    ranked = scores[order]
    tie_starts = np.flatnonzero(np.append(True, ranked[1:] != ranked[:-1]))
    sorted_weights, sorted_positive = weights[:, order], positive[order]
    normal = np.add.reduceat(np.where(sorted_positive, 0.0, sorted_weights), tie_starts, axis=1)
    defective = np.add.reduceat(np.where(sorted_positive, sorted_weights, 0.0), tie_starts, axis=1)
    below = np.cumsum(normal, axis=1) - normal / 2
    pairs = normal.sum(axis=1) * defective.sum(axis=1)
    won = (defective * below).sum(axis=1)
    return np.divide(won, pairs, out=np.full(pairs.shape, np.nan), where=pairs > 0)


def bootstrap_auroc(
    score: ArrayLike,
    y: ArrayLike,
    category: ArrayLike | None = None,
    group: ArrayLike | None = None,
    n: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Bootstrap interval of the mean AUROC over categories, and over runs if several are given.

    Objects are drawn with replacement within each category and class, so the numbers of normal and defective objects
    stay what they are. With scores of several runs (seeds, task orders) on the same objects, runs are drawn as well,
    and one draw of objects serves all runs, because the test set is common to them.

    Args:
        score: (M,) scores of one run, or (R, M) of R runs on the same objects.
        y: (M,) labels, 1 = defective.
        category: (M,) categories; AUROC is computed within each and averaged. One category by default.
        group: (M,) physical objects. Copies of one object are drawn together. Each object by itself by default.
        n: number of resamples.
        level: coverage of the interval.
        seed: of the resampling.

    Raises:
        MetricInputError: NaN scores or arrays that do not match.
        LabelError: labels are not 0 and 1, or a category lacks one of the classes.
    """
    runs = np.asarray(score, dtype=np.float64)
    runs = runs[None] if runs.ndim == 1 else runs
    if runs.ndim != 2 or n < 1 or not 0 < level < 1:
        raise MetricInputError(
            f"bootstrap: expected (M,) or (R, M) scores, n >= 1 and level in (0, 1); got {runs.shape}."
        )
    size = runs.shape[1]
    positive = labels_array(y, size)
    categories = _codes(category, size, "category")
    groups = np.arange(size) if group is None else _codes(group, size, "group")
    rng = np.random.default_rng(seed)
    values, samples = [], []
    for code in range(int(categories.max(initial=-1)) + 1):
        here = categories == code
        if positive[here].all() or not positive[here].any():
            raise LabelError("bootstrap: each category needs normal and defective objects.")
        weights = _drawn(positive[here], groups[here], n, rng)
        values.append([float(weighted_auroc(r[here], positive[here], np.ones((1, here.sum())))[0]) for r in runs])
        samples.append([weighted_auroc(r[here], positive[here], weights) for r in runs])
    by_run = np.mean(samples, axis=0)  # (R, n)
    drawn = _counts(rng, n, len(runs)) if len(runs) > 1 else np.ones((n, 1))
    return _interval(float(np.mean(values)), (by_run.T * drawn).sum(axis=1) / len(runs), level)


def interquartile_mean(values: ArrayLike) -> float:
    """Mean of the middle half of all values; robust like the median, but uses more of the data.

    Source: Agarwal et al., "Deep reinforcement learning at the edge of the statistical precipice", NeurIPS 2021. With
    a number of values that four does not divide, the quarter cut off at each end is rounded down (scipy's trim_mean).
    """
    from scipy.stats import trim_mean

    return float(trim_mean(_finite(values).reshape(-1), 0.25))


def bootstrap_runs(
    values: ArrayLike,
    statistic: Callable[[NDArray], float] = interquartile_mean,
    n: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Stratified bootstrap over runs: each column resamples its own runs.

    Args:
        values: (R, K) one figure per run and per dataset, category or task order; (R,) is taken as one column.
        statistic: function of the (R, K) table, e.g. `interquartile_mean` or ``np.mean``.
        n: number of resamples.
        level: coverage of the interval.
        seed: of the resampling.

    Raises:
        MetricInputError: nan in the table, or no run.

    Source: Agarwal et al. 2021.
    """
    table = _finite(values)
    table = table[:, None] if table.ndim == 1 else table
    rng = np.random.default_rng(seed)
    columns = np.arange(table.shape[1])
    samples = np.array([statistic(table[rng.integers(0, len(table), table.shape), columns]) for _ in range(n)])
    return _interval(float(statistic(table)), samples, level)


def probability_of_improvement(a: ArrayLike, b: ArrayLike) -> float:
    """P(A > B) + P(A = B) / 2 over all pairs of runs, averaged over columns: 0.5 if A and B are alike.

    Args:
        a: (R, K) or (R,) figures of method A, higher = better.
        b: (S, K) or (S,) figures of method B.

    Source: Agarwal et al. 2021 (Mann-Whitney U / (R S) per task).
    """
    first, second = _finite(a), _finite(b)
    first = first[:, None] if first.ndim == 1 else first
    second = second[:, None] if second.ndim == 1 else second
    if first.shape[1] != second.shape[1]:
        raise MetricInputError(f"expected the same columns for both methods, got {first.shape} and {second.shape}.")
    difference = first[:, None, :] - second[None, :, :]
    return float(np.mean((difference > 0) + 0.5 * (difference == 0)))


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """Holm's step-down adjusted p-values, in the order given. Source: Holm, Scand. J. Statist. 6 (1979)."""
    p = _finite(p_values).reshape(-1)
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(p.size, 0, -1)))
    return adjusted


def compare_paired(results: Mapping[str, ArrayLike], reference: str | None = None) -> list[dict[str, float | str]]:
    """Compares methods measured under the same conditions, with Holm-corrected p-values.

    Args:
        results: method -> (n,) figures, higher = better; position i is the same condition (dataset, category, task
            order, seed) for all methods.
        reference: compare every other method with this one; by default all pairs.

    Returns:
        One dict per pair: `a`, `b`, `mean_difference` (a - b), `probability_of_improvement` (share of conditions
        where a > b, ties half), `p` (two-sided Wilcoxon signed-rank), `p_holm`.

    Raises:
        MetricInputError: fewer than two methods, different lengths, nan, or an unknown reference.

    Source of the procedure: Demsar, "Statistical comparisons of classifiers over multiple data sets", JMLR 7 (2006).
    """
    from scipy.stats import wilcoxon

    names = list(results)
    table = {name: _finite(results[name]).reshape(-1) for name in names}
    if len(names) < 2 or len({v.size for v in table.values()}) != 1:
        raise MetricInputError("compare_paired: expected at least two methods with equally many figures.")
    if reference is not None and reference not in table:
        raise MetricInputError(f"compare_paired: no method {reference!r}; there are {', '.join(names)}.")
    if reference is None:
        pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    else:
        pairs = [(a, reference) for a in names if a != reference]
    rows: list[dict[str, float | str]] = []
    for a, b in pairs:
        d = table[a] - table[b]
        p = float(wilcoxon(d).pvalue) if d.any() else 1.0
        better = float(np.mean((d > 0) + 0.5 * (d == 0)))
        rows.append({"a": a, "b": b, "mean_difference": float(d.mean()), "probability_of_improvement": better, "p": p})
    for row, adjusted in zip(rows, holm([row["p"] for row in rows])):
        row["p_holm"] = float(adjusted)
    return rows


@dataclass(frozen=True)
class CriticalDifference:
    """Outcome of the Friedman test with Nemenyi's post-hoc test."""

    ranks: dict[str, float]
    """Average rank of each method, 1 = best, best first."""
    critical_difference: float
    """Two methods whose average ranks differ by less are not told apart."""
    friedman_p: float
    groups: list[list[str]]
    """Largest sets of methods, neighbours in rank, that are not told apart."""


def critical_difference(results: Mapping[str, ArrayLike], alpha: float = 0.05) -> CriticalDifference:
    """Average ranks and Nemenyi's critical difference q sqrt(k (k+1) / (6 n)).

    Args:
        results: method -> (n,) figures, higher = better; position i is the same condition for all methods.
        alpha: level of the tests.

    Raises:
        MetricInputError: fewer than three methods or two conditions, different lengths, or nan.

    Source: Demsar 2006, section 3.2.2; q is the studentized range quantile divided by sqrt(2).
    """
    from scipy.stats import friedmanchisquare, rankdata, studentized_range

    names = list(results)
    columns = [_finite(results[name]).reshape(-1) for name in names]
    if len(names) < 3 or len({c.size for c in columns}) != 1 or columns[0].size < 2:
        raise MetricInputError("critical_difference: expected three or more methods with equally many (>= 2) figures.")
    table = np.stack(columns, axis=1)
    conditions, methods = table.shape
    mean_rank = rankdata(-table, axis=1).mean(axis=0)
    width = float(studentized_range.ppf(1 - alpha, methods, np.inf) / np.sqrt(2))
    width *= float(np.sqrt(methods * (methods + 1) / (6 * conditions)))
    ranks = {names[i]: float(mean_rank[i]) for i in np.argsort(mean_rank, kind="stable")}
    p = float(friedmanchisquare(*columns).pvalue) if np.ptp(table, axis=1).any() else 1.0
    return CriticalDifference(ranks, width, p, _not_told_apart(ranks, width))


def _not_told_apart(ranks: dict[str, float], width: float) -> list[list[str]]:
    names, values = list(ranks), list(ranks.values())
    groups: list[list[str]] = []
    reached = 0
    for i in range(len(names)):
        j = max(k for k in range(i, len(names)) if values[k] - values[i] < width)
        if j > i and j + 1 > reached:  # a set inside the previous one says nothing new
            groups.append(names[i : j + 1])
            reached = j + 1
    return groups


def _codes(labels: ArrayLike | None, size: int, name: str) -> NDArray[np.int64]:
    if labels is None:
        return np.zeros(size, dtype=np.int64)
    array = np.asarray(labels).reshape(-1)
    if array.size != size:
        raise MetricInputError(f"{name}: expected one entry per object ({size}), got {array.size}.")
    return np.unique(array, return_inverse=True)[1].reshape(-1).astype(np.int64)


def _finite(values: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if array.size == 0 or not np.isfinite(array).all():
        raise MetricInputError(
            f"expected finite figures, got {array.size} of which {int((~np.isfinite(array)).sum())} are nan or inf. "
            "Leave out what was not measured, for all methods alike."
        )
    return array
