"""Bootstrap over test objects and repetitions for every figure that follows from object scores, and for point AUROC.

Test objects are drawn with replacement within category and class (copies of one object together), the same draw for
every state of training, run and method. So a draw gives each run a whole R matrix, and with it forgetting and the other
continual figures; and the difference of two methods is taken draw by draw. Repetitions (seeds, task orders, draws of
known defects) are then drawn with replacement, those that two methods share together.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from toolkit.errors import LabelError
from toolkit.metrics import (
    Interval,
    bootstrap_auroc,
    chaudhry_forgetting,
    compare_paired,
    holm,
    lopez_paz_bwt,
    lopez_paz_fwt,
    resampled_objects,
    resampled_point_auroc,
)
from toolkit.runs.groups import Method, repetition_key, streams_of
from toolkit.runs.load import FinishedRun

DRAWS = 1000
LEVEL = 0.95
CONTINUAL: dict[str, Callable[[NDArray], float]] = {
    "forgetting": chaudhry_forgetting,
    "bwt": lopez_paz_bwt,
    "fwt": lopez_paz_fwt,
}

Draws = NDArray[np.float64]
"""(n + 1, ...) figures: the first of the test set as it is, the others of n resamples."""


class Resampled:
    """AUROCs of one run on the test set as it is and on resamples of it.

    Args:
        run: any finished run.
        draws: number of resamples.
        seed: of the resampling; equal seeds draw equal objects.
        part: name of a slice of the test clouds; all of them by default.
    """

    def __init__(self, run: FinishedRun, draws: int = DRAWS, seed: int = 0, part: str = ""):
        self.run, self.draws, self.seed, self.part = run, draws, seed, part
        self.tasks = len(run.result["tasks"])
        self.cells: dict[tuple[int, int, str], Draws] = {}
        keys = ["trained_on", "experience", "category"]
        scores = run.scores
        if part:
            scores = scores[scores["slices"].str.contains(f";{part};", regex=False)]
        for (state, experience, category), rows in scores.groupby(keys, sort=True):
            rows = rows.sort_values("sample_id")
            try:
                found = bootstrap_auroc(rows["object_score"], rows["y"], group=rows["group_id"], n=draws, level=LEVEL,
                                        seed=self._seed(category))  # fmt: skip
            except LabelError:  # no normal or no defective object: the category has no AUROC and enters no mean
                continue
            self.cells[int(state), int(experience), str(category)] = np.append(found.value, found.samples)
        self.last = max((state for state, _, _ in self.cells), default=-1)

    @cached_property
    def point_cells(self) -> dict[tuple[int, str], Draws]:
        """(experience, category) -> point AUROC in the run's final state, from the same draws of objects.

        Empty for slices, and for runs that kept no pairs of objects.
        """
        if self.part or self.run.pairs.empty:
            return {}
        exact = self.run.points[self.run.points["slice"] == ""].set_index(["trained_on", "experience", "category"])
        scores, found = self.run.scores, {}
        for key, rows in self.run.pairs.groupby(["trained_on", "experience", "category"], sort=True):
            state, experience, category = int(key[0]), int(key[1]), str(key[2])
            here = (scores["trained_on"] == state) & (scores["experience"] == experience)
            tested = scores[here & (scores["category"] == category)].sort_values("sample_id")
            names = tested["sample_id"].tolist()
            won = rows.pivot(index="defective", columns="normal", values="won").reindex(names, columns=names).fillna(0)
            normal = rows.groupby("normal")["normal_points"].first().reindex(names).fillna(0)
            defective = rows.groupby("defective")["defective_points"].first().reindex(names).fillna(0)
            weight = np.vstack(
                [
                    np.ones(len(names)),
                    resampled_objects(tested["y"], tested["group_id"], self.draws, self._seed(category)),
                ]
            )
            drawn = resampled_point_auroc(won, normal, defective, weight)
            drawn[1:] += float(exact.loc[key, "point_auroc"]) - drawn[0]  # what thinning costs
            found[experience, category] = np.append(exact.loc[key, "point_auroc"], drawn[1:])
        return found

    def _seed(self, category: str) -> int:
        return zlib.crc32(f"{self.seed}/{category}".encode())

    def point_final(self) -> Draws:
        """Mean point AUROC over all categories, task by task: ``final.point_auroc``."""
        return self._mean(list(self.point_cells.values()))

    def point_categories(self) -> dict[str, Draws]:
        """Point AUROC of each category; the mean over the tasks that test it."""
        found: dict[str, list[Draws]] = {}
        for (_, category), values in self.point_cells.items():
            found.setdefault(category, []).append(values)
        return {category: self._mean(parts) for category, parts in sorted(found.items())}

    def _mean(self, cells: Sequence[Draws]) -> Draws:
        return np.mean(cells, axis=0) if len(cells) else np.full(self.draws + 1, np.nan)

    def categories(self) -> dict[str, Draws]:
        """Object AUROC of each category after the last task; after its own where tasks are independent.

        A category that is tested in several tasks (domains, variants) gives the mean over them.
        """
        found: dict[str, list[Draws]] = {}
        for (state, experience, category), values in self.cells.items():
            if state == (experience if self.run.independent else self.last):
                found.setdefault(category, []).append(values)
        return {category: self._mean(parts) for category, parts in sorted(found.items())}

    def final(self) -> Draws:
        """Mean object AUROC after the last task over all categories, task by task: ``final.object_auroc``."""
        return self._mean([values for (state, experience, _), values in self.cells.items()
                           if state == (experience if self.run.independent else self.last)])  # fmt: skip

    def seen(self, task: int) -> Draws:
        """Mean object AUROC over the categories of tasks 0..task after learning `task` (C3D-AD, Table 1)."""
        return self._mean([v for (state, experience, _), v in self.cells.items() if state == task >= experience])

    def matrix(self) -> Draws:
        """(n + 1, T + 1, T) R matrices."""
        found: dict[tuple[int, int], list[Draws]] = {}
        for (state, experience, _), values in self.cells.items():
            found.setdefault((state + 1, experience), []).append(values)
        result = np.full((self.draws + 1, self.tasks + 1, self.tasks), np.nan)
        for (row, column), parts in found.items():
            result[:, row, column] = self._mean(parts)
        return result

    def continual(self, name: str) -> Draws:
        """Forgetting, BWT or FWT (`CONTINUAL`); NaN where tasks are independent.

        Forgetting takes a maximum over noisy values, which resampling shifts upwards; its draws are moved back so that
        their mean is the figure itself.
        """
        if self.run.independent:
            return np.full(self.draws + 1, np.nan)
        values = np.array([CONTINUAL[name](matrix) for matrix in self.matrix()])
        if name == "forgetting":
            values[1:] += values[0] - values[1:].mean()
        return values


def over_runs(draws: Sequence[Draws], seed: int = 0, level: float = LEVEL) -> Interval:
    """Mean over runs, with an interval over test objects and runs."""
    table = np.array(draws)
    picks = np.random.default_rng(seed).integers(0, len(table), (table.shape[1] - 1, len(table)))
    samples = table[picks, np.arange(1, table.shape[1])[:, None]].mean(axis=1)
    low, high = np.quantile(samples, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(table[:, 0].mean()), float(low), float(high), samples)


@dataclass
class Difference:
    """Method `a` minus method `b` in one figure.

    Attributes:
        a, b: names.
        metric: what is compared; for all of them but forgetting higher is better.
        value, low, high: the difference and its interval over objects and repetitions; NaN where it is not resampled.
        p: two-sided, from that bootstrap, Holm-adjusted over all pairs of methods in the stream.
        better_in: share of categories in which a is better, ties half; NaN for figures without categories.
        p_categories: Wilcoxon's signed-rank test over categories, Holm-adjusted; NaN for fewer than 6 of them, where
            it cannot reach 0.05.
        repetitions: how many went into it.
        shared: whether the two methods ran under the same seeds, orders and draws.
        verdict: in words.
    """

    a: str
    b: str
    metric: str
    value: float
    low: float
    high: float
    p: float
    better_in: float
    p_categories: float
    repetitions: int
    shared: bool
    verdict: str = ""


LEAST_CATEGORIES = 6
ALPHA = 0.05


def differences(methods: Sequence[Method], resampled: dict[FinishedRun, Resampled], seed: int = 0) -> list[Difference]:
    """Every pair of methods in object AUROC, point AUROC and forgetting, Holm-adjusted within each figure."""
    rows: list[Difference] = []
    for metric in ("object AUROC", "point AUROC", "forgetting"):
        found = [_difference(a, b, metric, resampled, seed) for i, a in enumerate(methods) for b in methods[i + 1 :]]
        found = [row for row in found if not np.isnan(row.value)]
        for name in ("p", "p_categories"):
            known = [row for row in found if not np.isnan(getattr(row, name))]
            for row, adjusted in zip(known, holm([getattr(r, name) for r in known]) if known else ()):
                setattr(row, name, float(adjusted))
        for row in found:
            row.verdict = _verdict(row)
        rows += found
    return rows


def _difference(a: Method, b: Method, metric: str, resampled: dict[FinishedRun, Resampled], seed: int) -> Difference:
    first, second, shared = _matched(a, b)
    better_in = p_categories = low = high = p = float("nan")
    if metric != "forgetting":
        left, right = (_by_category(runs, metric, resampled) for runs in (first, second))
        common = sorted(left.keys() & right.keys())
        if len(common) > 1:
            row = compare_paired({"a": [left[c] for c in common], "b": [right[c] for c in common]})[0]
            better_in = float(row["probability_of_improvement"])
            p_categories = float(row["p"]) if len(common) >= LEAST_CATEGORIES else float("nan")
    draw = {"object AUROC": Resampled.final, "point AUROC": Resampled.point_final}
    if metric == "point AUROC" and not all(resampled[run].point_cells for run in (*first, *second)):
        value = float(np.mean([left[c] - right[c] for c in common])) if common else float("nan")
    else:
        take = draw.get(metric, lambda r: r.continual("forgetting"))
        ours, theirs = (over_runs([take(resampled[run]) for run in runs], seed) for runs in (first, second))
        value, drawn = ours.value - theirs.value, ours.samples - theirs.samples
        low, high = (float(q) for q in np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]))
        p = paired_p(ours.samples, theirs.samples)
    return Difference(a.name, b.name, metric, value, low, high, p, better_in, p_categories, len(first), shared)


def _matched(a: Method, b: Method) -> tuple[Sequence[FinishedRun], Sequence[FinishedRun], bool]:
    """The runs of two methods that share seed, order and draw; all of both where none does."""
    left, right = ({repetition_key(run): run for run in method.runs} for method in (a, b))
    common = [key for key in left if key in right]
    if not common:
        return a.runs, b.runs, False
    return [left[k] for k in common], [right[k] for k in common], True


def _by_category(runs: Sequence[FinishedRun], metric: str, resampled: dict[FinishedRun, Resampled]) -> dict[str, float]:
    """Final AUROC of each category, mean over runs."""
    found: dict[str, list[float]] = {}
    for run in runs:
        if metric == "object AUROC":
            rows = [(category, float(values[0])) for category, values in resampled[run].categories().items()]
        else:
            rows = [(row["category"], row["point_auroc"]) for row in run.result["per_category"]]
        for category, value in rows:
            if value is not None:
                found.setdefault(category, []).append(value)
    return {category: float(np.mean(values)) for category, values in found.items()}


def behind(runs: Sequence[FinishedRun], average: bool = False) -> set[str]:
    """Hashes of the runs whose final object AUROC is below that of the best run of their stream beyond noise.

    Paired bootstrap over test objects, Holm-adjusted over the stream's runs; what luck in training does is not in it.

    Args:
        runs: finished runs of any streams.
        average: compare methods, each by the mean over its repetitions, which are resampled as well; the hashes are
            those of all its runs.
    """
    found: set[str] = set()
    for stream in streams_of(runs):
        rows = [(m.runs,) if average else [(run,) for run in m.runs] for m in stream.methods]
        final = {row: over_runs([Resampled(run).final() for run in row]) for listed in rows for row in listed}
        final = {row: interval for row, interval in final.items() if not np.isnan(interval.samples).any()}
        if len(final) < 2:
            continue
        best = max(final, key=lambda row: final[row].value)
        others = [row for row in final if row is not best]
        p = holm([paired_p(final[row].samples, final[best].samples) for row in others])
        for row, value in zip(others, p):
            if value < ALPHA and final[row].value < final[best].value:
                found |= {run.spec.hash for run in row}
    return found


def paired_p(first: NDArray, second: NDArray) -> float:
    """Two-sided p-value that two bootstrap samples, drawn together, have no difference; NaN if either is unknown.

    Counting draws cannot tell a p below 2 / (n + 1), which Holm's correction over many pairs would lift above any
    level. Where no draw lies on the other side, the tail of a normal distribution of the draws' mean and deviation
    takes over.
    """
    drawn = first - second
    if np.isnan(drawn).any():
        return float("nan")
    extreme = min((drawn <= 0).sum(), (drawn >= 0).sum())
    p = float(min(1.0, 2 * (extreme + 1) / (len(drawn) + 1)))
    deviation = float(drawn.std())
    if extreme or not deviation:
        return p
    return min(p, math.erfc(abs(float(drawn.mean())) / deviation / math.sqrt(2)))


def _verdict(row: Difference) -> str:
    if not np.isnan(row.p):
        beyond = row.p < ALPHA
        scope = "" if row.repetitions > 1 else " of the test objects (one repetition)"
        return f"beyond noise{scope}" if beyond else "within noise"
    if np.isnan(row.p_categories):
        return "not tested: too few categories"
    return "beyond noise over categories" if row.p_categories < ALPHA else "within noise"
