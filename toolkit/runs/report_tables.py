"""The tables of a report: what ran, results with intervals, differences, slices and categories."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from toolkit.metrics import Interval, holm
from toolkit.runs.groups import Stream
from toolkit.runs.load import FinishedRun
from toolkit.runs.tables import Table, number, p_value, with_interval
from toolkit.runs.uncertainty import ALPHA, CONTINUAL, Resampled, differences, over_runs, paired_p

WORSE = " ▼"
COSTS = ("train_seconds", "score_seconds_per_cloud", "state_bytes", "peak_memory_mb", "trainable_parameters",
         "buffer_bytes", "kept_bytes", "macs_per_cloud")  # fmt: skip


class StreamTables:
    """All tables of one stream; bootstrap draws are made once and used by all of them.

    Args:
        stream: with its methods and runs.
        draws: number of bootstrap resamples.
        seed: of the resampling.
    """

    def __init__(self, stream: Stream, draws: int, seed: int):
        self.stream, self.draws, self.seed = stream, draws, seed
        self.resampled = {run: Resampled(run, draws, seed) for method in stream.methods for run in method.runs}
        self.differences = differences(stream.methods, self.resampled, seed)
        self.final = {m.name: self._interval([self.resampled[run].final() for run in m.runs]) for m in stream.methods}

    def _interval(self, drawn: Sequence[Any]) -> Interval:
        return over_runs(drawn, self.seed)

    def tables(self) -> list[Table]:
        """Those that have something to say."""
        from toolkit.runs.report_more import more_tables

        found = [self.ran(), self.results(), self.difference_table(), self.slices(), self.categories()]
        found += [*more_tables(self), self.costs()]
        return [table for table in found if table is not None and table.rows]

    def ran(self) -> Table:
        """One row per method: repetitions, where it ran, commit."""
        rows = []
        for method in self.stream.methods:
            runs = method.runs
            facts = [run.result["environment"] for run in runs]
            rows.append([method.name, method.repeated, _joined(run.spec.hash for run in runs),
                         _joined(f["commit"] or "none" for f in facts),
                         _joined(f["gpu"] if run.spec.device != "cpu" else f"CPU, {_threads(f)}"
                                 for run, f in zip(runs, facts))])  # fmt: skip
        columns = ["method", "repetitions", "hash of spec", "commit", "device"]
        return Table("What ran", columns, rows, words=frozenset(columns))

    def results(self) -> Table:
        """One row per method, with intervals and how it stands against the best."""
        rows = []
        for method in self.stream.methods:
            runs = method.runs
            continual = [self._interval([self.resampled[r].continual(n) for r in runs]) for n in CONTINUAL]
            rows.append([method.name, str(len(runs)), self._shown(self.final[method.name]),
                         self._against_best(method.name), self._point_auroc(runs),
                         *(self._shown(interval, signed=True) for interval in continual)])  # fmt: skip
        columns = ["method", "runs", "object AUROC", "against the best", "point AUROC", "forgetting", "BWT", "FWT"]
        note = ("AUROCs are means over categories after the last task. [95 % bootstrap interval over test objects and "
                "repetitions]; (lowest to highest repetition) where a run kept too little to resample. Forgetting: "
                "higher is worse.")  # fmt: skip
        kept = [i for i in range(len(columns)) if any(row[i] != "–" for row in rows)]
        rows = [[row[i] for i in kept] for row in rows]
        return Table("Results", [columns[i] for i in kept], rows, note, frozenset({"against the best"}))

    def _point_auroc(self, runs: Sequence[FinishedRun]) -> str:
        if all(self.resampled[run].point_cells for run in runs):
            return self._shown(self._interval([self.resampled[run].point_final() for run in runs]))
        return _spread(runs, "final", "point_auroc")

    def costs(self) -> Table:
        """Time and memory of each method, means over repetitions."""
        rows = []
        for method in self.stream.methods:
            cost = {name: _cost(method.runs, name) for name in COSTS}
            rows.append([method.name, number(cost["train_seconds"], 1), number(cost["score_seconds_per_cloud"], 3),
                         number(cost["state_bytes"] / 2**20, 2), number(cost["buffer_bytes"] / 2**20, 2),
                         number(cost["kept_bytes"] / 2**20, 2), number(cost["peak_memory_mb"], 0),
                         f"{cost['trainable_parameters']:,.0f}", number(cost["macs_per_cloud"] / 1e6, 1)])  # fmt: skip
        columns = ["method", "training s", "scoring s per cloud", "state MB", "replay MB", "kept MB", "peak MB",
                   "trainable parameters", "million MACs per cloud"]  # fmt: skip
        note = ("Times hold for the device above and were measured once. State: network, banks, templates. Replay: "
                "clouds in buffers. Kept: both and what plugins store, all that the next task would find. Peak: "
                "resident memory of the whole process, without the GPU's. MACs: matrix products of scoring one cloud; "
                "neighbour search and sorting are not counted.")  # fmt: skip
        return Table("Cost", columns, rows, note)

    def _shown(self, interval: Interval, signed: bool = False) -> str:
        return with_interval(interval.value, interval.low, interval.high, signed=signed)

    def _against_best(self, name: str) -> str:
        known = {n: i.value for n, i in self.final.items() if not np.isnan(i.value)}
        if len(known) < 2 or name not in known:
            return "–"
        best = max(known, key=lambda n: known[n])
        if name == best:
            return "best"
        row = next(d for d in self.differences if {d.a, d.b} == {name, best} and d.metric == "object AUROC")
        return row.verdict if row.verdict.startswith("within") else f"worse, {row.verdict}"

    def difference_table(self) -> Table | None:
        """Every pair of methods, with tests."""
        rows = [[d.a, d.b, d.metric, with_interval(d.value, d.low, d.high, signed=True), p_value(d.p),
                 _percent(d.better_in), p_value(d.p_categories), d.verdict] for d in self.differences]  # fmt: skip
        if not rows:
            return None
        columns = ["A", "B", "figure", "A − B", "p", "categories where A is better", "p over categories", "verdict"]
        note = ("p: paired bootstrap over test objects and repetitions, two-sided, Holm-adjusted over the pairs. "
                "p over categories: Wilcoxon's signed-rank test, Holm-adjusted; it takes six categories at least. "
                "Beyond noise: p < 0.05. What holds for these test objects and repetitions need not hold for other "
                "products.")  # fmt: skip
        if not all(d.shared for d in self.differences):
            note += " Some methods share no seed, so that their repetitions were drawn independently."
        return Table("Differences", columns, rows, note, frozenset({"B", "figure", "verdict"}))

    def slices(self) -> Table | None:
        """Object AUROC of each slice of the test clouds that the scenario names."""
        names = list(self.stream.first.result["slices"])
        if not names:
            return None
        drawn = {(m.name, s): self._interval([Resampled(run, self.draws, self.seed, s).final() for run in m.runs])
                 for m in self.stream.methods for s in names}  # fmt: skip
        worse = self._worse(names, drawn)
        rows = []
        for method in self.stream.methods:
            cells = [self._shown(drawn[method.name, s]) + worse[method.name, s] for s in names]
            alarms = [_spread([r for r in method.runs if "false_alarm_rate" in r.result["slices"][s]], "slices", s,
                              "false_alarm_rate") for s in names if self._has_alarms(s)]  # fmt: skip
            rows.append([method.name, *cells, *alarms])
        columns = ["method", *(s.replace("_", " ") for s in names),
                   *(f"false alarms, {s.replace('_', ' ')}" for s in names if self._has_alarms(s))]  # fmt: skip
        note = "Object AUROC, each slice against its own normal clouds." + self._worse_note()
        if any(self._has_alarms(s) for s in names):
            note += " False alarms: at a threshold that at most 10 % of the reference slice's normal clouds exceed."
        return Table("Slices of the test clouds", columns, rows, note)

    def _has_alarms(self, name: str) -> bool:
        return "false_alarm_rate" in self.stream.first.result["slices"][name]

    def categories(self) -> Table | None:
        """Final object AUROC by category, one column per method."""
        tables = {m.name: [self.resampled[run].categories() for run in m.runs] for m in self.stream.methods}
        names = sorted({c for parts in tables.values() for part in parts for c in part})
        drawn = {(m, c): self._interval([part[c] for part in parts if c in part])
                 for m, parts in tables.items() for c in names if any(c in part for part in parts)}  # fmt: skip
        worse = self._worse(names, drawn)
        rows = [
            [c, *(self._shown(drawn[m, c]) + worse[m, c] if (m, c) in drawn else "–" for m in tables)] for c in names
        ]
        note = "Object AUROC after the last task." + self._worse_note()
        return Table("Categories", ["category", *tables], rows, note)

    def _worse(self, names: Sequence[str], drawn: dict[tuple[str, str], Interval]) -> dict[tuple[str, str], str]:
        """The mark of cells that are worse than the best method of their group beyond noise."""
        marks = dict.fromkeys(drawn, "")
        tested: list[tuple[tuple[str, str], float]] = []
        for name in names:
            group = {m: i for (m, n), i in drawn.items() if n == name and not np.isnan(i.value)}
            best = max(group, key=lambda m: group[m].value, default=None)
            if best is not None:
                tested += [((m, name), paired_p(i.samples, group[best].samples)) for m, i in group.items() if m != best]
        tested = [(cell, p) for cell, p in tested if not np.isnan(p)]
        for (cell, _), p in zip(tested, holm([p for _, p in tested]) if tested else ()):
            marks[cell] = WORSE if p < ALPHA else ""
        return marks

    def _worse_note(self) -> str:
        if len(self.stream.methods) < 2:
            return ""
        return (" ▼ worse than the best method beyond noise (paired bootstrap, Holm-adjusted over the table); without "
                "it the difference is within noise.")  # fmt: skip

    def numbers(self) -> list[dict[str, Any]]:
        """Rows for CSV: stream, method, figure, category, value, low, high, repetitions."""
        rows = []
        for method in self.stream.methods:
            runs = [self.resampled[run] for run in method.runs]
            figures = {("object_auroc", ""): [r.final() for r in runs]}
            figures |= {(name, ""): [r.continual(name) for r in runs] for name in CONTINUAL}
            if all(r.point_cells for r in runs):
                figures["point_auroc", ""] = [r.point_final() for r in runs]
            for category in sorted({c for r in runs for c in r.categories()}):
                figures["object_auroc", category] = [
                    r.categories()[category] for r in runs if category in r.categories()
                ]
                points = [r.point_categories()[category] for r in runs if category in r.point_categories()]
                figures |= {("point_auroc", category): points} if points else {}
            for (figure, category), drawn in figures.items():
                found = self._interval(drawn)
                rows.append({"stream": self.stream.title, "method": method.name, "figure": figure, "category": category,
                             "value": found.value, "low": found.low, "high": found.high,
                             "repetitions": len(drawn)})  # fmt: skip
        return rows

    def difference_numbers(self) -> list[dict[str, Any]]:
        """Rows for CSV: every field of each `toolkit.runs.uncertainty.Difference`."""
        return [{"stream": self.stream.title, **vars(row)} for row in self.differences]


def notes(stream: Stream) -> list[str]:
    """What a reader must know before trusting the tables."""
    runs = [run for method in stream.methods for run in method.runs]
    found = []
    if any((run.result["environment"]["commit"] or "").endswith("+") for run in runs):
        found.append("Some runs were made with uncommitted changes (commit ends in +).")
    if len({run.result["environment"]["commit"] for run in runs}) > 1:
        found.append("The runs were made at different commits.")
    packages = {name for run in runs for name in run.result["environment"]["packages"]}
    differing = sorted(
        name for name in packages if len({run.result["environment"]["packages"].get(name) for run in runs}) > 1
    )
    if differing:
        found.append(f"The runs used different versions of {', '.join(differing)}.")
    if all(len(method.runs) == 1 for method in stream.methods):
        found.append("One repetition per method: intervals cover the choice of test objects, not the luck of training.")
    if stream.first.independent:
        found.append("The tasks are separate experiments with a fresh model each; there is nothing to forget.")
    peeking = sorted({m.name for m in stream.methods for run in m.runs if _peeks(run)})
    if peeking:
        found.append(f"Chosen with test labels, and therefore not comparable: {', '.join(peeking)}.")
    known = {run.spec.strategy.arguments.get("category_at_test", "known") for run in runs}
    if len(known) > 1:
        found.append("Some methods were given the class of test clouds, others had to infer it.")
    return found


def versions(runs: Sequence[FinishedRun]) -> Table:
    """Python, packages and platform; several values where runs differ."""
    facts = [run.result["environment"] for run in runs]
    names = sorted({name for fact in facts for name in fact["packages"]})
    rows = [["python", _joined(f["python"] for f in facts)],
            *([name, _joined(f["packages"].get(name, "none") for f in facts)] for name in names),
            ["platform", _joined(f"{f['platform']}, {f['cpu_capability']}" for f in facts)]]  # fmt: skip
    return Table("Versions", ["package", "version"], rows, words=frozenset({"version"}))


def _peeks(run: FinishedRun) -> bool:
    """Whether hyperparameters say that test labels had a part in it."""
    options = run.spec.strategy.arguments
    return options.get("selection") == "oracle" or any(
        bool(value) for name, value in options.items() if name.startswith("transductive"))  # fmt: skip


def _joined(values: Any) -> str:
    return ", ".join(dict.fromkeys(str(v) for v in values))


def _threads(facts: dict[str, Any]) -> str:
    return f"{facts['threads']} thread{'s' if facts['threads'] != 1 else ''}"


def _cost(runs: Sequence[FinishedRun], name: str) -> float:
    """Mean over runs; NaN for what an older version did not measure."""
    values = [run.result["cost"].get(name) for run in runs]
    return float("nan") if None in values else float(np.mean(values))


def _percent(share: float) -> str:
    return "–" if np.isnan(share) else f"{share:.0%}"


def _spread(runs: Sequence[FinishedRun], *path: str) -> str:
    """Mean of a figure of ``result.json``, with its lowest and highest value over runs."""
    values = []
    for run in runs:
        value: Any = run.result
        for key in path:
            value = value[key]
        if value is not None:
            values.append(float(value))
    if not values:
        return "–"
    shown = number(float(np.mean(values)))
    return shown if len(values) == 1 else f"{shown} ({number(min(values))} to {number(max(values))})"
